"""Several models in one step compute what each computes alone; the ways of many runs are sets."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import packs
from benchmarks.batched_runs import Stacked, check_alike, train
from benchmarks.many_runs import jobs_of, plan, ways, write_clips
from models.config import ModelConfig
from models.dit.model import DiT
from models.roles import role_groups
from trainer.config import RunConfig
from trainer.diffusion.micro_batch import MicroBatch
from trainer.optim_config import OptimConfig

CONFIG = ModelConfig(width=32, depth=2, text_width=16, base_width=16)
CLIPS = [((1, 4, 4), 5), ((1, 4, 4), 0), ((2, 3, 4), 8), ((3, 4, 3), 3)]
RATES = [1e-3, 3e-3, 1e-2]
STEPS = 5


def batches_of(step: int) -> list[MicroBatch]:
    samples = [packs.build_sample(CONFIG, CLIPS, seed=10 * step + i) for i in range(2)]
    return [MicroBatch(s.pack, s.x_0, s.t, [], 0, int(s.pack.valid.sum()), 0) for s in samples]


def alone(optim: OptimConfig) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Train one model as torch does it, without stacking; return its losses and weights."""
    model = packs.build_model(CONFIG)
    parameters = dict(model.named_parameters())
    groups = [
        {"params": [parameters[n] for n in g.names], "lr": optim.lr * g.lr_scale,
         "weight_decay": optim.weight_decay if g.decay else 0.0}
        for g in role_groups(model, CONFIG)
    ]  # fmt: skip
    adam = torch.optim.AdamW(groups, betas=(optim.beta1, optim.beta2), eps=optim.eps)
    losses = []
    for step in range(STEPS):
        adam.zero_grad()
        batches = batches_of(step)
        values = sum(batch.values for batch in batches)
        total = 0.0
        for batch in batches:
            sample = packs.Sample(batch.pack, batch.x_0, batch.t, [])
            loss = packs.our_loss(model, sample) * (batch.values / values)
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip)
        adam.step()
        losses.append(total)
    return losses, {name: p.detach() for name, p in parameters.items()}


@pytest.mark.heavy
def test_batched_models_have_the_losses_and_weights_of_separate_ones() -> None:
    optims = [OptimConfig(lr=lr, weight_decay=0.1, clip=0.5) for lr in RATES]
    initial = {name: p.detach() for name, p in packs.build_model(CONFIG).named_parameters()}
    stacked = Stacked(CONFIG, optims, initial)
    found = []
    for step in range(STEPS):
        batches = batches_of(step)
        found.append(stacked.accumulate(batches, float(sum(b.values for b in batches))))
        stacked.update(RATES)
    for row, optim in enumerate(optims):
        losses, weights = alone(optim)
        together = [float(step[row]) for step in found]
        assert together == pytest.approx(losses, rel=1e-5)
        views = stacked.views(stacked.flat[row])
        apart, moved = (
            torch.cat([(weights[name] - other[name]).flatten() for name in weights]).norm()
            for other in (views, initial)
        )
        assert apart <= 1e-4 * moved  # Adam enlarges rounding of tiny gradients
    assert len({float(loss) for loss in found[-1]}) == len(RATES)  # the rates told them apart


def test_one_model_of_another_rate_moves_no_other() -> None:
    initial = {name: p.detach() for name, p in DiT(CONFIG).named_parameters()}
    rows = []
    for lr in (1e-3, 1.0):
        stacked = Stacked(CONFIG, [OptimConfig(lr=1e-3), OptimConfig(lr=lr)], initial)
        for step in range(2):
            stacked.accumulate(batches_of(step), 1e3)
            stacked.update([1e-3, lr])
        rows.append(stacked.flat[0].clone())
    torch.testing.assert_close(rows[0], rows[1], rtol=1e-6, atol=1e-9)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunConfig]:
    root = tmp_path_factory.mktemp("many") / "clips"
    write_clips(root, clips=12)
    return plan(root, runs=2, steps=3, shape=(16, 1))


@pytest.mark.heavy
def test_a_batched_set_is_trained_to_its_validation(runs: list[RunConfig]) -> None:
    losses = train(runs)
    assert len(set(losses)) == 2
    assert train(runs[1:]) == pytest.approx(losses[1:], rel=1e-5)


@pytest.mark.parametrize("change", [{"seed": 1}, {"model": ModelConfig(width=24, head_dim=24)}])
def test_runs_that_differ_in_more_than_the_rate_are_refused(
    runs: list[RunConfig], change: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(change))} of many-1: must equal"):
        check_alike([runs[0], replace(runs[1], **change)])


def test_every_way_trains_each_run_once(runs: list[RunConfig], tmp_path: Path) -> None:
    for number, way in enumerate(ways(len(runs))):
        jobs, folders = jobs_of(way, runs, tmp_path / str(number))
        named = [word for job in jobs for word in job.argv if word in map(str, folders)]
        assert sorted(named) == sorted(map(str, folders))
        assert len(jobs) == -(-len(runs) // way.batch)
