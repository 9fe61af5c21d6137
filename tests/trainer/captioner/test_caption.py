"""A captioner from training to a captioned data set: it learns, resumes, says how sure it is."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.captioner import BenchConfig, measure
from data.dataset.shards import ShardWriter, read_index, read_manifest, read_truth, write_manifest
from data.loading.loader import load_fixed
from data.media.h264 import encode_h264, encode_png
from models.captioner.views import fit_view
from models.captioner.vocabulary import Special
from models.captioner.words import write_captions
from tests.data.conftest import meta
from trainer.captioner.caption import main
from trainer.captioner.config import compose_captioner, load_captioner_run
from trainer.captioner.train import mirror_words, train_captioner
from trainer.captioner.weights import load_captioner
from trainer.config import RunKind
from trainer.kinds import KINDS, freeze_any
from trainer.run.metrics import read_metrics
from trainer.train import main as train_main

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220)}
TINY = [
    "captioner={width: 32, head_dim: 16, encoder_depth: 1, decoder_depth: 1, stem_width: 8, "
    "max_caption_tokens: 16}",
    "data.pack_tokens=96",
    "data.max_segments=16",
    "optim.lr=6e-3",
    "optim.ema_sigma=0.1",
    "words.min_count=1",
    "validation_samples=24",
    "log_every=5",
]
STEPS = 30


def coloured_image(seed: int) -> tuple[np.ndarray, str, str]:
    """Draw a square of a colour on one side over noise, with its two captions."""
    draw = np.random.default_rng(seed)
    colour, side = str(draw.choice(list(COLOURS))), str(draw.choice(["left", "right"]))
    pixels = draw.integers(100, 120, (32, 48, 3))
    x = 4 if side == "left" else 30
    pixels[10:22, x : x + 12] = COLOURS[colour]
    return pixels.astype(np.uint8), f"A {colour} square on the {side}.", f"a {colour} square"


def truth_of(caption: str) -> dict[str, Any]:
    """Return what a world would know of a square."""
    colour, side = caption.split()[1], caption.rstrip(".").split()[-1]
    name = f"{colour} square"
    attributes = {"objects": [name], "named": [name], "places": [f"on the {side}"]}
    track = {"kind": "square", "colour": colour, "size": ""}
    return {"world": "squares", "objects": [track], "attributes": attributes}


def write_squares(root: Path, sizes: dict[str, int]) -> Path:
    """Write splits of coloured squares, and one of short clips with them over strong stripes."""
    for number, (split, count) in enumerate(sizes.items()):
        with ShardWriter(root, split, 10**6) as writer:
            for i in range(count):
                pixels, dense, short = coloured_image(1000 * number + i)
                words = {"caption": dense, "short_caption": short, "source": f"{split}-{i}"}
                words |= {"scores": {"motion": 1.0}}
                truth = truth_of(dense)
                key = f"{split}-{i:03d}"
                if split == "val_clips":
                    frames = np.stack([pixels // 2 + (np.arange(48) % 3 * 60)[:, None]] * 5)
                    payload = encode_h264(frames.astype(np.uint8), 8.0)
                    writer.write(meta(key, "video", (5, 32, 48), **words), payload, "mp4", truth)
                else:
                    made = meta(key, "image", (1, 32, 48), fps=0.0, **words)
                    writer.write(made, encode_png(pixels), "png", truth)
    write_manifest(root, {"name": "squares"})
    return root


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tiny data set."""
    sizes = {"train": 160, "val_worlds": 24, "val_clips": 4}
    return write_squares(tmp_path_factory.mktemp("squares"), sizes)


def frozen(root: Path, folder: Path, *more: str) -> Path:
    fixed = [f"data.root={root}", f"run_root={folder}", f"steps={STEPS}", *TINY]
    return freeze_any(compose_captioner([*fixed, *more]))


@pytest.fixture(scope="module")
def trained(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run folder of a captioner trained for a few seconds."""
    folder = frozen(squares, tmp_path_factory.mktemp("runs"), "short_share=0.3")
    assert train_captioner(load_captioner_run(folder), folder, lambda: False) is not None
    return folder


@pytest.mark.heavy
def test_training_learns_and_says_how_sure_it_is(trained: Path) -> None:
    result = json.loads((trained / "result.json").read_text())
    records = read_metrics(trained / "metrics.jsonl")
    assert records[-1]["nats_a_word"] < 0.5 * records[0]["nats_a_word"]
    assert (result["steps"], result["loss"]) == (STEPS, result["heldout_nats_a_word"])
    assert set(KINDS[RunKind.captioner].columns) <= set(result)
    assert result["doubtful_logprob"] <= result["caption_logprob"] <= 0
    about = load_captioner(trained / "weights").about
    assert about["doubtful_logprob"] == result["doubtful_logprob"]
    assert about["clips"] == 160


@pytest.mark.heavy
def test_unseen_clips_are_captioned_better_than_by_the_commonest_caption(
    squares: Path, trained: Path
) -> None:
    captioner = load_captioner(trained / "weights")
    samples = load_fixed(compose_captioner([f"data.root={squares}"]).data, "val_worlds", 0)
    views = [fit_view(s.frames, s.info.fps, captioner.model.config) for s in samples]
    with torch.no_grad():
        memory = captioner.model.remember(views)
    written = write_captions(captioner.model, memory, [Special.dense] * len(views))
    said = [captioner.vocabulary.decode(w.words) for w in written]
    truth = [s.info.caption for s in samples]
    texts = [i.caption for i in read_index(squares, "train")]
    majority = max(set(texts), key=texts.count)
    right = sum(a == b for a, b in zip(said, truth, strict=True))
    assert right > truth.count(majority), (right, truth.count(majority))


@pytest.mark.heavy
def test_the_benchmark_sets_it_apart_from_the_majority(squares: Path, trained: Path) -> None:
    config = BenchConfig(root=str(squares), weights=str(trained / "weights"))
    lines, result = measure(config)
    assert lines[0] == "24 clips of 24 sources of val_worlds, 0 of them in train."
    assert any("the intervals are disjoint" in line for line in lines), "\n".join(lines)
    wanted = sum(sum(t["wanted"].values()) for t in result["tallies"]["captioner"])
    assert wanted == 24 * 4  # object, kind, colour and place
    assert len(result["captions"]) == 24


@pytest.mark.heavy
def test_a_stopped_training_resumes_bit_by_bit(
    squares: Path, trained: Path, tmp_path: Path
) -> None:
    folder = frozen(squares, tmp_path, "short_share=0.3")
    polls = iter([False] * 3 + [True] + [False] * 99)
    assert train_captioner(load_captioner_run(folder), folder, lambda: next(polls)) is None
    assert train_captioner(load_captioner_run(folder), folder, lambda: False) is not None
    one, two = (load_captioner(path / "weights") for path in (trained, folder))
    assert one.sha256 == two.sha256


def caption(root: Path, out: Path, trained: Path, *more: str) -> int:
    return main([f"root={root}", f"out={out}", f"weights={trained / 'weights'}", *more])


@pytest.fixture(scope="module")
def captioned(squares: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the captioned data set."""
    out = tmp_path_factory.mktemp("captioned")
    assert caption(squares, out, trained, "existing=drop") == 0
    return out


@pytest.mark.heavy
def test_a_data_set_gets_both_captions_with_their_confidence(
    squares: Path, trained: Path, captioned: Path
) -> None:
    known = {t for i in read_index(squares, "train") for t in (i.caption, i.short_caption)}
    for split in ("train", "val_worlds", "val_clips"):
        before, after = read_index(squares, split), read_index(captioned, split)
        assert [i.sha256 for i in after] == [i.sha256 for i in before]
        for old, new in zip(before, after, strict=True):
            assert set(new.scores) == {"motion", "caption_logprob"}
            assert new.scores["caption_logprob"] <= 0
            assert read_truth(captioned, split, new) == read_truth(squares, split, old)
    sure = read_index(captioned, "val_worlds")
    assert sum(i.caption in known and i.short_caption in known for i in sure) > 20
    about = read_manifest(captioned)["recaptioned"]
    assert about["kind"] == "weights"
    assert about["weights_sha256"] == load_captioner(trained / "weights").sha256
    assert not about["failed"]
    low, count = about["doubtful"]["captions"]["val_worlds"]
    assert low <= 2
    assert count == 24


@pytest.mark.heavy
def test_captioning_goes_on_where_it_was_stopped(
    squares: Path, trained: Path, captioned: Path, tmp_path: Path
) -> None:
    lines = (captioned / "captions.jsonl").read_text().splitlines()
    half = [json.loads(line) for line in lines[: len(lines) // 2]]
    half[0]["caption"] = "A mark that shows that this line was kept."
    kept = "".join(json.dumps(line) + "\n" for line in half)
    (tmp_path / "captions.jsonl").write_text(kept)
    assert caption(squares, tmp_path, trained, "existing=drop") == 0
    assert len((tmp_path / "captions.jsonl").read_text().splitlines()) == len(lines)
    found = {i.key: i.caption for i in read_index(tmp_path, half[0]["split"])}
    assert found[half[0]["key"]] == half[0]["caption"]
    expected = read_index(captioned, "train")
    for new, old in zip(read_index(tmp_path, "train"), expected, strict=True):
        assert new.key == half[0]["key"] or new.caption == old.caption


@pytest.mark.heavy
def test_tasks_share_captions_in_journals_of_their_own(
    squares: Path, trained: Path, captioned: Path, tmp_path: Path, capsys
) -> None:
    for share in ("1/2", "0/2"):
        assert caption(squares, tmp_path, trained, "existing=drop", f"share={share}") == 0
        assert f"share {share} is there" in capsys.readouterr().out
    assert not (tmp_path / "manifest.json").exists()
    sizes = {p.name: len(p.read_text().splitlines()) for p in tmp_path.glob("captions-*.jsonl")}
    assert sizes == {"captions-0-of-2.jsonl": 100, "captions-1-of-2.jsonl": 88}
    assert caption(squares, tmp_path, trained, "existing=drop") == 0
    assert (tmp_path / "captions.jsonl").read_text() == ""  # nothing was left to caption
    for split in ("train", "val_worlds", "val_clips"):
        one, other = (read_index(root, split) for root in (captioned, tmp_path))
        assert [i.caption for i in one] == [i.caption for i in other]
    command = ["endpoint=http://127.0.0.1:9", "model=m", "max_cost=1", "share=0/2"]
    assert main([f"root={squares}", f"out={tmp_path}", *command]) == 2
    assert "max_cost=1: is counted by one process" in capsys.readouterr().err


@pytest.mark.heavy
def test_drawn_captions_are_the_same_every_time_and_not_the_greedy_ones(
    squares: Path, trained: Path, captioned: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    shutil.copytree(squares / "val_worlds", small / "val_worlds")
    write_manifest(small, {})
    drawn = []
    for name, batch in (("a", 16), ("b", 5)):
        more = ["temperature=2.0", "top_p=1.0", f"batch={batch}", "existing=drop"]
        assert caption(small, tmp_path / name, trained, *more) == 0
        drawn.append([i.caption for i in read_index(tmp_path / name, "val_worlds")])
    assert drawn[0] == drawn[1]
    assert drawn[0] != [i.caption for i in read_index(captioned, "val_worlds")]


@pytest.mark.heavy
def test_damaged_and_foreign_weights_are_refused(
    squares: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained / "weights", run / "weights")
    payload = bytearray((run / "weights" / "model.safetensors").read_bytes())
    payload[-1] ^= 1
    (run / "weights" / "model.safetensors").write_bytes(payload)
    assert caption(squares, tmp_path / "out", run) == 2
    assert "checksum differs" in capsys.readouterr().err
    (run / "weights" / "captioner.json").unlink()
    assert caption(squares, tmp_path / "out", run) == 2
    assert "has no captioner.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["steps=0"], "steps=0: must be at least 1"),
        (["captioner.width=33"], "captioner.head_dim=32: must divide"),
        (["captioner.colour=3"], "captioner.colour: unknown key"),
        (["data.root=nowhere"], "nowhere"),
        (["captioner.feature_channels=6"], "captioner.feature_channels=6: this command"),
    ],
)
def test_bad_training_settings_are_named(
    overrides: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert train_main(["kind=captioner", f"run_root={tmp_path}", *overrides]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.heavy
@pytest.mark.usefixtures("handlers")
def test_the_command_of_all_runs_trains_a_frozen_captioner(
    squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = frozen(squares, tmp_path, "steps=1")
    assert train_main(["--run", str(folder)]) == 0
    assert f"weights: {folder / 'weights'}, sha256" in capsys.readouterr().out
    assert load_captioner(folder / "weights")


def test_mirroring_swaps_left_and_right_only() -> None:
    text = "It turns left, a lefty on the right; upright."
    assert mirror_words(text) == "It turns right, a lefty on the left; upright."
    assert mirror_words(mirror_words(text)) == text
