"""What the checkpoint tests share: tensors by step, cuts of them, and writers of several ranks."""

import resource
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from models.architecture import Split
from models.network import initial_values
from trainer.checkpoint.write import CheckpointWriter, Loaded, load_latest
from trainer.identity import freeze
from trainer.layout.layout import Layout
from trainer.layout.plan import Fragment
from trainer.parallel.mesh import Mesh, alone

from .conftest import compose_smoke

ROOT = Path(__file__).parents[2]
SHAPES = {"a.weight": (6, 7), "b": (11,), "scalar": ()}
KINDS = ("param", "exp_avg", "exp_avg_sq", "ema")


def whole(step: int) -> dict[str, dict[str, torch.Tensor]]:
    """Return all tensors of a pretended step, by kind and name."""
    generator = torch.Generator().manual_seed(step)
    return {k: {n: torch.randn(s, generator=generator) for n, s in SHAPES.items()} for k in KINDS}


def fragments(step: int, cuts: dict[str, list[int]] | None = None) -> list[Fragment]:
    """Cut the tensors of a step into fragments at the given places."""
    tensors, made = whole(step), []
    for name in SHAPES:
        size = tensors["param"][name].numel()
        places = [0, *(cuts or {}).get(name, []), size]
        for start, stop in pairwise(places):
            pieces = {k: tensors[k][name].view(-1)[start:stop] for k in KINDS}
            made.append(Fragment(name, start, pieces))
    return made


def save(folder: Path, step: int, keep: int = 2) -> Path | None:
    state = {"progress": {"step": step}, "loader": {"position": 10 * step, "rate": 0.1 * step}}
    return save_pieces(folder, step, fragments(step), state, keep)


def save_pieces(
    folder: Path, step: int, pieces: list[Fragment], state: dict[str, Any], keep: int = 2
) -> Path | None:
    writer = CheckpointWriter(folder, alone(), keep, background=False)
    writer.save(step, pieces, state)
    return writer.wait()


def write_untrained(folder: Path, latents: Path) -> Path:
    """Write the folder of a smoke run whose checkpoint holds weights that were only drawn."""
    run = compose_smoke(latents, "horizon.steps=3")
    generator = torch.Generator().manual_seed(7)
    values = [
        (name, value + 0.05 * torch.randn(value.shape, generator=generator))
        for name, value in initial_values(run.model, generator)
    ]
    freeze(run, folder)
    pieces = [Fragment(name, 0, {"ema": value.reshape(-1)}) for name, value in values]
    assert save_pieces(folder / "checkpoints", 3, pieces, {}) is not None
    return folder


def same(loaded: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(loaded[name], expected[name]) for name in SHAPES)


CUT_SHAPES = {
    "blocks.0.self_attention.qkv.weight": (24, 5),
    "blocks.0.cross_attention.kv.weight": (16, 3),
    "blocks.0.self_attention.temperature": (8,),
    "blocks.0.mlp.2.weight": (3, 16),
    "blocks.0.mlp.2.bias": (5,),
}
CUTS = {
    "blocks.0.self_attention.qkv.weight": Split(0, groups=3),
    "blocks.0.cross_attention.kv.weight": Split(0, groups=2),
    "blocks.0.self_attention.temperature": Split(0),
    "blocks.0.mlp.2.weight": Split(1),
}


def cut_fragments(full: dict[str, torch.Tensor], tp: int, pieces: int) -> list[list[Fragment]]:
    """Cut parameters over ``tp`` tensor ranks and each part over ``pieces`` ZeRO ranks, by rank."""
    ranks: list[list[Fragment]] = [[] for _ in range(tp * pieces)]
    for name, tensor in full.items():
        split = CUTS.get(name)
        for part in range(tp if split else 1):
            piece = split.cut(tensor, part, tp) if split else tensor
            flat = piece.reshape(-1)
            places = [len(flat) * i // pieces for i in range(pieces + 1)]
            for i, (start, stop) in enumerate(pairwise(places)):
                tensors = {"param": flat[start:stop], "ema": 2 * flat[start:stop]}
                owner = ranks[i * tp + part]
                owner.append(Fragment(name, start, tensors, part, tp if split else 1))
    return ranks


def drawn(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(s, generator=generator) for n, s in CUT_SHAPES.items()}


def mesh_of(rank: int, world: int) -> Mesh:
    """Return a mesh that has no process groups: a collective would fail."""
    return Mesh(Layout(dp=world), rank, torch.device("cpu"))


def writers(folder: Path, world: int, attempt: int = 0, **settings: Any) -> list[CheckpointWriter]:
    settings = {"keep": 2, "background": True, "timeout_seconds": 60.0} | settings
    return [
        CheckpointWriter(folder, mesh_of(r, world), attempt=attempt, **settings)
        for r in range(world)
    ]


def save_ranks(
    ranks: list[CheckpointWriter], step: int, pieces: list[list[Fragment]]
) -> list[Path | None]:
    for writer, own in zip(ranks, pieces, strict=True):
        writer.save(step, own, {"step": step})
    return [writer.wait() for writer in ranks]


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def newest(folder: Path) -> Loaded:
    loaded = load_latest(folder)
    assert loaded is not None
    return loaded


class SmallDisk:
    """Let no file of this process grow over a size: writes fail as on a full disk."""

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes

    def __enter__(self) -> None:
        self._old = resource.getrlimit(resource.RLIMIT_FSIZE)  # python ignores SIGXFSZ
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._nbytes, self._old[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._old)
