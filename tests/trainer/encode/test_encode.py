"""Latents computed once: equal to the codec's, kept while they are fresh, made anew when stale."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data.config import Engine
from data.dataset.shards import ShardWriter, read_index, write_manifest
from data.loading.loader import SampleReader
from data.media.h264 import encode_h264, encode_png
from models.codec.wavelet import WaveletCodec
from tests.data.engine.test_engines import needs_ray, start_cluster
from trainer.config import RunConfig, compose_run
from trainer.encode import batches
from trainer.encode.encode import encode_dataset, main
from trainer.encode.job import EncodeJob

TEXT = ["text.kind=bytes", "text.width=32", "model.text_width=32"]


def write_clips(root: Path) -> Path:
    """Write two splits of real H.264 clips and a PNG."""
    draw = np.random.default_rng(0)
    for split, sizes in (
        ("train", [(5, 48, 32), (9, 34, 64), (1, 32, 48)]),
        ("val", [(5, 32, 32)]),
    ):
        with ShardWriter(root, split, 10**6) as writer:
            for i, (frames, height, width) in enumerate(sizes):
                ramp = np.linspace(0, 200, width)[None, None, :, None]
                clip = ramp + 5 * np.arange(frames)[:, None, None, None] + draw.integers(0, 20, 3)
                pixels = np.broadcast_to(clip, (frames, height, width, 3)).astype(np.uint8)
                still = frames == 1
                meta = {
                    "key": f"{split}-{i}",
                    "media": "image" if still else "video",
                    "num_frames": frames,
                    "height": height,
                    "width": width,
                    "fps": 0.0 if still else 12.0,
                    "duration_seconds": 0.0 if still else frames / 12,
                    "caption": ["a ramp", "", "a long ramp"][i],
                    "source": f"ramp-{i}",
                    "licence": "CC0",
                    "rendered": True,
                    "original": {},
                }
                payload = encode_png(pixels[0]) if still else encode_h264(pixels, 12.0)
                writer.write(meta, payload, "png" if still else "mp4")
    write_manifest(root, {"name": "ramps"})
    return root


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 64 KiB, which a test can fill and enlarge."""
    folder = tmp_path / "small ü"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tiny clip data set."""
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def run(clips: Path) -> RunConfig:
    """Return a run on the clips."""
    return compose_run([f"data.root={clips}", "horizon.steps=1", *TEXT])


@pytest.fixture(scope="module")
def encoded(run: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the latents."""
    out = tmp_path_factory.mktemp("encoded") / "latents"
    encode_dataset(run, out)
    return out


def read(run: RunConfig, root: Path, split: str) -> list:
    infos = read_index(root, split)
    reader = SampleReader(replace(run.data, root=str(root)), split, infos)
    try:
        return reader.read([(info, 0) for info in infos])
    finally:
        reader.close()


@pytest.mark.heavy
@pytest.mark.parametrize("split", ["train", "val"])
def test_latents_are_the_codecs(run: RunConfig, clips: Path, encoded: Path, split: str) -> None:
    codec = WaveletCodec(run.codec)
    for clip, latent in zip(read(run, clips, split), read(run, encoded, split), strict=True):
        assert torch.equal(latent.latent, codec.encode(clip.frames).half())
        assert latent.info.caption_tokens == len(latent.caption_states)
        assert len(latent.caption_states) == len(clip.info.caption.encode())
        kept = ("key", "num_frames", "height", "width", "fps", "caption", "source", "rendered")
        assert all(getattr(clip.info, n) == getattr(latent.info, n) for n in kept)


def test_statistics_are_those_of_the_valid_training_values(run: RunConfig, encoded: Path) -> None:
    codec, values = WaveletCodec(run.codec), []
    for sample in read(run, encoded, "train"):
        mask = codec.valid(sample.info.num_frames, sample.info.height, sample.info.width)
        values.append([sample.latent[c][mask[c]].double() for c in range(6)])
    statistics = json.loads((encoded / "manifest.json").read_text())["latent_statistics"]
    for c in range(6):
        channel = torch.cat([sample[c] for sample in values])
        assert statistics["mean"][c] == pytest.approx(channel.mean().item(), abs=1e-3)
        assert statistics["std"][c] == pytest.approx(channel.std(correction=0).item(), abs=1e-3)


def state(folder: Path) -> dict[str, tuple[int, int]]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in files}


@pytest.mark.heavy
def test_a_fresh_result_is_kept_and_a_stale_one_is_made_anew(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "latents"
    arguments = [f"data.root={clips}", f"out={out}", *TEXT]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "latent mean per channel" in printed
    assert printed.endswith(f"latents: {out} (train 3 samples, val 1 sample)\n")
    first = state(out)
    assert main(arguments) == 0
    assert state(out) == first
    old = set(parts_of(out))
    assert main([*arguments, "codec.mean=[0.5,0,0,0,0,0]"]) == 0
    assert len(old) == len(parts_of(out)) == 4
    assert not old & set(parts_of(out))
    moved = "codec.mean=[0.5,0,0,0,0,0]"
    changed = compose_run([f"data.root={clips}", "horizon.steps=1", *TEXT, moved])
    sample = read(changed, out, "val")[0]
    frames = read(changed, clips, "val")[0].frames
    assert torch.equal(sample.latent, WaveletCodec(changed.codec).encode(frames).half())


@pytest.mark.heavy
def test_an_interrupted_encoding_goes_on_where_it_was(
    clips: Path, run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(batches, "BATCH", 1)
    whole, out, seen = tmp_path / "whole", tmp_path / "latents", []
    encode_dataset(run, whole)
    real = WaveletCodec.encode

    def fail_at_the_third(self: WaveletCodec, frames: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(frames.shape))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(self, frames)

    monkeypatch.setattr(WaveletCodec, "encode", fail_at_the_third)
    command = [f"data.root={clips}", f"out={out}", *TEXT]
    assert main(command) == 130
    assert "interrupted: what is encoded is kept" in capsys.readouterr().err
    assert not (out / "manifest.json").exists()
    assert main(command) == 0
    assert "of 4 samples are there already" in capsys.readouterr().out
    # Four clips, and at most the two under way when it was interrupted once more.
    assert 5 <= len(seen) <= 6
    assert contents(out) == contents(whole)


@pytest.mark.heavy
def test_tasks_share_an_encoding_and_one_puts_it_together(
    clips: Path, run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(batches, "BATCH", 1)
    whole, out = tmp_path / "whole", tmp_path / "latents"
    encode_dataset(run, whole)
    command = [f"data.root={clips}", f"out={out}", *TEXT]
    for share in ("2/3", "0/3", "1/3"):
        assert main([*command, f"share={share}"]) == 0
        assert f"share {share} is there" in capsys.readouterr().out
        assert not (out / "manifest.json").exists()
    with monkeypatch.context() as patched:
        patched.setattr(WaveletCodec, "encode", lambda self, frames: 1 / 0)
        assert main(command) == 0  # nothing is left to encode
    assert contents(out) == contents(whole)
    for bad in ("3/3", "1", "a/b", "-1/2", "0/0"):
        assert main([*command, f"share={bad}"]) == 2
        assert f"share={bad}: must be I/N" in capsys.readouterr().err


def parts_of(out: Path) -> dict[Path, int]:
    """Return the shards and pieces with the times when they were written."""
    found = [*out.glob("*/*.tar"), *out.glob("*/part-*.jsonl")]
    return {path: path.stat().st_mtime_ns for path in sorted(found)}


@pytest.mark.heavy
def test_a_part_that_lost_or_changed_bytes_is_encoded_again(
    clips: Path, run: RunConfig, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "latents"
    encode_dataset(run, whole)
    for share in range(2):
        encode_dataset(run, out, (share, 2))
    short, other = sorted(out.glob("*/*.tar"))
    os.truncate(short, short.stat().st_size - 9)
    other.write_bytes(other.read_bytes()[:-1] + b"?")
    encode_dataset(run, out)
    assert contents(out) == contents(whole)
    assert not (out / ".parts").exists()
    short.unlink()
    encode_dataset(run, out)  # finished, as its manifest says, and mended all the same
    assert contents(out) == contents(whole)


@pytest.mark.heavy
def test_tasks_with_other_settings_leave_each_others_parts_alone(
    run: RunConfig, tmp_path: Path
) -> None:
    out = tmp_path / "latents"
    moved = replace(run, codec=replace(run.codec, mean=(0.5, 0, 0, 0, 0, 0)))
    encode_dataset(moved, out, (0, 2))
    theirs = parts_of(out)
    assert len(theirs) == 2
    encode_dataset(run, out, (0, 2))
    encode_dataset(run, out)
    assert {path: parts_of(out)[path] for path in theirs} == theirs
    assert len(parts_of(out)) == 6
    encode_dataset(moved, out)
    assert {path: parts_of(out)[path] for path in theirs} == theirs
    assert len(parts_of(out)) == 4  # what the manifest before named is gone


@pytest.mark.heavy
def test_clips_that_are_added_are_encoded_alone(
    clips: Path, run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = tmp_path / "clips", tmp_path / "latents"
    shutil.copytree(clips, root)
    (root / "val").rename(tmp_path / "later")
    write_manifest(root, {})
    run = replace(run, data=replace(run.data, root=str(root)))
    encode_dataset(run, out)
    before, seen, real = parts_of(out), [], WaveletCodec.encode
    (tmp_path / "later").rename(root / "val")
    write_manifest(root, {})
    monkeypatch.setattr(
        WaveletCodec, "encode", lambda self, frames: (seen.append(1), real(self, frames))[1]
    )
    encode_dataset(run, out)
    assert len(seen) == 1
    assert {path: parts_of(out)[path] for path in before} == before
    assert [len(read_index(out, split)) for split in ("train", "val")] == [3, 1]


@needs_ray
@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_ray_gives_the_same_latents_bit_for_bit(
    clips: Path, run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    encode_dataset(run, tmp_path / "whole", job=EncodeJob(num_workers=1))
    start_cluster()
    try:
        encode_dataset(run, tmp_path / "latents", job=EncodeJob(engine=Engine.ray))
    finally:
        ray.shutdown()
    assert contents(tmp_path / "latents") == contents(tmp_path / "whole")


@pytest.mark.heavy
def test_captions_and_scores_of_a_table_are_joined_by_key(
    clips: Path, run: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, out = tmp_path / "said.csv", tmp_path / "latents"
    table.write_text("key,caption,aesthetic\ntrain-1,now with words,5.5\nelsewhere,x,1\n")
    assert main([f"data.root={clips}", f"out={out}", f"captions={table}", *TEXT]) == 0
    joined, (first, _, last) = (
        {i.key: i for i in read_index(out, "train")}["train-1"],
        read_index(out, "train"),
    )
    assert (joined.caption, joined.scores["aesthetic"]) == ("now with words", 5.5)
    assert joined.caption_tokens == len("now with words")
    assert (first.caption, last.caption) == ("a ramp", "a long ramp")
    told = json.loads((out / "manifest.json").read_text())["captions"]
    assert (told["joined"], told["without"], told["of no sample"]) == (1, 3, 1)
    before = parts_of(out)
    table.write_text("key,caption,aesthetic\ntrain-1,now with words,7\n")
    encode_dataset(run, out, job=EncodeJob(captions=str(table)))
    assert parts_of(out) == before  # another score is no other latent
    assert {i.key: i for i in read_index(out, "train")}["train-1"].scores["aesthetic"] == 7
    table.write_text("key,caption\nelsewhere,x\n")
    assert main([f"data.root={clips}", f"out={out}", f"captions={table}", *TEXT]) == 2
    assert "none of its 1 rows has the key of a sample" in capsys.readouterr().err


@pytest.mark.heavy
def test_captions_that_the_encoder_cuts_are_counted_and_said(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "latents"
    words = [f"data.root={clips}", f"out={out}", *TEXT]
    assert main([*words, "text.max_tokens=6"]) == 0
    assert (
        "captions: of 1 of 3 only the first text.max_tokens=6 tokens were kept"
        in capsys.readouterr().out
    )
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["captions_encoded"] == {"written": 3, "cut": 1}
    assert main(words) == 0
    assert "captions:" not in capsys.readouterr().out


def test_what_was_encoded_stays_until_the_new_is_whole(
    run: RunConfig, encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "latents"
    shutil.copytree(encoded, out)
    before = contents(out)
    moved = replace(run, codec=replace(run.codec, mean=(0.5, 0, 0, 0, 0, 0)))
    with monkeypatch.context() as patched:
        patched.setattr(WaveletCodec, "encode", lambda self, frames: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            encode_dataset(moved, out)
    assert contents(out) == before
    encode_dataset(run, out)  # fresh: nothing to do
    assert contents(out) == before


def test_a_folder_of_other_files_is_not_replaced(
    run: RunConfig, clips: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(ValueError, match="holds files that are no encoded data set"):
        encode_dataset(run, tmp_path)
    with pytest.raises(ValueError, match="holds files that are no encoded data set"):
        encode_dataset(run, clips)
    assert (tmp_path / "thesis.txt").read_text() == "years"


def test_latents_are_not_encoded_again(run: RunConfig, encoded: Path, tmp_path: Path) -> None:
    again = replace(run, data=replace(run.data, root=str(encoded)))
    with pytest.raises(ValueError, match="holds latents but must hold clips"):
        encode_dataset(again, tmp_path / "x")


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of a data set's files."""
    files = [p for p in folder.rglob("*") if p.is_file() and ".parts" not in p.parts]
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(files)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.root=nowhere"], "out=[]: must be given once. Add out=FOLDER."),
        (["out=x", "engine=slurm"], "engine=slurm: is a queue, which is told of jobs."),
        (["data.root=nowhere", "out=x"], "nowhere"),
        (["out=x", "data.rot=y"], "data.rot: unknown key. Did you mean root? Allowed:"),
    ],
)
def test_bad_input_is_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.heavy
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    clips: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = small_disk / "latents"
    words = [f"data.root={clips}", f"out={out}", *TEXT]
    (small_disk / "filler").write_bytes(bytes(52 * 1024))
    assert main(words) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert said[0].endswith("the disk is full. Free some space, then run the same command again.")
    assert not (out / "manifest.json").exists()
    assert not list(out.glob("*/index.jsonl"))
    (small_disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert main(words) == 0
    assert len(read_index(out, "train")) == 3
