"""A study of arms from clips to its page, with real runs of seconds, one of whose arms breaks."""

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest

from sweeps.kinds.arms.config import ArmsConfig
from sweeps.kinds.compose import compose_any
from sweeps.run import run_study
from trainer.config import compose_run
from trainer.encode.encode import encode_dataset
from trainer.generate.generate import load_model

sys.path.insert(0, str(Path(__file__).parents[2]))
from flat_clips import write_clips

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with clips, their latents, and latents whose shard is damaged."""
    root = tmp_path_factory.mktemp("data")
    write_clips(root / "video", {"train": 60, "val_worlds": 8})
    run = compose_run(["experiment=cpu_smoke", f"data.root={root}/video", "horizon.steps=1"])
    encode_dataset(run, root / "latents")
    shutil.copytree(root / "latents", root / "damaged")
    shard = next((root / "damaged" / "train").glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:1000])
    return root


def compose(data: Path, runs: Path) -> ArmsConfig:
    base = f'base=["experiment=cpu_smoke","log.wandb=disabled","data.root={data}/latents",'
    study = compose_any(
        [
            "study=framing_smoke", f"root={runs}", base + '"validation.splits=[val_worlds]"]',
            'arms.square=["optim.lr=1e-2"]', f'+arms.broken=["data.root={data}/damaged"]',
            f"losses.root={data}/latents", f"draws.root={data}/video", "flops=4e9",
            "cluster.retries=0", "draws.check_clips=4", "y_axis.window=[0.5,1.0]",
        ]
    )  # fmt: skip
    assert isinstance(study, ArmsConfig)
    return study


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_two_arms_are_compared_and_a_third_that_breaks_is_shown(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = compose(data, tmp_path)
    assert run_study(study, ["study=framing_smoke"]) == 1  # one arm failed
    folder = study.folder
    runs = {(row["arm"], row["seed"]): row for row in rows_of(folder / "runs.csv")}
    assert [runs[arm, seed]["status"] for arm in ("native", "square") for seed in "01"] == [
        "finished"
    ] * 4
    assert {runs["broken", seed]["status"] for seed in "01"} == {"missing"}
    assert {runs["broken", seed]["reason"] for seed in "01"} != {""}
    flops = [float(row["flops"]) for row in runs.values() if row["flops"]]
    assert max(flops) / min(flops) < 1.2  # whole steps of a few
    summary = rows_of(folder / "summary.csv")
    measures = {row["measure"] for row in summary}
    assert measures >= {"loss given dense captions", "subject drawn", "subject whole"}
    # The broken arm's data lie elsewhere: arms' own validations are not of the same clips.
    assert "loss, own captions" not in measures
    native = {row["measure"]: row for row in summary if row["arm"] == "native"}
    assert native["loss given dense captions"]["clips"] == "6"
    assert all(float(row["low"]) <= float(row["high"]) for row in native.values())
    page = (folder / "report" / "index.html").read_text()
    assert "broken-s0 failed in “train”" in page
    assert page.count("data:video/mp4") == 3  # two arms and the held-out clip
    assert "failed" in capsys.readouterr().err

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")}
    run_study(study, ["study=framing_smoke"])
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")} == before


def test_runs_of_one_seed_start_alike_and_arms_differ_in_what_they_override(
    data: Path, tmp_path: Path
) -> None:
    study = compose(data, tmp_path)
    study.arms.pop("broken")
    study.draws.prompts, study.seeds = 0, [0]
    assert run_study(study, []) == 0
    native, square = sorted((study.folder / "runs").iterdir())
    one, two = load_model(native)[0], load_model(square)[0]
    assert (one.optim.lr, two.optim.lr) == (4e-3, 1e-2) or one.optim.lr != two.optim.lr
    assert one.seed == two.seed == 0
    about = json.loads((study.folder / "study.json").read_text())
    assert about["failures"] == []
    means = {row["measure"]: row["mean"] for row in rows_of(study.folder / "summary.csv")}
    result = json.loads((native / "result.json").read_text())
    assert float(means["loss, own captions"]) != pytest.approx(result["loss"], rel=1e-3)
    (row,) = [row for row in rows_of(study.folder / "runs.csv") if row["arm"] == "native"]
    assert float(row["loss"]) == pytest.approx(float(means["loss, own captions"]), rel=1e-4)
    assert about["probe"] == []
