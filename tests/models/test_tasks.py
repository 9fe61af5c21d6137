"""Tasks: what each gives of a clip, which clips can do it, and how they are drawn."""

import random

import pytest
import torch

from models.dit.embed import token_positions
from models.spans import spans_of
from models.tasks import (
    Given,
    Task,
    beside_text,
    can,
    check_tasks,
    draw_given,
    draw_task,
    expected_spans,
    spans_in,
)

SIZES = [(1, 2, 2), (1, 4, 6), (2, 4, 4), (3, 2, 2), (3, 6, 4), (6, 4, 8)]
MANY = 200


def draws(task: Task, size: tuple[int, int, int]) -> list[Given]:
    below = random.Random(7).randrange
    return [draw_given(task, size, below) for _ in range(MANY)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("task", list(Task))
def test_a_task_has_the_spans_it_is_counted_with_and_leaves_something_to_make(
    task: Task, size: tuple[int, int, int]
) -> None:
    for given in draws(task, size):
        spans = spans_of(given, size)
        assert len(spans.given) == spans_in(task, size) == len(spans.rows.unique())
        assert not spans.given_rows.all()
        several = can(task, size) and task not in (Task.text_to_video, Task.diffusion_forcing)
        assert bool(spans.given_rows.any()) == several
        assert (given == Given()) == (len(spans.given) == 1)


def frames_given(task: Task, frames: int) -> set[tuple[int, ...]]:
    size = (frames, 4, 4)
    places = token_positions(*size)[:, 0]
    found = set()
    for given in draws(task, size):
        rows = spans_of(given, size).given_rows
        assert all(len({*rows[places == f].tolist()}) == 1 for f in range(frames))
        found.add(tuple(f for f in range(frames) if rows[places == f].all()))
    return found


def test_what_is_given_is_what_the_task_says() -> None:
    assert frames_given(Task.image_to_video, 4) == {(0,), (1,), (2,), (3,)}
    assert frames_given(Task.extend_forwards, 4) == {(0, 1), (0, 1, 2)}
    assert frames_given(Task.extend_forwards, 2) == {(0,)}
    assert frames_given(Task.extend_backwards, 4) == {(2, 3), (1, 2, 3)}
    middles = {(0, 2, 3), (0, 1, 3), (0, 3)}
    assert frames_given(Task.connect, 4) == middles
    assert frames_given(Task.text_to_video, 4) == {()}
    ends = [draw.frames[0] for draw in draws(Task.image_to_video, (8, 4, 4))]
    assert ends.count(0) / MANY == pytest.approx(1 / 2 + 1 / 32, abs=0.1)
    assert ends.count(7) / MANY == pytest.approx(1 / 4 + 1 / 32, abs=0.1)


@pytest.mark.parametrize("size", [(1, 4, 6), (3, 6, 4)], ids=str)
def test_a_masked_region_is_a_box_with_the_rest_given(size: tuple[int, int, int]) -> None:
    places, boxes = token_positions(*size), set()
    for given in draws(Task.masked_region, size):
        made = places[~spans_of(given, size).given_rows]
        low, high = made.amin(0), made.amax(0)
        assert len(made) == int((high - low + 1).prod())
        boxes.add((*low.tolist(), *high.tolist()))
    assert len(boxes) > 5


def test_a_share_falls_to_tasks_by_their_weights_in_a_fixed_order() -> None:
    weights = {"connect": 1.0, "text_to_video": 2.0, "masked_region": 0.0, "extend_forwards": 1.0}
    drawn = [draw_task(weights, (i + 0.5) / 8) for i in range(8)]
    assert drawn == [Task.text_to_video] * 4 + [Task.extend_forwards] * 2 + [Task.connect] * 2
    assert draw_task(dict(reversed(weights.items())), 0.6) is Task.extend_forwards
    assert draw_task({}, 0.9) is Task.text_to_video


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_expected_spans_are_the_mean_over_draws(size: tuple[int, int, int]) -> None:
    weights = {"text_to_video": 1.0, "diffusion_forcing": 2.0, "connect": 1.0}
    counts = []
    for i in range(8):
        given = draw_given(draw_task(weights, (i + 0.5) / 8), size, random.Random(i).randrange)
        counts.append(len(spans_of(given, size).given))
    assert expected_spans(weights, size) == pytest.approx(sum(counts) / 8)
    assert expected_spans({}, size) == 1.0


def test_text_to_video_alone_is_no_mixture() -> None:
    assert beside_text({}) == beside_text({"text_to_video": 3.0, "connect": 0.0}) == []
    assert beside_text({"connect": 1.0}) == [Task.connect]
    assert torch.equal(spans_of(Given(), (2, 4, 4)).rows, torch.zeros(8, dtype=torch.long))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"loop": 1.0}, r"objective\.tasks\.loop=1\.0: is no task\. Tasks: text_to_video, image"),
        ({"connect": -1.0}, r"objective\.tasks\.connect=-1: must be at least 0\. Leave it out"),
        ({"connect": 0.0}, r"objective\.tasks=.*: one must be above 0\. Leave the key out"),
    ],
)
def test_tasks_that_cannot_be_drawn_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_tasks(weights)
