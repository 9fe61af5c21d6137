"""What a clip is used for: which of its tokens are given, and what is to be made of the rest.

Torch-free: a task says what it gives of a latent's size as numbers, :func:`models.spans.spans_of`
turns them into spans. Training draws both, a sampler is told them. Frames are latent frames: the
first codes one frame of the clip, each further one as many as the codec's stride.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

Size = tuple[int, int, int]  # of a latent: frames, rows, columns, before its 1x2x2 patches
Below = Callable[[int], int]  # n -> a whole number from 0 to n - 1, each as likely


class Task(StrEnum):
    """What is made of what; of clips that cannot do a task text to video is made."""

    text_to_video = "text_to_video"  # everything
    image_to_video = "image_to_video"  # all but one frame: half the first, a quarter the last
    extend_forwards = "extend_forwards"  # what follows the first frames
    extend_backwards = "extend_backwards"  # what comes before the last frames
    connect = "connect"  # what lies between first and last frames
    masked_region = "masked_region"  # a box of tokens, with the rest given
    diffusion_forcing = "diffusion_forcing"  # every frame, each at its own time


@dataclass(frozen=True)
class Box:
    """Tokens whose frame, row and column lie in ranges of (first, last + 1)."""

    frames: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]


@dataclass(frozen=True)
class Given:
    """What is given of a clip: whole latent frames, or all but a box; ``forced``: own times."""

    frames: tuple[int, ...] = ()
    outside: Box | None = None
    forced: bool = False


def can(task: Task, size: Size) -> bool:
    """Tell whether a clip of a latent's size is large enough for a task."""
    frames, rows, columns = size[0], size[1] // 2, size[2] // 2
    least = {Task.text_to_video: 1, Task.masked_region: 1, Task.connect: 3}.get(task, 2)
    return frames >= least and (task is not Task.masked_region or frames * rows * columns > 1)


def draw_given(task: Task, size: Size, below: Below) -> Given:
    """Draw what a task gives of a clip; nothing where the clip cannot do it."""
    f = size[0]
    if task is Task.text_to_video or not can(task, size):
        return Given()
    if task is Task.image_to_video:
        return _one_frame(f, below)
    if task is Task.extend_forwards:
        return Given(tuple(range(_several(f, below))))
    if task is Task.extend_backwards:
        return Given(tuple(range(f - _several(f, below), f)))
    if task is Task.connect:
        middle = 1 + below(f - 2)
        head = 1 + below(f - middle - 1)
        return Given((*range(head), *range(head + middle, f)))
    if task is Task.masked_region:
        return Given(outside=_draw_box((f, size[1] // 2, size[2] // 2), below))
    return Given(forced=True)


def draw_task(weights: Mapping[str, float], share: float) -> Task:
    """Return the task that a share in [0, 1) falls to; without weights text to video."""
    total, reached = sum(weights.values()), 0.0
    for task in Task:
        reached += weights.get(task, 0.0)
        if share * total < reached:
            return task
    return Task.text_to_video


def expected_spans(weights: Mapping[str, float], size: Size) -> float:
    """Return how many spans a clip has in the mean over what is drawn."""
    total = sum(weights.values())
    extra = sum(w * (spans_in(Task(task), size) - 1) for task, w in weights.items() if w)
    return 1.0 + extra / total if total else 1.0


def spans_in(task: Task, size: Size) -> int:
    """Return how many spans a clip has under a task: what is made, what is given, or its frames."""
    if task is Task.text_to_video or not can(task, size):
        return 1
    return size[0] if task is Task.diffusion_forcing else 2


def beside_text(weights: Mapping[str, float]) -> list[Task]:
    """Return the tasks with a weight; none where text to video is the only one."""
    found = [task for task in Task if weights.get(task, 0.0) > 0]
    return [] if found == [Task.text_to_video] else found


def check_tasks(weights: Mapping[str, float]) -> None:
    """Raise ValueError on a task that is none, and where no task has a weight."""
    for task, weight in weights.items():
        if task not in list(Task):
            raise ValueError(
                f"objective.tasks.{task}={weight}: is no task. Tasks: {', '.join(Task)}."
            )
        if weight < 0:
            raise ValueError(
                f"objective.tasks.{task}={weight:g}: must be at least 0. Leave it out, or use 1."
            )
    if weights and not sum(weights.values()) > 0:
        raise ValueError(
            f"objective.tasks={dict(weights)}: one must be above 0. Leave the key out for text to "
            "video alone."
        )


def _one_frame(frames: int, below: Below) -> Given:
    which = below(4)
    return Given((0 if which < 2 else frames - 1 if which == 2 else below(frames),))


def _several(frames: int, below: Below) -> int:
    """Draw how many frames are given: two at least, where that leaves one to make."""
    least = min(2, frames - 1)
    return least + below(frames - least)


def _draw_box(grid: Size, below: Below) -> Box:
    """Draw a box that is not everything: its longest axis is cut."""
    longest = grid.index(max(grid))
    frames, rows, columns = (
        _range(n, n - 1 if axis == longest else n, below) for axis, n in enumerate(grid)
    )
    return Box(frames, rows, columns)


def _range(count: int, most: int, below: Below) -> tuple[int, int]:
    length = 1 + below(most)
    first = below(count - length + 1)
    return first, first + length
