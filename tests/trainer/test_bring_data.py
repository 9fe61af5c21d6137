"""The commands of docs/data.md, as typed, take each layout of that page to a trained step."""

import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from data.config import IngestConfig
from data.dataset.shards import read_index, read_manifest
from data.derive import index
from data.ingest import ingest
from data.ingest.ingest import split_of
from tests.data.conftest import add, encode, paint, png
from trainer.config import compose_run
from trainer.diffusion.attempt import train_run
from trainer.encode import encode as encoding
from trainer.identity import freeze

from .conftest import read_json

ROOT = Path(__file__).parents[2]
QUICK = ["text.kind=bytes", "text.width=32", "model.text_width=32"]  # MiniLM takes seconds to load
PATIENT = ["num_workers=1", "timeout_seconds=900"]  # of a machine that others keep busy
CHOSEN = IngestConfig(split="by_source")
WORDS = " ".join(f"red ball number {number} rolls over a green floor," for number in range(40))


def typed(page: str, heading: str = "") -> dict[str, list[str]]:
    """Return the words after ``kinescale NAME`` of the first code block below a heading."""
    text = (ROOT / page).read_text(encoding="utf-8")
    block = re.search(r"```\n(.*?)```", text[text.index(heading) :], re.DOTALL)[1]
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    return {words[1]: words[2:] for words in lines if words[:1] == ["kinescale"]}


def here(words: list[str], folder: Path, out: Path) -> list[str]:
    """Put real folders in the place of those that a page names."""
    places = {"FOLDER": str(folder), "datasets/": f"{out}/"}
    pattern = re.compile(r"\bFOLDER\b|datasets/")
    return [pattern.sub(lambda found: places[found[0]], word) for word in words]


def film(num_frames: int, seed: int, side: int = 8) -> bytes:
    """Return a film of coloured blocks that drift; films of other seeds are no near-duplicates."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    frame = blocks.repeat(side, 0).repeat(side, 1)
    return encode(np.stack([np.roll(frame, 2 * i, 1) for i in range(num_frames)]))


def films(name: Callable[[int], str]) -> list[str]:
    """Return names of three films, of which ``split=by_source`` trains on the first two only."""
    names = [name(i) for i in range(200)]
    trained = [n for n in names if split_of(n, CHOSEN) == "train"]
    return [*trained[:2], next(n for n in names if split_of(n, CHOSEN) != "train")]


def write(folder: Path, names: list[str], **texts: str) -> None:
    """Write small films, and files beside them."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(film(9, seed))
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def rows(head: str, names: list[str], row: Callable[[str], str]) -> str:
    """Return a csv with a row for each film."""
    return "\n".join([head, *map(row, names)]) + "\n"


def sidecars(folder: Path) -> None:
    names = films("s{}.mp4".format)
    write(folder, names, **{n.replace(".mp4", ".txt"): f"{n} moves" for n in names})


def video_folder(folder: Path) -> None:
    names = films("v{}.mp4".format)
    write(folder, names, **{"metadata.csv": rows("file_name,text", names, "{0},{0} moves".format)})


def open_sora(folder: Path) -> None:
    names = films("o{}.mp4".format)
    row = "/elsewhere/{0},{0} moves,24".format
    write(folder, names, **{"meta.csv": rows("path,text,fps", names, row)})


def open_sora_plan(folder: Path) -> None:
    names = films("p{}.mp4".format)
    said = [{"path": name, "cap": [f"{name} moves"], "fps": 24.0} for name in names]
    write(folder, names, **{"anno.json": json.dumps(said)})


def diffsynth(folder: Path) -> None:
    names = films("train/d{}.mp4".format)
    write(folder, names, **{"metadata.csv": rows("video,prompt", names, "{0},{0} moves".format)})


def finetrainers(folder: Path) -> None:
    names = films("videos/f{}.mp4".format)
    prompts = "\n".join(f"{name} moves" for name in names)
    write(folder, names, **{"prompts.txt": prompts, "videos.txt": "\n".join(names)})


def cosmos(folder: Path) -> None:
    names = films("videos/c{}.mp4".format)
    write(folder, names, **{f"metas/{Path(n).stem}.txt": f"{n} moves" for n in names})


def panda(folder: Path) -> None:
    names = films("id{}.mp4".format)
    row = "{0},\"[['0:00:00.000', '0:00:00.375']]\",\"['{0}.mp4 moves']\"".format
    stems = [name.removesuffix(".mp4") for name in names]
    write(folder, names, **{"panda.csv": rows("videoID,timestamp,caption", stems, row)})


def shards(folder: Path) -> None:
    """Write what ``webdataset`` writes of others' clips: keys restart, lengths are any."""
    (folder / "train").mkdir(parents=True)
    trained, held = (
        [u for u in map("https://e/{}".format, range(200)) if (split_of(u, CHOSEN) == "train") is t]
        for t in (True, False)
    )
    for name, urls in (("00000", trained[:2]), ("00001", held[:1])):
        with tarfile.open(folder / "train" / f"{name}.tar", "w") as tar:
            for i in range(len(urls)):
                add(tar, f"{i:09d}.v1.mp4", film(12, i))
            for i, url in enumerate(urls):
                said = {"caption": [f"{i:09d}.v1.mp4 moves"], "url": url, "width": 1920}
                add(tar, f"{i:09d}.v1.json", json.dumps(said).encode())


LAYOUTS = [
    *(sidecars, video_folder, open_sora, open_sora_plan, diffsynth, finetrainers, cosmos, panda),
    shards,
]


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:FutureWarning")
@pytest.mark.filterwarnings("ignore:torch.jit.*:DeprecationWarning")
@pytest.mark.usefixtures("group")
def test_each_layout_goes_from_its_folder_to_a_trained_step_as_the_page_says(tmp_path: Path):
    """One run takes its step on all of them, a member each."""
    members = []
    for layout in LAYOUTS:
        folder, out = tmp_path / "in" / layout.__name__, tmp_path / layout.__name__
        layout(folder)
        said = typed("docs/data.md", "## Webdataset" if layout is shards else "")
        if layout is shards:
            assert index.main([*here(said["index"], folder, out), *PATIENT]) == 0
        else:
            assert ingest.main([*here(said["ingest"], folder, out), *PATIENT]) == 0
        mine = out / "mine"
        assert read_manifest(mine)["rejects"] == []
        infos = read_index(mine, "train")
        assert len(infos) == 2, layout.__name__
        assert all(info.caption.endswith(".mp4 moves") for info in infos)
        assert encoding.main([*here(said["encode"], folder, out), *QUICK]) == 0
        assert {info.num_frames for info in read_index(out / "mine_latents", "train")} == {9}
        members.append(f"{{root:{out / 'mine_latents'}}}")
    words = here(said["train"], folder, out)
    more = [f"data.mixture=[{','.join(members)}]", "data.packs_per_step=3", "horizon.steps=1"]
    words = [word for word in words if not word.startswith("horizon.")]
    run = compose_run([*words, *more, *QUICK, "log.wandb=disabled", "validation.samples=1"])
    freeze(run, tmp_path / "run")
    assert train_run(run, tmp_path / "run", lambda: False)
    result = read_json(tmp_path / "run" / "result.json")
    assert result["steps"] == 1
    met = result["accounting"]["members"]
    assert len(met) == len(LAYOUTS)
    assert all(member["samples"] > 0 for member in met.values())


@pytest.mark.heavy
def test_the_readme_trains_with_the_words_with_which_it_encodes():
    """A default of text or codec that differed would refuse the latents."""
    said = typed("README.md", "## Bring your data")
    assert list(said) == ["ingest", "encode", "train", "generate"]
    encoded = [word for word in said["encode"] if not word.startswith("out=")]
    made, read = compose_run(["horizon.steps=1", *encoded]), compose_run(said["train"])
    assert (made.text, made.codec) == (read.text, read.codec)
    assert said["train"][1] == f"data.root={said['encode'][1].removeprefix('out=')}"
    assert said["encode"][0] == f"data.root={said['ingest'][1].removeprefix('output=')}"
    page = typed("docs/data.md")
    assert [page[name] for name in said if name != "generate"] == [
        said[name] for name in said if name != "generate"
    ]


@pytest.mark.heavy
def test_the_readme_brings_data_as_typed_from_top_to_bottom(tmp_path: Path):
    """In a fresh folder, on films with captions longer than the encoder reads, and a picture."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```\n(.*?)```", text[text.index("## Bring your data") :], re.DOTALL)[1]
    folder = tmp_path / "FOLDER"
    names = films("film{}.mp4".format)
    write(folder, [], **{name.replace(".mp4", ".txt"): f"{name}: {WORDS}" for name in names})
    for seed, name in enumerate(names):
        (folder / name).write_bytes(film(34, seed, 24))
    (folder / "still.png").write_bytes(png(paint(1, 90, 160)))
    said = []
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "kinescale"
        runs = list((tmp_path / "runs").glob("*"))
        words = [
            word.replace("runs/NAME", f"runs/{runs[0].name}") if runs else word for word in words
        ]
        ended = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "WANDB_MODE": "disabled"},
            capture_output=True,
            text=True,
            timeout=1500,
        )
        assert ended.returncode == 0, f"{line}\n{ended.stdout}\n{ended.stderr}"
        said.append(ended.stdout)
    assert len(said) == 4
    assert "of those read" in said[0]
    assert "captions: of 6 of 7 only the first text.max_tokens=96 tokens were kept" in said[1]
    (result,) = (tmp_path / "runs").glob("*/result.json")
    assert read_json(result)["accounting"]["samples_in_split"] == 5
    assert av.open(str(tmp_path / "ball.mp4")).streams.video[0].frames > 1
