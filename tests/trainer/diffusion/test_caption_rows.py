"""Captions of a pack padded to one number of rows: the same loss, one shape, counted."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from benchmarks.packs import Sample, build_model, build_sample, our_loss
from data.loading.accounting import Accounting
from data.loading.batch import Pack
from data.loading.loader import load_fixed
from models.config import ModelConfig
from models.dit.model import DiT
from models.pack import join
from trainer.config import CaptionUse
from trainer.diffusion.collate import Collator
from trainer.diffusion.micro_batch import prepare
from trainer.identity import run_name
from trainer.layout.config import Recompute
from trainer.parallel.mesh import alone
from trainer.parallel.recompute import wrap_blocks

from ..conftest import compose_smoke

SMALL = ModelConfig(width=16, depth=2, head_dim=8)
ROWS = 40
# Clips (frames, rows, columns) with caption tokens; the tokens of all packs are equally many.
PACKS = [
    [((2, 3, 4), 5), ((1, 4, 4), 0), ((2, 2, 5), 7)],
    [((2, 5, 5), 9), ((1, 2, 5), 3)],
    [((1, 2, 2), 4), ((2, 3, 3), 6), ((1, 3, 6), 2), ((2, 2, 5), 8)],
    [((4, 3, 4), 31), ((1, 3, 4), 1)],
]


def padded(sample: Sample) -> Sample:
    """Return a sample whose captions are padded."""
    pack, extra = sample.pack, ROWS - sample.pack.caption_rows
    rows = torch.cat([pack.caption, pack.caption.new_zeros(extra, pack.caption.shape[1])])
    return replace(sample, pack=replace(pack, caption=rows))


def results(model: DiT, sample: Sample) -> dict[str, Tensor]:
    """Return loss and gradients of a pack."""
    model.zero_grad()
    loss = our_loss(model, sample)
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients}


@pytest.fixture
def fresh() -> Iterator[None]:
    """Forget what was compiled, and the settings that compiled blocks need."""
    duck, floats = (
        torch.fx.experimental._config.use_duck_shape,
        torch._dynamo.config.specialize_float,
    )
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    torch.fx.experimental._config.use_duck_shape = duck
    torch._dynamo.config.specialize_float = floats


def test_padding_changes_neither_loss_nor_gradients() -> None:
    model = build_model(SMALL)
    for seed, clips in enumerate(PACKS):
        sample = build_sample(SMALL, clips, seed)
        more = padded(sample)
        assert more.pack.caption_rows == ROWS > sample.pack.caption_rows
        found, expected = results(model, more), results(model, sample)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.usefixtures("fresh")
def test_nothing_is_compiled_after_the_second_pack() -> None:
    samples = [padded(build_sample(SMALL, clips, seed)) for seed, clips in enumerate(PACKS)]
    assert {(len(s.pack.latent), s.pack.caption_rows) for s in samples} == {(60, ROWS)}
    plain, compiled = build_model(SMALL), build_model(SMALL)
    wrap_blocks(list(compiled.blocks), Recompute.none, compiled=True, backend="aot_eager")
    counts = []
    for sample in samples:
        found, expected = results(compiled, sample), results(plain, sample)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=2e-5, atol=2e-6)
        counts.append((counters["stats"]["unique_graphs"], counters["frames"]["total"]))
    assert counts[0][0] == 1
    assert counts[1:] == [counts[1]] * 3
    assert not counters["graph_break"]


def test_a_run_pads_its_captions_and_counts_what_it_added(latents: Path) -> None:
    plain = compose_smoke(latents)
    run = replace(plain, data=replace(plain.data, caption_rows=50))
    samples, collator = load_fixed(run.data, "train", 6), Collator(run.codec, run.text)
    batches = [prepare(Pack(samples, 512, []), r, collator, alone()) for r in (plain, run)]
    without, having = batches
    assert (without.pack.caption_rows, having.pack.caption_rows) == (without.caption_rows, 50)
    assert without.caption_rows == having.caption_rows < 50
    assert torch.equal(having.pack.caption[: len(without.pack.caption)], without.pack.caption)
    assert not having.pack.caption[len(without.pack.caption) :].any()
    assert prepare(Pack([], 512, []), run, collator, alone()).pack.caption_rows == 50
    assert having.flops == without.flops
    counted = Accounting()
    for batch in batches:
        counted.add_captions(batch.caption_rows, batch.pack.caption_rows)
    assert counted.caption_rows == 2 * having.caption_rows
    assert counted.caption_padding == 50 - having.caption_rows
    assert "caption rows" in counted.table()
    assert run_name(run) == run_name(plain)  # it is arithmetic that changes no loss


def test_a_pack_that_has_more_keeps_all(latents: Path) -> None:
    run = compose_smoke(latents)
    collator = Collator(run.codec, run.text)
    items = [collator.encode(sample) for sample in load_fixed(run.data, "train", 4)]
    uses = [CaptionUse.dense] * 4
    pack = collator.pack(items, uses)
    assert torch.equal(collator.pack(items, uses, None, 1).caption, pack.caption)
    longer = collator.pack(items, uses, None, pack.caption_rows + 3)
    assert len(longer.caption) == len(pack.caption) + 3
    assert torch.equal(join([longer, pack]).caption, join([pack, pack]).caption)
