"""An exported file holds whole weights and says what they are; what is wrong is named."""

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from models.architecture import specification_of
from models.config import ModelConfig
from models.dit.model import DiT
from trainer.checkpoint.write import CheckpointWriter
from trainer.config import compose_run
from trainer.diffusion.export import main
from trainer.identity import freeze
from trainer.layout.layout import Layout
from trainer.layout.plan import Fragment
from trainer.parallel.mesh import Mesh

ROOT = Path(__file__).parents[3]
STEP, TP, PIECES = 70, 2, 3


def weights(model: ModelConfig) -> dict[str, torch.Tensor]:
    """Return weights of a pretended run, all different."""
    net, draw = DiT(model), torch.Generator().manual_seed(0)
    return {n: torch.randn(p.shape, generator=draw) for n, p in net.named_parameters()}


def save(folder: Path, model: ModelConfig, full: dict[str, torch.Tensor]) -> None:
    """Save weights as two tensor ranks times three ZeRO ranks do; ``param`` is minus ``ema``."""
    ranks: list[list[Fragment]] = [[] for _ in range(TP * PIECES)]
    for name, tensor in full.items():
        split = specification_of(model).cuts.get(name)
        for part in range(TP if split else 1):
            flat = (split.cut(tensor, part, TP) if split else tensor).reshape(-1)
            places = [len(flat) * i // PIECES for i in range(PIECES + 1)]
            for i, (start, stop) in enumerate(pairwise(places)):
                tensors = {"ema": flat[start:stop], "param": -flat[start:stop]}
                piece = Fragment(name, start, tensors, part, TP if split else 1)
                ranks[TP * i + part].append(piece)
    layout, cpu = Layout(tp=TP, dp=PIECES), torch.device("cpu")
    made = [
        CheckpointWriter(folder, Mesh(layout, rank, cpu), 1, background=True)
        for rank in range(layout.world)
    ]
    for writer, own in zip(made, ranks, strict=True):
        writer.save(STEP, own, {})
    assert all(writer.wait() for writer in made)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder with a frozen config and a checkpoint."""
    folder = tmp_path_factory.mktemp("runs") / "small-0123456789"
    config = compose_run(["experiment=cpu_smoke", "data.root=x", "horizon.steps=70"])
    freeze(config, folder)
    save(folder / "checkpoints", config.model, weights(config.model))
    return folder


def model_of(run: Path) -> ModelConfig:
    from trainer.config import load_run

    return load_run(run).model


@pytest.mark.heavy
@pytest.mark.parametrize(("kind", "sign"), [("", 1), ("kind=ema", 1), ("kind=param", -1)])
def test_weights_of_any_layout_are_exported_whole(
    run: Path, tmp_path: Path, kind: str, sign: int, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "folder" / "model.safetensors"
    assert main([f"run={run}", f"out={out}", *([kind] if kind else [])]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    found, expected = load_file(out), weights(model_of(run))
    assert found.keys() == expected.keys()
    assert all(found[name].dtype == torch.float32 for name in found)
    assert all(torch.equal(found[name], sign * expected[name]) for name in found)
    assert [p.name for p in out.parent.iterdir()] == ["model.safetensors"]


def test_the_file_alone_makes_the_model(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    assert main([f"run={run}", f"out={out}"]) == 0
    with safe_open(out, framework="pt") as file:
        about = file.metadata()
    config = json.loads(about["config"])
    assert config == asdict(model_of(run))
    assert about.pop("config_sha256") == hashlib.sha256(about.pop("config").encode()).hexdigest()
    assert about == {"step": "70", "run": run.name, "kind": "ema", "dtype": "fp32", "format": "pt"}
    DiT(ModelConfig(**config)).load_state_dict(load_file(out))


def test_bf16_is_the_nearest_of_fp32(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    assert main([f"run={run}", f"out={out}", "dtype=bf16"]) == 0
    for name, tensor in weights(model_of(run)).items():
        assert torch.equal(load_file(out)[name], tensor.to(torch.bfloat16))


def test_an_existing_file_is_replaced_by_force_only(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model.safetensors"
    out.write_text("precious")
    for extra in ([], ["force=false"]):
        assert main([f"run={run}", f"out={out}", *extra]) == 2
        assert (
            f"out={out}: exists. Choose another name or set force=true" in capsys.readouterr().err
        )
        assert out.read_text() == "precious"
    assert main([f"run={run}", f"out={out}", "force=true"]) == 0
    assert load_file(out)


BAD = {
    "kind=best": "kind=best: must be ema or param",
    "dtype=fp8": "dtype=fp8: must be fp32 or bf16",
    "force=1": "force=1: must be false or true",
    "colour=red": "colour=red: is not a key. Keys: run, out, kind, dtype, format, force, shard_gb",
    "format=onnx": "format=onnx: must be plain or diffusers",
    "shard_gb=0": "shard_gb=0: must be a number above 0",
    "shard_gb=nan": "shard_gb=nan: must be a number above 0",
    "shard_gb=5G": "shard_gb=5G: must be a number above 0",
    "out=": "out=: must name a file",
    "out=.": "out=.: must be a file, and is a folder",
    "run=": "run=: must name a run folder",
    "run=nowhere": "run=nowhere: has no config.yaml",
}


@pytest.mark.parametrize("argument", BAD)
def test_a_bad_argument_is_named(
    run: Path, tmp_path: Path, argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"run={run}", f"out={tmp_path / 'x.safetensors'}", argument]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert BAD[argument] in said
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_checkpoint_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    assert main([f"run={tmp_path}", f"out={tmp_path / 'x'}"]) == 2
    assert "has no checkpoint that verifies. Train it first." in capsys.readouterr().err


@pytest.mark.parametrize("change", ["missing", "surplus"])
def test_a_checkpoint_of_another_model_is_refused(
    run: Path, tmp_path: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    full = weights(model_of(run))
    if change == "missing":
        del full["head.weight"]
    else:
        full["tail.weight"] = torch.zeros(3)
    save(tmp_path / "checkpoints", model_of(run), full)
    assert main([f"run={tmp_path}", f"out={tmp_path / 'x'}"]) == 2
    reasons = {"missing": "ema of head.weight is incomplete", "surplus": "parameter tail.weight"}
    assert reasons[change] in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["run=x"]])
def test_help_and_wrong_arguments_need_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from trainer.diffusion.export import main; "
        f"status = main({arguments!r}); assert 'torch' not in sys.modules; sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == (0 if arguments == ["--help"] else 2), done.stderr
    said = done.stdout + done.stderr
    assert "usage: kinescale export run=FOLDER out=FILE" in said or "out=: must" in said


@pytest.mark.parametrize("form", ["plain", "diffusers"])
def test_files_hold_at_most_what_was_asked_and_the_index_finds_every_tensor(
    run: Path, tmp_path: Path, form: str
) -> None:
    out = tmp_path / "weights"
    assert main([f"run={run}", f"out={out}", "shard_gb=3e-5", f"format={form}"]) == 0
    inner = out / "transformer" if form == "diffusers" else out
    stem = "diffusion_pytorch_model" if form == "diffusers" else "model"
    index = json.loads((inner / f"{stem}.safetensors.index.json").read_text())
    full, places = weights(model_of(run)), index["weight_map"]
    assert list(places) == list(full)
    files = sorted(set(places.values()))
    assert files == sorted(path.name for path in inner.glob("*.safetensors"))
    assert len(files) > 3
    for number, file in enumerate(files, 1):
        assert file == f"{stem}-{number:05d}-of-{len(files):05d}.safetensors"
        found = load_file(inner / file)
        assert found.keys() == {name for name, place in places.items() if place == file}
        assert all(torch.equal(found[name], full[name]) for name in found)
        assert len(found) == 1 or sum(t.nbytes for t in found.values()) <= 30_000
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in full.values())
    assert [p.name for p in tmp_path.iterdir()] == ["weights"]
    about = json.loads((out / "config.json").read_text())
    assert ModelConfig(**about["model"]) == model_of(run)
    assert {"codec", "text", "objective", "step", "config_sha256"} <= about.keys()


@pytest.mark.parametrize("form", ["shard_gb=1e-4", "format=diffusers"])
def test_what_the_readme_of_an_export_says_makes_the_model(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    assert main([f"run={run}", f"out={tmp_path / 'weights'}", form]) == 0
    (code,) = re.findall(
        r"```python\n(.*?)```", (tmp_path / "weights/README.md").read_text(), flags=re.DOTALL
    )
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(code, scope)
    found = scope["model"].state_dict()
    assert all(torch.equal(found[n], w) for n, w in weights(model_of(run)).items())


def test_a_sharded_folder_loads_by_the_hub(run: Path, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    assert main([f"run={run}", f"out={tmp_path / 'weights'}", "shard_gb=1e-4"]) == 0
    model = DiT(model_of(run))
    hub.load_torch_model(model, tmp_path / "weights", strict=True)
    found = model.state_dict()
    assert all(torch.equal(found[n], w) for n, w in weights(model_of(run)).items())


def test_a_folder_is_replaced_by_force_and_only_where_export_made_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "weights"
    arguments = [f"run={run}", f"out={out}", "shard_gb=1e-4"]
    assert main(arguments) == 0
    before = {path.name for path in out.iterdir()}
    assert main(arguments) == 2
    assert f"out={out}: exists. Choose another name or set force=true" in capsys.readouterr().err
    assert main([*arguments[:2], "shard_gb=1", "force=true"]) == 0
    assert len(before - {path.name for path in out.iterdir()}) > 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("precious")
    assert main([f"run={run}", f"out={tmp_path / 'mine'}", "shard_gb=1", "force=true"]) == 2
    assert "must be a new folder, or one that export made" in capsys.readouterr().err
    assert (tmp_path / "mine/thesis.tex").read_text() == "precious"
