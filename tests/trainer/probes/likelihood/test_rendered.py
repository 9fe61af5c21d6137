"""Crossed pairs of the 3-D worlds: exact as latents, and asked of a run beside its controls."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save

from data.dataset.shards import ShardWriter, write_manifest
from data.worlds.hidden import NUM_FRAMES, SPLICE, HiddenPair
from models.dit.embed import patchify
from models.objective import build_objective
from trainer.codec.build import load_codec
from trainer.config import CaptionUse, RunConfig
from trainer.diffusion.collate import Collator
from trainer.probes.likelihood.closed_form import ExactDenoiser, Places
from trainer.probes.likelihood.measure import Look, measure_pairs
from trainer.probes.likelihood.pairs import NAMES, first_tokens, stacked
from trainer.probes.likelihood.probe import main
from trainer.probes.likelihood.rendered import crossed_pairs, encoded, trace, turned

from ...conftest import compose_smoke
from ...tiny_runs import train_tiny

LATENTS = 3  # that hold the frames before the splice, at a stride of 4


def noise_pairs(count: int) -> list[HiddenPair]:
    """Return pairs of noise that share the frame before the splice."""
    found = []
    for number in range(count):
        rng = np.random.default_rng(number)
        a, b = (rng.integers(0, 256, (NUM_FRAMES, 96, 128, 3), np.uint8) for _ in "ab")
        b[SPLICE - 1] = a[SPLICE - 1]
        found.append(HiddenPair(a, b))
    return found


def config(latents: Path) -> RunConfig:
    return compose_smoke(latents, "codec=wavelet", "horizon.steps=2")


@pytest.mark.parametrize("way", ["forwards", "backwards"])
def test_four_clips_are_made_of_the_halves_of_two_and_of_pixels_crossed_likewise(way: str) -> None:
    run = config(Path("none"))
    codec = load_codec(run.codec)
    filmed = noise_pairs(1) if way == "forwards" else turned(noise_pairs(1))
    (pair,) = crossed_pairs(run, codec, "rooms", "colour", filmed)
    tokens = {name: pair.clips[name].tokens for name in NAMES}
    first = first_tokens(pair.clips["aa"], LATENTS)
    assert torch.equal(tokens["ab"][:first], tokens["aa"][:first])
    assert torch.equal(tokens["ab"][first:], tokens["bb"][first:])
    assert torch.equal(tokens["ba"][first:], tokens["aa"][first:])
    # A wavelet of blocks has no memory: crossing pixels gives the same latents, in both ways.
    a, b = filmed[0].a, filmed[0].b
    mixed = encoded(codec, np.concatenate([a[:SPLICE], b[SPLICE:]]))
    assert torch.allclose(patchify(mixed), tokens["ab"], atol=1e-5)


class Remembers:
    """A codec of four frames a latent, whose latents keep a share of the one before."""

    def __init__(self, share: float) -> None:
        self.share = share

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        found = [frames[0].float()]
        for start in range(1, len(frames), 4):
            found.append(frames[start : start + 4].float().mean(0) + self.share * found[-1])
        return torch.stack(found, 1).permute(3, 1, 0, 2)


def test_the_trace_of_a_first_half_is_zero_without_memory_and_grows_with_it() -> None:
    filmed = noise_pairs(2)
    found = [trace(cast(Any, Remembers(share)), filmed, 4) for share in (0.0, 0.3, 0.9)]
    assert found[0] == 0.0
    assert 0.05 < found[1] < found[2] < 1.0


@pytest.mark.parametrize("frames", [0, LATENTS])
def test_who_knows_the_scenes_finds_crossed_ones_less_likely(frames: int) -> None:
    run = config(Path("none"))
    collator = Collator(run.codec, run.text)
    pairs = crossed_pairs(run, collator.codec, "rooms", "colour", noise_pairs(2))
    clips = [pair.clips[name] for pair in pairs for name in ("aa", "bb")]
    valid = collator.pack(clips[:1], [CaptionUse.dropped]).valid
    places = Places.of(valid, first_tokens(clips[0], frames))
    knows = ExactDenoiser(places.values(stacked(clips)), np.full(4, 0.25), places)
    objective, look = build_objective(run.objective), Look(0, frames)
    errors = measure_pairs(knows, objective, collator, pairs, look)
    assert (errors.broken.sum(1) > 2 * errors.kept.sum(1)).all()
    # Who looks at each value alone has no margin, for all four have the same halves.
    alone = measure_pairs(lambda pack, x_t, t: 0.3 * x_t, objective, collator, pairs, look)
    assert np.allclose(alone.broken, alone.kept, rtol=1e-4)


def write_filmed(root: Path, run: RunConfig, source: str) -> None:
    codec = load_codec(run.codec)
    for split in ("train", "val_worlds"):
        with ShardWriter(root, split, 1_000_000) as writer:
            for number, pair in enumerate(noise_pairs(4)):
                meta = {"media": "latent", "num_frames": NUM_FRAMES, "height": 96, "width": 128,
                        "fps": 10.0, "duration_seconds": 1.7, "caption": "a clip",
                        "key": f"{split}-{number}", "source": f"{source}/{number}",
                        "licence": "CC0", "rendered": True, "original": {},
                        "caption_tokens": 1}  # fmt: skip
                latent = codec.encode(torch.from_numpy(pair.a)).half().contiguous()
                payload = save({"latent": latent, "caption": torch.zeros(1, 32).half()})
                writer.write(meta, payload, "safetensors")
    write_manifest(root, {"name": "filmed"})


@pytest.mark.heavy
def test_a_run_is_asked_about_physics_beside_an_untrained_network(
    group: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = compose_smoke(tmp_path / "data", "codec=wavelet", "horizon.steps=2",
                        "validation.splits=[val_worlds]")  # fmt: skip
    write_filmed(tmp_path / "data", run, "physics")
    folder = train_tiny(run, tmp_path / "run")
    words = [f"run={folder}", "worlds=[physics]", "properties=[colour]", "pairs=8"]
    assert main([*words, "looks=[joint]"]) == 0
    printed = capsys.readouterr().out
    (row,) = json.loads((folder / "probes.json").read_text())["properties"]
    margins = row["joint"]["margins"]
    assert set(margins) == {"run", "untrained", "reversed"}
    assert margins["run"]["value"] != margins["reversed"]["value"]
    above = row["joint"]["differences"]["above"]["value"]
    assert above == pytest.approx(margins["run"]["value"] - margins["untrained"]["value"])
    assert row["trace"] == pytest.approx(0, abs=1e-3)
    assert row["joint"]["verdict"] == "not reached"  # two steps teach nothing
    assert "run - untrained" in printed
    assert main([f"run={folder}", "worlds=[rooms]"]) == 2
    assert "worlds=rooms: the run" in capsys.readouterr().err
    assert main([*words[:2], "properties=[speed]", "pairs=8"]) == 2
    assert "properties=speed" in capsys.readouterr().err
    assert main([f"run={folder}"]) == 2  # without a name, tiny worlds are asked for
    assert "never saw a tiny world" in capsys.readouterr().err
