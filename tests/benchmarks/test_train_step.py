"""The benchmark's programs compute what ours computes, and run."""

import sys

import pytest
import torch

from benchmarks import packs, rivals, train_step
from benchmarks.plain_dit import PlainDiT
from models.config import ModelConfig

TINY = ModelConfig(width=32, depth=2, text_width=16)
CLIPS = [((1, 4, 4), 5), ((1, 4, 4), 0), ((2, 3, 4), 8), ((3, 4, 3), 3)]


def test_the_plain_model_has_our_loss_and_gradients() -> None:
    model, sample = packs.build_model(TINY), packs.build_sample(TINY, CLIPS)
    plain = PlainDiT(TINY)
    plain.load_state_dict(model.state_dict())
    losses = packs.our_loss(model, sample), rivals.plain_loss(plain, sample)
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
    for loss in losses:
        loss.backward()
    expected = dict(model.named_parameters())
    assert set(expected) == {name for name, _ in plain.named_parameters()}
    for name, parameter in plain.named_parameters():
        assert parameter.grad is not None
        scale = float(expected[name].grad.abs().max())
        difference = float((parameter.grad - expected[name].grad).abs().max())
        assert difference <= 1e-5 * scale, name


def test_the_mixture_fills_its_pack_with_videos_and_images() -> None:
    clips = [clip for seed in range(20) for clip in packs.mixture(1536, seed)]
    sizes = [f * h * w for (f, h, w), _ in clips]
    videos = sum(f > 1 for (f, _, _), _ in clips) / len(clips)
    assert min(sizes) >= packs.SMALLEST
    assert max(sizes) <= packs.LARGEST
    assert sum(sizes) > 0.93 * 20 * 1536
    assert 0.4 < videos < 0.7


@pytest.mark.parametrize("lengths", [[5], [5, 5, 5], [1, 1, 9, 9, 9]])
def test_short_and_long_clips_are_each_in_one_batch(lengths: list[int]) -> None:
    parts = rivals.short_and_long(lengths)
    assert [i for part in parts for i in part] == list(range(len(lengths)))
    assert all(len({lengths[i] for i in part}) == 1 for part in parts)


def test_every_comparison_runs(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    bench = train_step.Bench(2, train_step.time.process_time)
    samples = [packs.build_sample(TINY, CLIPS)]
    monkeypatch.setattr(train_step, "MATMUL", 64)
    monkeypatch.setitem(sys.modules, "diffusers", None)  # an optional package
    monkeypatch.setattr(train_step, "WIDE", TINY)
    train_step.compare_shape(bench, "tiny", TINY, samples)
    train_step.shares(bench, {"tiny": samples}, [1])
    assert len(bench.rows) == 4
    assert all(row.ratio > 0 for row in bench.rows)


def test_diffusers_gets_the_same_tokens() -> None:
    pytest.importorskip("diffusers")
    sample = packs.build_sample(TINY, CLIPS)
    latents, noise, t, captions = rivals.wan_batch(sample, [0, 1])
    assert latents.shape == noise.shape == (2, 6, 1, 8, 8)
    assert latents.sum().item() == pytest.approx(sample.pack.latent[:32].sum().item(), abs=1e-3)
    assert t.shape == (2,)
    assert captions.shape == (2, 5, 16)
