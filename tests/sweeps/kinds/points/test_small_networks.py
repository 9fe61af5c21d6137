"""Studies of points over codecs, their perceptual encoder and captioners: as over transformers."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from launch.status import read_states
from launch.submit import main as submit
from sweeps.kinds.catalogue import plan_study
from sweeps.kinds.compose import compose_any
from sweeps.kinds.points.asked import NEEDS
from sweeps.kinds.points.config import Analysis, PointsConfig
from sweeps.kinds.points.plan import PointsPlan
from sweeps.plan.__main__ import main as plan_main
from sweeps.report.pages.by_kind import build_page
from sweeps.run import run_study
from sweeps.study.archive import archive, restore
from sweeps.study.clips import Clips
from sweeps.study.results import COLUMNS
from sweeps.watch.show import summary
from sweeps.watch.state import Watcher
from tests.trainer.encode.test_encode import write_clips
from trainer.config import RunKind
from trainer.kinds import KINDS

AXES = {"vae_smoke": "vae.channels=4,8", "perceptual_tiny": "perceptual.widths=[4,8],[8,16]",
        "captioner_tiny": "captioner.width=32,64"}  # fmt: skip

SPLITS = {"vae_smoke": "validation.splits=[val]", "perceptual_tiny": "val_split=val",
          "captioner_tiny": "validation_split=val"}  # fmt: skip


def words(
    runs: Path, experiment: str = "vae_smoke", *more: str, base: Sequence[str] = ()
) -> list[str]:
    fixed = json.dumps([f"experiment={experiment}", *base])
    return ["study=cpu_codec", f"root={runs}", f"base={fixed}", f"axes={[AXES[experiment]]}",
            "lengths.steps=[1,2]", *more]  # fmt: skip


def study_of(*arguments: str) -> PointsConfig:
    found = compose_any(list(arguments))
    assert isinstance(found, PointsConfig)
    return found


@pytest.mark.heavy
@pytest.mark.parametrize("experiment", AXES)
def test_every_kind_of_run_is_a_point_of_its_own_settings_and_steps(
    experiment: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [f"data.root={write_clips(tmp_path / 'clips')}"]
    base += [SPLITS[experiment]]
    more = ["seeds=[0,5]", "lengths.steps=[30,1234567]"]
    arguments = words(tmp_path, experiment, *more, base=base)
    plan = PointsPlan(study_of(*arguments))
    points = plan.points()
    assert len({point.spec.name for point in points}) == 2 * 2 * 2
    runs = [plan.compose(point.spec) for point in points]
    assert {run.kind for run in runs} == {runs[0].kind} != {RunKind.diffusion}
    assert [run.steps for run in runs[:4]] == [30, 30, 1234567, 1234567]
    assert {run.seed for run in runs} == {0, 5}
    assert plan.folder(points[0].spec).parent == tmp_path / "cpu_codec" / "runs"
    job = plan.job(points[0].spec)
    assert (job.cost, job.goal[0]) == (30, "step")  # its metrics count no FLOPs
    assert plan_main([*arguments, "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    for row in planned["runs"]:
        assert row["state"] == "missing"
        assert {row[key] for key in ("width", "tokens", "seconds", "money")} == {None}
        assert row["params"] > 1000
    assert (planned["totals"]["seconds"], planned["totals"]["money"]) == (None, None)
    assert any(f"Not known of kind={runs[0].kind}: " in note for note in planned["notes"])


CODEC = r"a run of kind=codec"
REFUSED = {
    "sizes.params=[1e4]": rf"^sizes\.params: {CODEC} has no ladder.*axes or arms",
    "analysis=resolution": rf"^analysis=resolution: {CODEC} counts no tokens or flops\. Use ",
    "analysis=recipes": rf"^analysis=recipes: {CODEC} counts no lr or batch_tokens or tokens",
    "lengths={steps: [], flops: [1e9]}": rf"^lengths\.flops: {CODEC} counts neither .*\.steps",
    "recipe.lr=1e-3": rf"^recipe: {CODEC} has no rule.*leave it out",
    "noise_seeds=[1,2]": rf"^noise_seeds: {CODEC} is validated without noise",
    "stand_in={num_frames: 9, height: 8, width: 8}": rf"^stand_in: {CODEC} is planned without",
    "lengths.steps=[1.5]": r"^lengths\.steps",
    "lengths.steps=[0]": r"^lengths\.steps\[0\]=0: must be at least 1",
    "axes=['steps=1,2']": r"^axes: set steps, which each point is given\. Use lengths",
    "axes=['seed=1,2']": r"^axes: set seed, which each point is given\. Use seeds",
    "axes=['experiment=vae_smoke,captioner_tiny']": r"^arms: are runs of kind=codec and kind=capt",
}


@pytest.mark.heavy
@pytest.mark.parametrize("override", REFUSED)
def test_what_a_codec_cannot_be_asked_is_refused_in_words(override: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=REFUSED[override]):
        PointsPlan(study_of(*words(tmp_path, "vae_smoke", override))).points()
    assert list(tmp_path.iterdir()) == []


def test_steps_are_no_length_of_a_transformer(tmp_path: Path) -> None:
    base = 'base=["experiment=cpu_smoke"]'
    study = study_of("study=cpu_codec", f"root={tmp_path}", base, "axes=['optim.lr=1e-3,2e-3']")
    with pytest.raises(ValueError, match=r"^lengths\.steps: the batch .* Use lengths\.tokens"):
        PointsPlan(study).points()


@pytest.mark.parametrize("name", ["smoke", "arms_smoke"])
def test_a_budget_of_flops_is_not_defined_for_a_codec(name: str) -> None:
    study = compose_any([f"study={name}", 'base=["experiment=vae_smoke"]'])
    with pytest.raises(ValueError, match=r"^base: asks for runs of kind=codec, whose FLOPs nobody"):
        plan_study(study, Clips())


def test_a_table_has_the_columns_that_its_kind_of_run_counts() -> None:
    of_the_study = {"name", "phase", "budget", "excluded", "reason", "cluster"}
    assert of_the_study | set(KINDS[RunKind.diffusion].columns) == set(COLUMNS)
    assert set(NEEDS) == set(Analysis)
    for needs in NEEDS.values():
        assert set(needs) <= set(KINDS[RunKind.diffusion].columns)


def rows_in(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.heavy
def test_a_study_of_codecs_goes_from_its_yaml_to_its_page_and_its_archive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = write_clips(tmp_path / "clips")
    base = [f"data.root={clips}", "validation.splits=[val]", "components=0"]
    arguments = words(tmp_path / "runs", "vae_smoke", "lengths.steps=[2]", "seeds=[0,1]", base=base)
    study = study_of(*arguments)
    assert run_study(study, arguments) == 0
    rows = rows_in(study.folder / "runs.csv")
    assert [(r["vae.channels"], r["seed"], r["steps"]) for r in rows] == [
        ("4", "0", "2"), ("4", "1", "2"), ("8", "0", "2"), ("8", "1", "2"),
    ]  # fmt: skip
    assert not {"flops", "tokens", "width", "budget", "epochs", "lr", "axes"} & set(rows[0])
    assert float(rows[0]["loss"]) == pytest.approx(10 ** (-float(rows[0]["psnr"]) / 10))
    assert float(rows[0]["loss_noise"]) > 0
    answer = json.loads((study.folder / "analysis.json").read_text())["answer"]
    assert answer.startswith("At 2 steps the loss is least, ")
    page = (study.folder / "report/index.html").read_text()
    assert "squared error of pixels of peak 1" in page
    assert "PSNR (dB)" in page
    assert "FLOPs" not in page.partition("<h2>All runs</h2>")[2].partition("</table>")[0]
    # The same command starts nothing again; status, watch, queue and archive know these runs.
    capsys.readouterr()
    assert run_study(study, arguments) == 0
    assert {row["status"] for row in rows_in(study.folder / "runs.csv")} == {"finished"}
    states = read_states([study.folder], 0.0)
    assert [(s.state, s.step, s.steps, s.attempts, s.goodput) for s in states] == 4 * [
        ("done", 2, 2, 1, None)
    ]
    assert {s.loss for s in states} == {float(row["loss"]) for row in rows}
    assert summary(Watcher(study.folder).look()) == "100 % of the steps, 4 runs: 4 finished"
    archive(study.folder, tmp_path / "kept")
    (tmp_path / "again").mkdir()
    restore(tmp_path / "kept", tmp_path / "again" / study.name)
    moved = study_of(*arguments, f"root={tmp_path / 'again'}")
    assert run_study(moved, arguments) == 0
    assert rows_in(moved.folder / "runs.csv") == rows
    assert build_page(tmp_path / "kept").stat().st_size > 10_000


@pytest.mark.heavy
def test_a_study_of_codecs_is_queued_as_one_array(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [f"data.root={write_clips(tmp_path / 'clips')}", "validation.splits=[val]"]
    study = study_of(*words(tmp_path, base=base))
    plan = PointsPlan(study)
    jobs = [plan.job(point.spec) for point in plan.points()]
    assert submit(["cluster=slurm", "dry=true", str(study.folder)]) == 0
    script = capsys.readouterr().out
    assert "--array=" in script
    assert all(job.argv[-3:] == ["trainer.train", "--run", str(job.run_dir)] for job in jobs)
