"""Samples side by side: what lands where, what is masked, what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data.dataset.tokens import tokens
from data.loading.batch import Sample
from data.loading.loader import load_fixed
from models.dit.embed import patchify
from trainer.config import CaptionUse, ObjectiveConfig, RunConfig
from trainer.diffusion.collate import CAPTIONS, Collator, PackItem, pad_pack
from trainer.diffusion.micro_batch import caption_use

from ..conftest import compose_smoke

DENSE, SHORT, DROPPED = CaptionUse


@pytest.fixture(scope="module")
def run(latents: Path) -> RunConfig:
    """Return the smoke run."""
    return compose_smoke(latents)


@pytest.fixture(scope="module")
def stored(run: RunConfig) -> list[Sample]:
    """Return six samples of the training split, clips and images."""
    return load_fixed(run.data, "train", 6)


@pytest.fixture(scope="module")
def encoded(run: RunConfig, stored: list[Sample]) -> list[PackItem]:
    """Return the samples as the network needs them."""
    collator = Collator(run.codec, run.text)
    return [collator.encode(sample) for sample in stored]


def test_tokens_are_as_many_as_the_planner_counted(run: RunConfig, encoded: list[PackItem]) -> None:
    for e in encoded:
        assert len(e.tokens) == tokens(*e.source, run.cell)
    assert len({len(e.tokens) for e in encoded}) > 2


def test_only_the_latest_captions_are_kept_and_hold_no_more_than_their_own_states(
    run: RunConfig,
) -> None:
    collator = Collator(run.codec, run.text)
    first = collator.caption("number 0")
    assert first is collator.caption("number 0")
    for number in range(CAPTIONS + 3):
        states = collator.caption(f"number {number}")
        assert states.untyped_storage().nbytes() == states.numel() * states.element_size()
    assert collator.caption.cache_info().currsize == CAPTIONS
    assert torch.equal(collator.caption("number 0"), first)


@pytest.mark.parametrize("pad_to", [None, 512])
def test_every_sample_keeps_its_own_rows(
    run: RunConfig, encoded: list[PackItem], pad_to: int | None
) -> None:
    collator = Collator(run.codec, run.text)
    pack = collator.pack(encoded, [DENSE, DROPPED, DENSE, DENSE, DROPPED, DENSE], pad_to)
    assert len(pack.latent) == (pad_to or pack.num_tokens)
    start = 0
    for i, e in enumerate(encoded):
        rows = slice(start, start + len(e.tokens))
        alone = collator.pack([e], [DENSE])
        assert torch.equal(pack.latent[rows], e.tokens)
        assert (pack.segment[rows] == i).all()
        for name in ("valid", "positions", "place"):
            assert torch.equal(getattr(pack, name)[rows], getattr(alone, name)), name
        assert pack.fps[i] == e.fps
        start = rows.stop
    kept = [0 if i in (1, 4) else len(e.caption) for i, e in enumerate(encoded)]
    assert pack.caption_lengths == kept
    assert torch.equal(pack.caption, torch.cat([encoded[i].caption for i in (0, 2, 3, 5)]))
    assert not pack.valid[start:].any()
    assert (pack.segment[start:] == len(encoded) - 1).all()


def test_edge_padding_is_masked_at_the_resolution_of_the_latent(run: RunConfig) -> None:
    # 72 rows are 9 of 10 latent rows, 56 columns 7 of 8; the first frame has no temporal detail.
    collator = Collator(run.codec, run.text)
    odd = next(s for s in load_fixed(run.data, "train", 0) if s.info.height == 72)
    pack = collator.pack([collator.encode(odd)], [DENSE])
    assert int(pack.valid.sum()) == (6 * 4 - 1) * 9 * 7


def test_a_clip_to_be_made_lies_where_a_stored_one_of_its_shape_does(
    run: RunConfig, encoded: list[PackItem]
) -> None:
    collator = Collator(run.codec, run.text)
    for there in encoded:
        asked = collator.blank(there.source, 12.0, "a blob")
        one, other = (collator.pack([item], [DENSE]) for item in (there, asked))
        for name in ("valid", "positions", "place", "segment", "fps"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert not other.latent.any()
        assert other.latent.shape == one.latent.shape
        assert other.caption_lengths == [len("a blob")]


def test_a_pack_over_its_budget_is_refused(run: RunConfig, encoded: list[PackItem]) -> None:
    pack = Collator(run.codec, run.text).pack(encoded, [True] * 6)
    with pytest.raises(ValueError, match=r"data.pack_tokens=16: holds \d+ tokens. Raise"):
        pad_pack(pack, 16)


def test_frames_are_encoded_and_captions_are_read_as_text(
    run: RunConfig, stored: list[Sample]
) -> None:
    collator = Collator(run.codec, run.text)
    info = stored[0].info
    shape = (info.num_frames, info.height, info.width, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8)
    made = collator.encode(Sample(info, 0, frames, None, None, "pyav"))
    assert torch.equal(made.tokens, patchify(collator.codec.encode(frames)))
    assert len(made.caption) == min(len(info.caption), run.text.max_tokens)
    assert collator.caption(info.caption) is made.caption  # encoded once


def test_a_sample_gets_the_caption_that_was_drawn_for_it(
    run: RunConfig, stored: list[Sample], encoded: list[PackItem]
) -> None:
    collator = Collator(run.codec, run.text)
    info = replace(stored[0].info, short_caption="a blob")
    shape = (info.num_frames, info.height, info.width, 3)
    frames = torch.zeros(shape, dtype=torch.uint8)
    both = collator.encode(Sample(info, 0, frames, None, None, "pyav"))
    lengths = collator.pack([both] * 3, [DENSE, SHORT, DROPPED]).caption_lengths
    assert lengths == [min(len(info.caption), run.text.max_tokens), len("a blob"), 0]
    alone = encoded[0]  # has no short caption, so the dense one stands in
    assert torch.equal(alone.short_caption, alone.caption)


def test_the_share_of_dense_captions_is_the_one_asked_for(run: RunConfig) -> None:
    asked = replace(run, objective=ObjectiveConfig(caption_dropout=0.2, dense_captions=0.75))
    uses = [caption_use(asked, f"clip-{i}", i % 3) for i in range(4000)]
    shares = {use: uses.count(use) / len(uses) for use in CaptionUse}
    # Four standard errors of a share over 4,000 draws are .03.
    assert shares[CaptionUse.dropped] == pytest.approx(0.2, abs=0.03)
    assert shares[CaptionUse.dense] == pytest.approx(0.8 * 0.75, abs=0.03)
    assert uses == [caption_use(asked, f"clip-{i}", i % 3) for i in range(4000)]
