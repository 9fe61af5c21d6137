"""The learning-rate schedule and the averaged weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.config import ModelConfig
from models.dit.model import DiT
from models.network import initial_values
from trainer.config import RunConfig
from trainer.diffusion.ema import PowerEma
from trainer.optim import gamma_of, learning_rate
from trainer.optim_config import OptimConfig
from trainer.parallel.engine import Engine, build_optimizer
from trainer.parallel.mesh import alone
from trainer.parallel.stage import Values

from .conftest import compose_smoke

OPTIM = OptimConfig(lr=2e-3, warmup=0.1, decay=0.3)


def test_the_rate_rises_stays_and_falls() -> None:
    rates = [learning_rate(OPTIM, step, 200) for step in range(200)]
    assert rates[:20] == pytest.approx([2e-3 * (i + 0.5) / 20 for i in range(20)])
    assert set(rates[20:140]) == {2e-3}
    assert rates[140:] == pytest.approx([2e-3 * (59.5 - i) / 60 for i in range(60)])


def test_the_schedule_has_the_same_area_at_any_length() -> None:
    areas = [sum(learning_rate(OPTIM, s, n) for s in range(n)) / n for n in (60, 200, 1000)]
    assert areas == pytest.approx([2e-3 * (1 - 0.05 - 0.15)] * 3, rel=1e-6)


@pytest.mark.parametrize(("warmup", "decay"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
def test_phases_may_be_empty(warmup: float, decay: float) -> None:
    optim = OptimConfig(lr=1.0, warmup=warmup, decay=decay)
    rates = [learning_rate(optim, step, 7) for step in range(7)]
    assert all(0 < rate <= 1 for rate in rates)
    assert (rates == [1.0] * 7) == (warmup == decay == 0)


@pytest.mark.parametrize("sigma", [0.02, 0.04, 0.1, 0.2])
def test_gamma_gives_a_power_profile_of_the_asked_width(sigma: float) -> None:
    # The profile of the average over time u in (0, 1] is u^gamma; its width is its deviation.
    u = (np.arange(200_000) + 0.5) / 200_000
    weight = u ** gamma_of(sigma)
    weight /= weight.sum()
    mean = (weight * u).sum()
    assert np.sqrt((weight * (u - mean) ** 2).sum()) == pytest.approx(sigma, rel=1e-3)


def fresh(run: RunConfig) -> Values:
    """Return freshly drawn weights."""
    return lambda names: initial_values(run.model, torch.Generator().manual_seed(0))


@pytest.mark.usefixtures("group")
@pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_the_average_weighs_steps_by_that_profile(latents: Path) -> None:
    run = compose_smoke(latents)
    engine = Engine(run.model, fresh(run), run.optim, run.parallel, alone())
    ema = PowerEma(engine, sigma=0.1)
    masters = {f.name: f.tensors["param"] for f in engine.fragments()}
    master, steps = masters["patch_in.weight"], 500
    assert master.numel() >= steps
    for step in range(1, steps + 1):  # weights that say which step they are of
        master.zero_()
        master[step - 1] = 1.0
        ema.update(step)
    profile = ema.average["patch_in.weight"][:steps].double().numpy()
    u = (np.arange(steps) + 0.5) / steps
    assert profile.sum() == pytest.approx(1, rel=1e-4)
    mean = (profile * u).sum()
    width = np.sqrt((profile * (u - mean) ** 2).sum())
    assert width == pytest.approx(0.1, rel=0.01)


def test_widths_out_of_range_are_refused(latents: Path) -> None:
    with pytest.raises(ValueError, match=r"optim.ema_sigma=0.5: must be below 0.28. Use 0.04"):
        compose_smoke(latents, "optim.ema_sigma=0.5")


@pytest.mark.heavy
@pytest.mark.usefixtures("group")
@pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("zero", [0, 1])
def test_other_weights_are_computed_with_for_a_while_and_then_the_own_ones_again(
    latents: Path, zero: int
) -> None:
    run = compose_smoke(latents, f"parallel.zero_stage={zero}")
    engine = Engine(run.model, fresh(run), run.optim, run.parallel, alone())
    network = dict(engine.stage.model.named_parameters())
    own = {name: p.detach().clone() for name, p in network.items()}
    masters = {f.name: f.tensors["param"] for f in engine.fragments()}
    others = {name: master + 1.0 for name, master in masters.items()}

    def evaluate() -> None:  # and end early, as a signal would
        with engine.weights(others):
            for name, parameter in network.items():
                assert torch.equal(parameter, own[name] + 1.0), name
            raise KeyError

    with pytest.raises(KeyError):
        evaluate()
    for name, parameter in network.items():
        assert torch.equal(parameter, own[name]), name
        assert torch.equal(masters[name], own[name].flatten()), name


@pytest.mark.parametrize("width", [64, 256])
def test_decay_falls_with_the_width_as_the_rate_does_or_not_at_all(width: int) -> None:
    config = ModelConfig(width=width, base_width=64)
    taken = {}
    for by_width in (True, False):
        optim = OptimConfig(weight_decay=0.1, decay_by_width=by_width)
        groups = build_optimizer(DiT(config), config, optim).param_groups
        taken[by_width] = [group["lr_scale"] * group["weight_decay"] for group in groups]
    assert taken[True] == pytest.approx([0.0, 0.1 * 64 / width])
    assert taken[False] == pytest.approx([0.0, 0.1])
