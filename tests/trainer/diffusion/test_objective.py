"""The seat of an objective: the flow with its settings, and an objective of one's own."""

import re
import warnings
from pathlib import Path

import pytest

from models.objective import find_objective
from trainer.config import compose_run
from trainer.diffusion.attempt import train_run
from trainer.generate.generate import load_model
from trainer.generate.request import Request
from trainer.generate.sampler import generate
from trainer.identity import freeze, run_name
from trainer.run.metrics import read_metrics

from ..conftest import compose_smoke, read_json

ROOT = Path(__file__).parents[3]
TOY = "tests.trainer.toy_objective"


def train_with(latents: Path, folder: Path, *overrides: str) -> Path:
    """Train four steps in this process."""
    run = compose_smoke(latents, "horizon.steps=4", "log.every=1", *overrides)
    freeze(run, folder)
    with warnings.catch_warnings():
        # torch 2.13 renamed collectives that deepspeed 0.19 still calls by their old names.
        warnings.filterwarnings("ignore", ".*is deprecated. Please use", FutureWarning)
        warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
        assert train_run(run, folder, lambda: False)
    return folder


@pytest.mark.heavy
def test_a_run_of_a_window_validates_inside_it_says_so_and_does_not_sample(
    latents: Path, group: None, tmp_path: Path
) -> None:
    settings = ["prediction=data", "weight=min_snr", "t_range=[0.5,1.0]"]
    folder = train_with(latents, tmp_path, *(f"objective.{setting}" for setting in settings))
    result = read_json(folder / "result.json")
    assert result["t_range"] == [0.5, 1.0]
    assert len(result["loss_by_time"]) == 2
    run, model = load_model(folder)
    request = Request(out="x.mp4", num_frames=5, height=32, width=32, steps=1)
    with pytest.raises(ValueError, match=r"objective.t_range=\[0.5, 1.0\]: the run learned"):
        generate(run, model, [request])


@pytest.mark.heavy
def test_two_windows_make_the_whole_validation(
    latents: Path, group: None, trained: Path, tmp_path: Path
) -> None:
    from models.objectives.flow import Flow
    from trainer.diffusion.collate import Collator
    from trainer.diffusion.evaluate import Validator
    from trainer.parallel.mesh import alone

    run, model = load_model(trained)
    losses = {}
    for low, high in ((0.0, 1.0), (0.0, 0.5), (0.5, 1.0)):
        run.objective.t_range = [low, high]
        run.validation.times = 64
        validator = Validator(run, "val_worlds", Collator(run.codec, run.text), alone(), 3)
        losses[low, high] = validator.measure(model, draws=1).loss
    halves = (losses[0.0, 0.5] + losses[0.5, 1.0]) / 2
    assert halves == pytest.approx(losses[0.0, 1.0], rel=0.03)
    assert losses[0.0, 0.5] != pytest.approx(losses[0.5, 1.0], rel=0.03)
    assert Flow().window == (0.0, 1.0)


@pytest.mark.heavy
def test_an_objective_of_ones_own_trains_validates_and_samples(
    latents: Path, group: None, tmp_path: Path
) -> None:
    folder = train_with(latents, tmp_path, f"objective.kind={TOY}", "objective.options.least=0.2")
    losses = [r["train_loss"] for r in read_metrics(folder / "metrics.jsonl") if "train_loss" in r]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    run, model = load_model(folder)
    clips = generate(run, model, [Request(out="x.mp4", num_frames=5, height=32, width=32)])
    assert clips[0].shape == (5, 32, 32, 3)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("objective.kind=nothing", "objective.kind=nothing: is not known. Use one of flow, or a"),
        ("objective.t_range=[0.6,0.5]", "objective.t_range=[0.6, 0.5]: must rise"),
        ("objective.t_range=[0.5]", "objective.t_range=[0.5]: must hold 2 values"),
        ("objective.t_range=[0,1.5]", "objective.t_range[1]=1.5: must be at most 1"),
        ("objective.options.least=1", "is not an option of objective.kind=flow. Options: none"),
        ("objective.weight=snr", "objective.weight"),
    ],
)
def test_an_objective_that_cannot_work_is_refused(override: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        compose_run(["horizon.steps=5", override])


def test_new_settings_leave_the_names_of_earlier_runs_alone_and_name_others() -> None:
    # As they were before these keys existed.
    assert run_name(compose_run(["horizon.steps=5"])) == "run-3b4f6e341b"
    assert run_name(compose_run(["model=w6144d48", "horizon.tokens=1e12"])) == "run-101cf1ca58"
    changes = ["prediction=data", "weight=sigmoid", "t_range=[0.0,0.5]"]
    runs = [compose_run(["horizon.steps=5", f"objective.{change}"]) for change in changes]
    assert len({run_name(run) for run in runs} | {"run-3b4f6e341b"}) == 4


def test_the_trainer_knows_no_objective_by_name() -> None:
    for room in ("data", "trainer", "launch", "sweeps"):
        for path in (ROOT / room).rglob("*.py"):
            if path.parent.name != "gpu_checks":  # checks of the plain loss itself
                assert "models.objectives" not in path.read_text(encoding="utf-8"), path
    assert find_objective(TOY).options
