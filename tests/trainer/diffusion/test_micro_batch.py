"""A step's micro-batches: every draw has its name, and errors and gradients are the model's own."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data.loading.batch import Pack, Sample
from data.loading.loader import load_fixed
from models.dit.model import DiT
from models.network import initial_values
from models.objective import build_objective
from models.objectives.flow import flow_errors
from models.spans import given_frames, own_times
from trainer.config import CaptionUse, RunConfig
from trainer.diffusion.collate import Collator, PackItem
from trainer.diffusion.micro_batch import (
    MicroBatch,
    accumulate,
    caption_use,
    measure,
    prepare,
    stratified,
)
from trainer.layout.layout import Layout
from trainer.parallel.engine import Engine
from trainer.parallel.mesh import Mesh, alone
from trainer.rng import normal, uniform

from ..conftest import compose_smoke

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(latents: Path) -> RunConfig:
    """Return a smoke run in which captions are dropped and times are shifted."""
    return compose_smoke(latents, "objective.caption_dropout=0.4", "objective.shift_tokens=16")


def batch_of(run: RunConfig, mesh: Mesh) -> MicroBatch:
    """Return the first six training samples as one rank's micro-batch."""
    samples = load_fixed(run.data, "train", 6)
    return prepare(Pack(samples, 512, []), run, Collator(run.codec, run.text), mesh)


def test_noise_times_and_captions_are_those_of_their_names(run: RunConfig) -> None:
    batch, collator = batch_of(run, alone()), Collator(run.codec, run.text)
    encoded = {s.info.key: collator.encode(s) for s in load_fixed(run.data, "train", 6)}
    lengths = [len(encoded[key].tokens) for key in batch.keys]
    assert lengths == sorted(lengths) == batch.pack.lengths
    assert sorted(batch.keys) == sorted(encoded)
    assert batch.tokens == sum(lengths)
    assert batch.values == int(batch.pack.valid.sum())
    start, kept = 0, []
    for i, key in enumerate(batch.keys):
        rows = slice(start, start + lengths[i])
        assert torch.equal(batch.pack.latent[rows], encoded[key].tokens)
        assert torch.equal(batch.x_0[rows], normal((lengths[i], 24), run.seed, "noise", key, 0))
        n = float(normal((1,), run.seed, "time", key, 0))
        t, shift = 1 / (1 + math.exp(-n)), max(1, math.sqrt(lengths[i] / 16))
        assert float(batch.t[i]) == pytest.approx(t / (t + shift * (1 - t)), rel=1e-5)
        dropped = uniform(run.seed, "caption", key, 0) < 0.4
        kept.append(0 if dropped else len(encoded[key].caption))
        start = rows.stop
    assert batch.pack.caption_lengths == kept
    assert 0 < kept.count(0) < 6


def test_flops_are_those_of_the_segments_alone(run: RunConfig) -> None:
    # By hand: 2 FLOPs a product, three times for forward and backward; 32 wide, 2 blocks.
    batch = batch_of(run, alone())
    D, V, text, T = 32, 24, 32, run.model.time_features
    rows = (V + 18) * D + 2 * (4 + 2 + 8) * D * D + D * V
    segment = 2 * T * D + D * D + 6 * D * D + 2 * D * D
    word = text * D + 2 * 2 * D * D
    captions = [max(1, n) for n in batch.pack.caption_lengths]
    expected = 6 * (batch.tokens * rows + 6 * segment + sum(captions) * word)
    for n, words in zip(batch.pack.lengths, captions, strict=True):
        expected += 12 * 2 * D * (n * n + n * words)
    assert batch.flops == expected


class OneGiven(Collator):
    """Give the longest clip's first frame, and the second longest's frames their own times."""

    def encode(self, sample: Sample) -> PackItem:
        """Encode a sample and give it spans."""
        item = super().encode(sample)
        frames = item.size[0]
        spans = given_frames(item.size, [0]) if frames == 5 else own_times(item.size)
        return replace(item, spans=spans) if frames > 1 else item


def test_given_tokens_stand_at_the_data_and_carry_no_loss_and_other_times_are_as_they_were(
    run: RunConfig,
) -> None:
    plain, samples = batch_of(run, alone()), load_fixed(run.data, "train", 6)
    batch = prepare(Pack(samples, 512, []), run, OneGiven(run.codec, run.text), alone())
    pack, clock = batch.pack, batch.t[batch.pack.span]
    given = pack.spans.given[pack.span]
    assert 0 < given.sum() < len(given)
    assert (clock[given] == 1).all()
    assert (clock[~given] < 1).all()
    assert torch.equal(build_objective(run.objective).inputs(pack, batch.x_0, batch.t)[given],
                       pack.latent[given])  # fmt: skip
    assert torch.equal(pack.valid, plain.pack.valid & ~given.unsqueeze(1))
    assert batch.values == int(plain.pack.valid[~given].sum())
    model = DiT(run.model)
    errors = flow_errors(model, pack, batch.x_0, batch.t)
    assert not errors[given].any()
    # A sample's first span has the time of the sample; frames of their own have others.
    first = [pack.spans.segments.tolist().index(i) for i in range(len(pack.lengths))]
    assert torch.equal(batch.t[first], plain.t)
    assert len(set(batch.t.tolist())) == pack.num_spans - int(pack.spans.given.sum()) + 1
    more = pack.num_spans - len(pack.lengths)
    D, T = 32, run.model.time_features
    assert batch.flops - plain.flops == 6 * more * (2 * T * D + D * D + 6 * D * D + 2 * D * D)


@pytest.mark.parametrize("layout", [Layout(cp=2), Layout(tp=2, cp=2)], ids=str)
def test_ranks_that_share_a_pack_hold_its_rows_and_its_noise_between_them(
    run: RunConfig, layout: Layout
) -> None:
    whole = batch_of(run, alone())
    parts = [batch_of(run, Mesh(layout, rank, CPU)) for rank in range(layout.world)]
    rows, share = whole.tokens, len(parts[0].x_0)
    assert layout.world * (share - 1) < rows <= layout.world * share
    for part in parts:
        assert part.flops == whole.flops
        assert torch.equal(part.t, whole.t)
    for field in ("latent", "valid", "place"):
        joined = torch.cat([getattr(p.pack, field) for p in parts])
        assert torch.equal(joined[:rows], getattr(whole.pack, field)), field
        assert not joined[rows:].any()
    noise = torch.cat([p.x_0 for p in parts])
    assert torch.equal(noise[:rows], whole.x_0)
    assert not noise[rows:].any()
    assert [p.pack.first_row for p in parts] == [rank * share for rank in range(layout.world)]


@pytest.mark.parametrize("layout", [Layout(), Layout(tp=2, cp=2)], ids=str)
def test_a_pack_that_lost_all_of_its_samples_is_a_token_without_loss(
    run: RunConfig, layout: Layout
) -> None:
    for rank in range(layout.world):
        mesh = Mesh(layout, rank, CPU)
        batch = prepare(Pack([], 512, []), run, Collator(run.codec, run.text), mesh)
        assert (batch.values, batch.flops, batch.tokens, batch.keys) == (0, 0, 0, [])
        assert len(batch.x_0) == len(batch.pack.latent) == 1
        assert not batch.pack.valid.any()


@pytest.mark.usefixtures("group")
@pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_lost_pack_leaves_the_gradient_of_the_others_as_it_is(run: RunConfig) -> None:
    norms, samples, collator = [], load_fixed(run.data, "train", 6), Collator(run.codec, run.text)
    for packs in ([samples], [samples, []]):
        generator = torch.Generator().manual_seed(1)
        values = dict(initial_values(run.model, generator))
        values = {name: v + torch.randn(v.shape, generator=generator) for name, v in values.items()}
        engine = Engine(
            run.model, lambda _, v=values: iter(v.items()), run.optim, run.parallel, alone()
        )
        batches = [prepare(Pack(pack, 512, []), run, collator, alone()) for pack in packs]
        errors = accumulate(engine, batches, 500.0, build_objective(run.objective))
        assert all(float(error.sum()) == 0 for error in errors[1:])
        norms.append(engine.step(1e-3, lambda norm: True))
    assert norms[0] == norms[1] > 0


def test_a_caption_is_dropped_first_and_dense_or_short_then(run: RunConfig) -> None:
    run = compose_smoke(Path(run.data.root), "objective.caption_dropout=0.4")
    run.objective.dense_captions = 0.3
    for i in range(200):
        key, visit = f"clip-{i}", i % 3
        expected = CaptionUse.short
        if uniform(run.seed, "caption-kind", key, visit) < 0.3:
            expected = CaptionUse.dense
        if uniform(run.seed, "caption", key, visit) < 0.4:
            expected = CaptionUse.dropped
        assert caption_use(run, key, visit) is expected


@pytest.mark.usefixtures("group")
@pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_errors_and_gradients_are_those_of_the_model_on_every_batch(run: RunConfig) -> None:
    generator = torch.Generator().manual_seed(3)
    model = DiT(run.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.1, generator=generator)
    weights = dict(model.named_parameters())
    run = compose_smoke(Path(run.data.root), "optim.clip=0")
    engine = Engine(
        run.model, lambda names: iter(weights.items()), run.optim, run.parallel, alone()
    )
    samples, collator = load_fixed(run.data, "train", 6), Collator(run.codec, run.text)
    batches = [prepare(Pack(samples[i::2], 512, []), run, collator, alone()) for i in range(2)]
    own = [flow_errors(model, b.pack, b.x_0, b.t) for b in batches]

    objective = build_objective(run.objective)
    for found in (
        measure(engine, objective, batches),
        accumulate(engine, batches, 500.0, objective),
    ):
        assert len(found) == 2
        for errors, expected in zip(found, own, strict=True):
            torch.testing.assert_close(errors, expected.detach())
            assert not errors.requires_grad
    (sum(errors.sum() for errors in own) / 500.0).backward()
    squares = sum(float(p.grad.double().square().sum()) for p in model.parameters())
    norm = engine.step(1e-3, lambda norm: True)
    assert norm == pytest.approx(math.sqrt(squares), rel=1e-5)


def times_of(batch: MicroBatch) -> dict[str, float]:
    return dict(zip(batch.keys, batch.t.tolist(), strict=True))


def test_stratified_times_leave_no_share_of_the_density_out(latents: Path) -> None:
    uniform_parts = "objective.density=[{kind: uniform}]"
    run = compose_smoke(latents, "objective.stratified=true", uniform_parts)
    found = sorted(batch_of(run, alone()).t.tolist())
    assert [int(6 * t) for t in found] == list(range(6))
    plain = compose_smoke(latents, uniform_parts)
    assert sorted(int(6 * t) for t in batch_of(plain, alone()).t.tolist()) != list(range(6))


def test_stratified_times_are_those_of_the_pack_whatever_the_order_it_is_read_in(
    latents: Path,
) -> None:
    run = compose_smoke(latents, "objective.stratified=true")
    samples, collator = load_fixed(run.data, "train", 6), Collator(run.codec, run.text)
    one, other = (
        prepare(Pack(order, 512, []), run, collator, alone()) for order in (samples, samples[::-1])
    )
    assert times_of(one) == times_of(other)
    fewer = prepare(Pack(samples[:5], 512, []), run, collator, alone())
    assert times_of(fewer).items() & times_of(one).items() == set()  # another pack
    torch.testing.assert_close(one.x_0, batch_of(compose_smoke(latents), alone()).x_0)


def test_each_stratified_time_alone_is_drawn_as_before() -> None:
    def refuse(purpose: str, shape: tuple[int, ...]) -> torch.Tensor:
        raise AssertionError(purpose)

    visits = [("a", 0), ("b", 0), ("c", 0)]
    draws = [
        stratified([refuse] * 3, seed, visits)[0]("time", (1,)) for seed in range(2000)
    ]  # each seed is another run
    normals = torch.cat(draws)
    assert float(normals.mean()) == pytest.approx(0.0, abs=0.07)
    assert float(normals.std()) == pytest.approx(1.0, abs=0.05)
