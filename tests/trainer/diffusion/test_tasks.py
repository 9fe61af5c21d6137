"""Tasks in training: draws that are the same everywhere, and a validation of each task."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data.dataset.shards import read_index
from data.loading.batch import Pack
from data.loading.loader import load_fixed
from models.dit.model import DiT
from models.dit.modulation import Spans
from models.tasks import Task
from trainer.config import RunConfig
from trainer.diffusion import evaluate
from trainer.diffusion.attempt import train_run
from trainer.diffusion.collate import Collator
from trainer.diffusion.evaluate import Validator, refuse_unmeasured
from trainer.diffusion.horizon import flops_per_token
from trainer.diffusion.micro_batch import MicroBatch, prepare
from trainer.identity import freeze, run_name
from trainer.layout.layout import Layout
from trainer.parallel.mesh import Mesh, alone

from ..conftest import compose_smoke

ALL = "objective.tasks={" + ", ".join(f"{task}: 1" for task in Task) + "}"


@pytest.fixture(scope="module")
def run(latents: Path) -> RunConfig:
    """Return a smoke run of all tasks alike."""
    return compose_smoke(latents, ALL)


def model_of(run: RunConfig) -> DiT:
    generator = torch.Generator().manual_seed(2)
    model = DiT(run.model).requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(0.0, 0.1, generator=generator)
    return model


def batch_of(
    run: RunConfig, visit: int, backwards: bool = False, mesh: Mesh | None = None
) -> MicroBatch:
    samples = [replace(sample, visit=visit) for sample in load_fixed(run.data, "train", 9)]
    pack = Pack(samples[::-1] if backwards else samples, 1024, [])
    return prepare(pack, run, Collator(run.codec, run.text), mesh or alone())


def given_by_key(batch: MicroBatch) -> dict[str, list[bool]]:
    spans = batch.pack.spans
    rows = spans.given[spans.rows] if spans else torch.zeros(len(batch.x_0), dtype=torch.bool)
    parts = torch.split(rows, batch.pack.lengths)
    return {key: part.tolist() for key, part in zip(batch.keys, parts, strict=True)}


def test_a_visits_task_is_its_own_whatever_the_pack(run: RunConfig) -> None:
    first, again, later = batch_of(run, 0), batch_of(run, 0, backwards=True), batch_of(run, 1)
    assert given_by_key(first) == given_by_key(again)
    assert given_by_key(first) != given_by_key(later)
    assert any(any(rows) for rows in given_by_key(first).values())
    other = batch_of(replace(run, seed=run.seed + 1), 0)
    assert given_by_key(first) != given_by_key(other)


@pytest.mark.parametrize("layout", [Layout(cp=2), Layout(tp=2, cp=2)], ids=str)
def test_ranks_that_share_a_pack_hold_its_spans_between_them(
    run: RunConfig, layout: Layout
) -> None:
    whole = batch_of(run, 0)
    parts = [
        batch_of(run, 0, mesh=Mesh(layout, rank, torch.device("cpu")))
        for rank in range(layout.world)
    ]
    joined = torch.cat([part.pack.span for part in parts])
    assert torch.equal(joined[: whole.tokens], whole.pack.span)
    assert (joined[whole.tokens :] == whole.pack.span[-1]).all()
    for part in parts:
        assert torch.equal(part.t, whole.t)
        spans = Spans.of(part.pack)
        told = [s for s, n in zip(spans.runs, spans.lengths, strict=True) for _ in range(n)]
        assert told == part.pack.span.tolist()


def test_noise_captions_and_first_times_are_those_without_tasks(
    run: RunConfig, latents: Path
) -> None:
    plain, mixed = batch_of(compose_smoke(latents), 0), batch_of(run, 0)
    assert plain.pack.spans is None
    assert plain.keys == mixed.keys
    assert torch.equal(plain.x_0, mixed.x_0)
    assert plain.pack.caption_lengths == mixed.pack.caption_lengths
    segments = mixed.pack.spans.segments.tolist()
    first = [segments.index(i) for i in range(len(plain.keys))]
    assert torch.equal(mixed.t[first], plain.t)


def test_runs_without_tasks_keep_their_names(latents: Path) -> None:
    name = run_name(compose_smoke(latents))
    assert run_name(compose_smoke(latents, "objective.tasks={text_to_video: 3}")) == name
    half = compose_smoke(latents, "objective.tasks={text_to_video: 1, connect: 1}")
    assert run_name(half) != name
    assert half.objective.tasks == {"text_to_video": 1.0, "connect": 1.0}


def test_a_task_that_is_none_is_refused_in_words(latents: Path) -> None:
    with pytest.raises(ValueError, match=r"objective\.tasks\.loop=1\.0: is no task\. Tasks: text"):
        compose_smoke(latents, "objective.tasks={loop: 1}")


def test_a_horizon_counts_the_conditions_of_spans(run: RunConfig, latents: Path) -> None:
    infos = read_index(latents, "train")
    plain = flops_per_token(compose_smoke(latents), infos)
    D, U = run.model.width, run.model.time_features
    condition = 6 * (2 * U * D + D * D + 6 * D * D + 2 * D * D)
    tokens = extra = 0.0
    for info in infos:
        f, h, w = run.codec.latent_shape(info.num_frames, info.height, info.width)
        tokens += f * h * w / 4
        # Of seven: three of two spans from two frames on, connect from three, a box always.
        extra += (3 * (f > 1) + (f > 2) + 1 + (f - 1)) / 7
    expected = plain + condition * extra / tokens
    assert flops_per_token(run, infos) == pytest.approx(expected, rel=1e-9)


def test_text_to_video_is_validated_as_without_tasks(run: RunConfig, latents: Path) -> None:
    collator, model = Collator(run.codec, run.text), model_of(run)
    found = [
        Validator(each, "val_worlds", collator, alone(), 4).measure(model)
        for each in (run, compose_smoke(latents))
    ]
    assert found[0].loss == found[1].loss
    assert found[0].by_time == found[1].by_time


@pytest.mark.parametrize("task", [Task.image_to_video, Task.masked_region])
def test_a_tasks_loss_is_that_of_what_is_made(run: RunConfig, task: Task) -> None:
    collator = Collator(run.codec, run.text)
    validator = Validator(run, "val_worlds", collator, alone(), 6, task)
    whole = Validator(run, "val_worlds", collator, alone(), 6)
    assert task is Task.masked_region or validator.num_clips < whole.num_clips  # no images
    errors = values = 0.0
    for item in validator._items:
        pack, batch = item.batch.pack, item.batch
        given = pack.spans.given[pack.span]
        assert given.any()
        assert not pack.valid[given].any()
        assert (batch.t[pack.span][given] == 1).all()
        x_t = torch.lerp(batch.x_0, pack.latent, batch.t[pack.span].unsqueeze(1))
        assert torch.equal(x_t[given], pack.latent[given])
        said = -x_t  # a network that knows nothing
        wanted = pack.latent - batch.x_0
        errors += float(((said - wanted)[~given] * pack.valid[~given]).double().square().sum())
        values += float(pack.valid.sum())
    found = validator.measure(lambda pack, x, t: -x)
    assert found.loss == pytest.approx(errors / values, rel=1e-5)
    assert found.noise > 0


def test_frames_of_their_own_times_are_each_seen_at_every_stratum(run: RunConfig) -> None:
    task = Task.diffusion_forcing
    validator = Validator(run, "val_worlds", Collator(run.codec, run.text), alone(), 4, task)
    times = run.validation.times
    seen: dict[tuple[int, int], list[float]] = {}
    apart = False
    for item in validator._items:
        if item.draw:
            continue
        spans = item.batch.pack.spans
        for span, segment in enumerate(spans.segments.tolist()):
            frame = span - spans.segments.tolist().index(segment)
            seen.setdefault((item.clip, frame), []).append(float(item.batch.t[span]))
        own = item.batch.t[spans.segments == 0]
        apart |= len(set(own.tolist())) > 1
    assert apart
    for found in seen.values():
        assert sorted(int(t * times) for t in found) == list(range(times))


def test_a_task_that_no_validation_clip_is_long_enough_for_is_refused_at_the_start(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_unmeasured(run)
    monkeypatch.setattr(
        evaluate, "fixed_order", lambda infos: [info for info in infos if info.num_frames == 1]
    )
    with pytest.raises(
        ValueError, match=r"tasks\.image_to_video=1: none of the \d+ clips of valid"
    ):
        refuse_unmeasured(run)


@pytest.mark.heavy
@pytest.mark.usefixtures("group")
@pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_run_of_tasks_says_what_each_costs(run: RunConfig, tmp_path: Path) -> None:
    few = replace(run, validation=replace(run.validation, samples=4, curve_points=0))
    folder = tmp_path / run_name(few)
    freeze(few, folder)
    assert train_run(few, folder, lambda: False)
    result = json.loads((folder / "result.json").read_text())
    assert set(result["tasks"]) == set(Task)
    assert result["tasks"]["text_to_video"]["loss"] == result["loss"]
    for task, found in result["tasks"].items():
        assert 0 < found["loss"] < 10, task
        assert found["values"] > 0
    last = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    told = next(row for row in reversed(last) if "loss/task/connect" in row)
    assert told["loss/task/connect"] == pytest.approx(result["tasks"]["connect"]["loss"])
