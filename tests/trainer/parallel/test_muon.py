"""Muon: orthogonal updates of the matrices of blocks, under every layout that it takes."""

from math import sqrt
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.coordinate_check import BASE, CLIPS, optimizer_of
from benchmarks.packs import build_sample, our_loss
from models.architecture import specification_of
from models.config import ModelConfig
from models.dit.model import DiT
from trainer.checkpoint.read import Loaded, load_latest
from trainer.identity import identity, run_name
from trainer.layout.optimizer import OptimizerKind
from trainer.optim_config import OptimConfig
from trainer.parallel.engine import build_optimizer
from trainer.parallel.mesh import alone
from trainer.parallel.muon import HeldMuon, Matrix, Whole, newton_schulz, orthogonal

from ..conftest import compose_smoke, write_latents
from .parity import Case, compare
from .reshard import Shape, compose
from .test_parity import TOLERANCE, train
from .test_reshard import train as train_jobs

MUON = OptimizerKind.muon


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(24, 24), (16, 64)])
def test_singular_values_come_near_to_one_and_vectors_stay(shape: tuple[int, int]) -> None:
    matrix = draw(*shape)
    found = newton_schulz(matrix.unsqueeze(0) * 1e-9)[0]
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    core = left.T @ found @ right.T
    values = core.diagonal()
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert (core - values.diag()).abs().max() < 1e-4
    assert newton_schulz(torch.zeros(1, *shape)).abs().max() == 0


def test_updates_are_as_large_as_adamws_and_queries_keys_and_values_are_three() -> None:
    tall, joined = draw(48, 16), draw(48, 16, seed=1)
    found, parts = orthogonal([tall, joined], [1, 3])
    for update, size in ((found, 48), *((part, 16) for part in parts.chunk(3))):
        assert float(update.square().mean().sqrt()) == pytest.approx(0.2, rel=0.2)
        largest = float(torch.linalg.matrix_norm(update, 2))
        assert largest == pytest.approx(0.2 * sqrt(size), rel=0.3)
    for part, block in zip(parts.chunk(3), joined.chunk(3), strict=True):
        torch.testing.assert_close(part, orthogonal([block], [1])[0], rtol=1e-4, atol=1e-5)


def test_it_moves_a_matrix_as_torchs_own_does_but_for_its_rounding() -> None:
    ours, theirs = (torch.nn.Parameter(draw(24, 40)) for _ in range(2))
    group = {"params": [ours], "orthogonal": True, "weight_decay": 0.1}
    mine = HeldMuon([group], 0.95, lr=0.02)
    mine.direct = Whole([Matrix((24, 40), None)], alone(), torch.float32)
    mine.state[ours]["exp_avg"] = torch.zeros(24, 40)
    torchs = torch.optim.Muon(
        [theirs], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(4):
        ours.grad, theirs.grad = draw(24, 40, seed=step), draw(24, 40, seed=step)
        mine.step()
        torchs.step()
    moved = (theirs - draw(24, 40)).detach().norm()
    assert float((ours - theirs).detach().norm() / moved) < 0.02  # torch computes in bf16


def test_training_lowers_the_loss_of_a_pack() -> None:
    model = DiT(BASE)
    model.reset_parameters(torch.Generator().manual_seed(0))
    optimizer = optimizer_of(model, BASE, OptimConfig(lr=5e-3, kind=MUON))
    pack = build_sample(BASE, CLIPS, seed=1)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = our_loss(model, pack)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("width", [64, 256])
def test_matrices_of_blocks_are_orthogonal_and_decay_as_under_adamw(width: int) -> None:
    config = ModelConfig(width=width, base_width=64, depth=2)
    model = DiT(config)
    names = {parameter: name for name, parameter in model.named_parameters()}
    optim = OptimConfig(kind=MUON, weight_decay=0.1)
    plain, decayed, apart = build_optimizer(model, config, optim).param_groups
    assert [group["orthogonal"] for group in (plain, decayed, apart)] == [False, False, True]
    found = {names[p] for p in apart["params"]}
    blocks = {n for n, w in specification_of(config).weights.items() if n.startswith("blocks.")}
    assert found == {n for n in blocks if len(specification_of(config).shapes[n]) == 2}
    assert "modulation.weight" in {names[p] for p in decayed["params"]}
    # Elements of an orthogonal update of width W are of the size 1 / sqrt(W).
    assert apart["lr_scale"] == pytest.approx(sqrt(64 / width))
    taken = [group["lr_scale"] * group["weight_decay"] for group in (plain, decayed, apart)]
    assert taken == pytest.approx([0.0, 0.1 * 64 / width, 0.1 * 64 / width])


def test_runs_keep_their_names_and_muon_makes_another(latents: Path) -> None:
    plain, muon = (compose_smoke(latents, f"optim.kind={kind}") for kind in ("adamw", "muon"))
    assert run_name(plain) == run_name(compose_smoke(latents))
    assert "kind" not in identity(plain)["optim"]
    assert run_name(muon) != run_name(plain)


@pytest.mark.parametrize(
    ("layout", "why"),
    [
        ("zero_stage=3", "ZeRO 3 leaves each rank a shard. Use parallel.zero_stage=2"),
        ("zero_stage=1 offload=true", "parallel.offload leaves its state in host memory"),
        ("zero_stage=1 processes=4 pp=4", "a stage between the first and the last holds no matrix"),
    ],
)
def test_layouts_without_whole_matrices_are_refused(latents: Path, layout: str, why: str) -> None:
    words = [f"parallel.{word}" for word in layout.split()]
    depth = ["model.depth=4", "data.packs_per_step=4"]
    compose_smoke(latents, *words, *depth)
    with pytest.raises(ValueError, match=r"^optim.kind=muon: ") as refused:
        compose_smoke(latents, "optim.kind=muon", *words, *depth)
    assert why in str(refused.value)


CASES = [
    Case(dp=2, optimizer="muon"),
    Case(dp=2, zero=1, accumulation=2, optimizer="muon"),
    Case(tp=2, optimizer="muon"),
    Case(pp=2, zero=2, accumulation=2, optimizer="muon"),
    Case(tp=2, cp=2, zero=2, optimizer="muon"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(CASES, tmp_path_factory.mktemp("muon"))


@pytest.mark.dist
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_layout_moves_matrices_as_one_process_does(trained: Path, case: Case) -> None:
    found = compare(case, trained / "latents", trained)
    assert found.worst < TOLERANCE, found


ALONE = Shape(optimizer="muon")
OTHER = Shape(tp=2, dp=2, zero=2, optimizer="muon")


def loaded_of(folder: Path) -> Loaded:
    found = load_latest(folder / "checkpoints")
    assert found is not None
    return found


@pytest.mark.dist
def test_a_run_goes_on_bitwise_and_under_another_layout(tmp_path: Path) -> None:
    write_latents(tmp_path / "latents")
    jobs = [(ALONE, "alone", False), (ALONE, "cut", True), (ALONE, "cut", False)]
    train_jobs([*jobs, (ALONE, "moved", True)], tmp_path)
    train_jobs([(OTHER, "moved", False)], tmp_path)
    kept = [loaded_of(tmp_path / name) for name in ("alone", "cut", "moved")]
    facts = specification_of(compose(ALONE, tmp_path / "latents").model)
    named = kept[0].contents.names
    assert ("exp_avg_sq", "patch_in.weight") in named
    assert ("exp_avg_sq", "blocks.0.mlp.0.weight") not in named
    for kind, name in sorted(named):
        whole, cut, moved = (
            loaded.tensor(kind, name, facts.shapes[name], facts.cuts.get(name)) for loaded in kept
        )
        assert torch.equal(whole, cut), (kind, name)
        assert (moved - whole).norm() <= 1e-4 * whole.norm(), (kind, name)
