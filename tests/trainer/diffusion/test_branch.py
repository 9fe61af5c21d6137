"""A branch of a long run against the run that it stands for."""

import warnings
from pathlib import Path

import pytest

from trainer.checkpoint.write import load_latest
from trainer.config import RunConfig, compose_run
from trainer.diffusion.attempt import train_run
from trainer.identity import freeze, run_name

from ..conftest import read_json


def compose(latents: Path, *overrides: str) -> RunConfig:
    """Compose a smoke run of which only the schedule is given."""
    fixed = [
        "experiment=cpu_smoke",
        f"data.root={latents}",
        "log.wandb=disabled",
        "horizon.steps=0",
    ]
    return compose_run([*fixed, "validation.curve_points=0", *overrides])


def train(run: RunConfig, folder: Path, stop_after: int | None = None) -> bool:
    """Train in this process; stop as a signal would, after some polls of the flag."""
    freeze(run, folder)
    polls = iter(range(10**9))
    return train_run(run, folder, lambda: stop_after is not None and next(polls) >= stop_after)


TRUNK = ("horizon.steps=8", "optim.warmup=0.25", "optim.decay=0", "checkpoint.seconds=0",
         "checkpoint.steps=2", "checkpoint.keep=9")  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:FutureWarning")
@pytest.mark.filterwarnings("ignore:torch.jit.*:DeprecationWarning")
@pytest.mark.usefixtures("group")
class TestBranch:
    """Tests that train."""

    @pytest.fixture(scope="class")
    @classmethod
    def trunk(cls, latents: Path, group: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Train a trunk of eight steps, two of them warm-up, and return its folder."""
        folder = tmp_path_factory.mktemp("trunk")
        with warnings.catch_warnings():  # marks do not reach fixtures
            warnings.simplefilter("ignore")
            assert train(compose(latents, *TRUNK), folder)
        return folder

    @pytest.mark.heavy
    def test_a_branch_is_bitwise_the_run_it_stands_for(
        self, latents: Path, trunk: Path, tmp_path: Path
    ) -> None:
        shared = ("horizon.steps=6", "optim.warmup=0.3333333333", "optim.decay=0.3333333333")
        branch = compose(latents, *shared, f"branch={{run: {trunk}, step: 4}}")
        straight = compose(latents, *shared)
        # Stopped after a step, it goes on from its own checkpoint and not from the trunk's.
        assert not train(branch, tmp_path / "branch", stop_after=0)
        assert train(branch, tmp_path / "branch")
        assert train(straight, tmp_path / "straight")
        one, two = (load_latest(tmp_path / n / "checkpoints") for n in ("branch", "straight"))
        assert one is not None
        assert two is not None
        assert one.index["files"] == two.index["files"]  # checksums of all tensors
        assert one.state["loader"] == two.state["loader"]
        results = [read_json(tmp_path / n / "result.json") for n in ("branch", "straight")]
        for key in ("loss", "tokens", "flops", "steps", "updates"):
            assert results[0][key] == results[1][key]
        assert results[1]["flops_before"] == 0
        assert 0 < results[0]["flops_before"] < results[0]["flops"]

    @pytest.mark.heavy
    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            (("horizon.steps=6", "branch.step=3"), r"^branch\.step=3: .* but of \[2, 4, 6, 8\]"),
            (("horizon.steps=6", "branch.step=4", "optim.lr=1e-4"),
             r"^branch\.run=.* \(its optim differ"),
            (("horizon.steps=6", "branch.step=4", "seed=3"), r"its seed differ"),
            (("horizon.steps=4", "branch.step=4"), r"^branch\.step=4: must lie after the warm-up"),
            (("horizon.steps=9", "branch.step=2", "optim.warmup=0.5"), r"must lie after"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_a_branch_is_refused(
        self, latents: Path, trunk: Path, tmp_path: Path, overrides: tuple[str, ...], message: str
    ) -> None:
        run = compose(latents, f"branch.run={trunk}", "optim.decay=0.3", *overrides)
        with pytest.raises(ValueError, match=message):
            train(run, tmp_path / "branch")


@pytest.mark.heavy
def test_a_branch_enters_a_runs_identity_only_when_set(latents: Path, tmp_path: Path) -> None:
    plain = compose(latents, "horizon.steps=6")
    branch = compose(latents, "horizon.steps=6", f"branch={{run: {tmp_path}/a, step: 4}}")
    other = compose(latents, "horizon.steps=6", f"branch={{run: {tmp_path}/b, step: 4}}")
    assert len({run_name(run) for run in (plain, branch, other)}) == 3
    with pytest.raises(ValueError, match=r"^branch\.step=0: must be positive with branch\.run"):
        compose(latents, "horizon.steps=6", f"branch.run={tmp_path}")
