"""A list of checksums is what incoming files are held to."""

import io
import subprocess
import tarfile

import pytest
from rich.console import Console

from data.config import small_clips
from data.dataset.shards import read_index
from data.ingest.checksums import entry_of
from data.ingest.ingest import ingest
from tests.data.conftest import add, encode, paint, png


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "deep/c d.png", "lost.png")):
        (folder / name).write_bytes(png(paint(1, 48, 64, seed=9 * number)))
    (folder / "b.txt").write_text("words of b")
    with tarfile.open(folder / "t.tar", "w") as tar:
        add(tar, "e.png", png(paint(1, 48, 64, seed=77)))
    return folder


def run(folder, tmp_path, **values):
    return ingest(
        small_clips(input=str(folder), output=str(tmp_path / "out"), duplicate_bits=-1, **values),
        Console(file=io.StringIO()),
    )


def summed(folder, program, *options):
    names = ["./a.png", "b.png", "b.txt", "deep/c d.png", "lost.png", "t.tar"]
    made = subprocess.run([program, *options, *names], cwd=folder, capture_output=True, check=True)
    (folder / "SUMS").write_bytes(made.stdout)


def names_in(tmp_path):
    return sorted(info.source for info in read_index(tmp_path / "out", "train"))


@pytest.mark.parametrize(
    ("program", "options"), [("sha256sum", ()), ("md5sum", ("-b",)), ("sha1sum", ("--tag",))]
)
def test_files_that_differ_are_rejects_by_name_and_missing_ones_are_listed(
    folder, tmp_path, program, options
):
    summed(folder, program, *options)
    damaged = bytearray((folder / "a.png").read_bytes())
    damaged[-1] ^= 1  # behind all pixels: no decoder minds
    (folder / "a.png").write_bytes(damaged)
    (folder / "b.txt").write_text("other words")
    (folder / "lost.png").unlink()
    (folder / "new.png").write_bytes(png(paint(1, 48, 64, seed=50)))
    manifest = run(folder, tmp_path, checksums="SUMS")
    rejects = {entry["file"]: entry["reason"] for entry in manifest["rejects"]}
    assert sorted(rejects) == ["a.png", "b.txt", "lost.png"]
    assert f"its {program[:-3]} is" in rejects["a.png"]
    assert "SUMS and not in the input" in rejects["lost.png"]
    assert names_in(tmp_path) == ["b.png", "deep/c d.png", "new.png", "t.tar/e.png"]
    captions = {info.source: info.caption for info in read_index(tmp_path / "out", "train")}
    assert "words" not in captions["b.png"]
    assert [w for w in manifest["warnings"] if "new.png" in w and "1 file" in w]


def test_a_tar_that_differs_gives_no_sample(folder, tmp_path):
    summed(folder, "sha256sum")
    with open(folder / "t.tar", "r+b") as stream:
        stream.seek(600)
        stream.write(b"x")
    manifest = run(folder, tmp_path, checksums=str(folder / "SUMS"))
    assert [entry["file"] for entry in manifest["rejects"]] == ["t.tar"]
    assert "t.tar/e.png" not in names_in(tmp_path)


def test_all_that_agree_are_kept_and_films_are_read_once_they_do(folder, tmp_path):
    (folder / "f.mp4").write_bytes(encode(paint(9, 32, 48)))
    digest = subprocess.run(["sha256sum", "f.mp4"], cwd=folder, capture_output=True, check=True)
    (folder / "SUMS").write_bytes(digest.stdout)
    manifest = run(folder, tmp_path, checksums="SUMS")
    assert not manifest["rejects"]
    assert "f.mp4" in names_in(tmp_path)
    assert "SUMS" not in names_in(tmp_path)


@pytest.mark.parametrize("text", ["not a sum", "abc  a.png", "f" * 63 + "  a.png"])
def test_a_list_that_is_none_is_an_error_with_its_line(folder, tmp_path, text):
    (folder / "SUMS").write_text(text + "\n")
    with pytest.raises(ValueError, match="checksums=SUMS: line 1 says no checksum"):
        run(folder, tmp_path, checksums="SUMS")
    with pytest.raises(ValueError, match="checksums=nowhere: is no file"):
        run(folder, tmp_path, checksums="nowhere")


def test_names_are_read_as_the_tools_write_them():
    digest = "0" * 32
    assert entry_of(f"{digest}  a b.png") == ("a b.png", digest)
    assert entry_of(f"{digest} *a.png") == ("a.png", digest)
    assert entry_of(f"\\{digest}  a\\nb\\\\c") == ("a\nb\\c", digest)
    assert entry_of(f"MD5 (a (1).png) = {digest}") == ("a (1).png", digest)
