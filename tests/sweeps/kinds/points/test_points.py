"""Studies of points: plan, runner and page; the analyses are in test_grids_answers.py."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from data.dataset.shards import ShardWriter, write_manifest
from launch.local.run import Outcome, Status
from sweeps.kinds.catalogue import plan_study
from sweeps.kinds.compose import compose_any, compose_study
from sweeps.kinds.points.config import PointsConfig
from sweeps.kinds.points.plan import PointsPlan, expand
from sweeps.kinds.points.run import PointsRunner
from sweeps.report.__main__ import main as report_main
from sweeps.report.pages.points import build_points_report
from sweeps.run import run_study
from sweeps.study import runner as runner_module
from sweeps.study.clips import Clips
from sweeps.study.freeze import freeze_study
from tests.trainer.mirror.receivers import hook
from trainer.config import compose_run, load_run
from trainer.identity import run_name

HOSTILE = "</script><script>alert('x')</script><img src=https://evil.example/x onerror=alert(1)>"
STUDIES = Path(__file__).parents[4] / "sweeps/conf/study"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an index of latents that nobody opens."""
    root = tmp_path_factory.mktemp("data") / "clips"
    for split in ("train", "val_worlds"):
        with ShardWriter(root, split, 1_000_000) as writer:
            for number in range(16):
                meta = {
                    "key": f"{split}-{number}", "media": "latent", "num_frames": 9, "height": 64,
                    "width": 96, "fps": 12.0, "duration_seconds": 0.75, "caption": "a clip",
                    "source": f"rooms/{number}", "licence": "CC0", "rendered": True,
                    "original": {}, "caption_tokens": 5,
                }  # fmt: skip
                writer.write(meta, b"none", "safetensors")
    write_manifest(root, {"name": "clips"})
    return root


def compose(clips: Path, runs: Path, *overrides: str, study: str = "cpu_seeds") -> PointsConfig:
    base = f'base=["experiment=cpu_demo","data.root={clips}","validation.splits=[val_worlds]"]'
    found = compose_any([f"study={study}", base, f"root={runs}", *overrides])
    assert isinstance(found, PointsConfig)
    return found


# The plan.


def test_a_product_is_expanded_as_hydra_does_and_the_last_axis_is_the_fastest() -> None:
    found = expand(["optim.lr=1e-3,2e-3", "model.depth=range(1,4)"])
    assert len(found) == 6
    assert found[0] == (("optim.lr", "0.001"), ("model.depth", "1"))
    assert found[1] == (("optim.lr", "0.001"), ("model.depth", "2"))
    assert expand([]) == [()]
    assert expand(["data.mixture=[],[{root: a}]"])[1] == (("data.mixture", "[{root:a}]"),)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (["optim.lr=1e-3"], r"has one value\. Use key=a,b"),
        (["optim.lr"], r"axes='optim\.lr': .* Use a Hydra sweep"),
        (["seed=1,2", "seed=3,4"], r"axes: set seed twice"),
    ],
)
def test_an_axis_that_is_no_sweep_is_refused(axes: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expand(axes)


@pytest.mark.heavy
def test_arms_axes_sizes_lengths_and_seeds_all_meet(clips: Path, tmp_path: Path) -> None:
    study = compose(
        clips, tmp_path, "+arms.a=[]", '+arms.b=["objective.dense_captions=0"]',
        "axes=['optim.lr=1e-3,2e-3']", "sizes.params=[3e4,9e4]", "sizes.exponent=0",
        "lengths={flops: [], tokens: [1e5, 2e5]}", "seeds=[0,5]",
    )  # fmt: skip
    plan = PointsPlan(study)
    points = plan.points()
    assert len(points) == len({p.spec.name for p in points}) == 2 * 2 * 2 * 2 * 2
    runs = [plan.compose(point.spec) for point in points]
    assert {run.horizon.tokens for run in runs} == {1e5, 2e5}
    assert {run.optim.lr for run in runs} == {1e-3, 2e-3}  # the axis, not the recipe
    assert {run.objective.dense_captions for run in runs} == {0.95, 0.0}
    assert len({run_name(run) for run in runs}) == 32
    assert all(run.data.pack_tokens == 768 for run in runs)  # of the recipe


def test_sizes_grow_with_the_length_and_flops_are_those_asked_for(
    clips: Path, tmp_path: Path
) -> None:
    study = compose(clips, tmp_path, "seeds=[0]", "lengths.flops=[1e11,1.6e12]",
                    "sizes={params: [5e4], at: 1e11, exponent: 0.5}")  # fmt: skip
    small, large = PointsPlan(study).points()
    assert large.params / small.params == pytest.approx(4, rel=0.3)
    assert small.spec.budget == pytest.approx(1e11)
    assert small.unique_tokens == 16 * 3 * 4 * 6


def test_tokens_per_param_follow_the_shape_that_was_found(clips: Path, tmp_path: Path) -> None:
    study = compose(clips, tmp_path, "lengths={flops: [], tokens_per_param: [20]}", "seeds=[0]",
                    "sizes={params: [5e4], exponent: 0}")  # fmt: skip
    (point,) = PointsPlan(study).points()
    assert point.tokens == 20 * point.params


@pytest.mark.heavy
def test_a_missing_data_set_is_refused_unless_a_clip_stands_in(tmp_path: Path) -> None:
    study = compose(tmp_path / "none", tmp_path)
    with pytest.raises(ValueError, match="is missing"):
        PointsPlan(study).points()
    study = compose(tmp_path / "none", tmp_path,
                    "stand_in={num_frames: 17, height: 120, width: 160}")  # fmt: skip
    assert PointsPlan(study).points()[0].unique_tokens == 5 * 8 * 10
    with pytest.raises(ValueError, match="is missing"):
        PointsRunner(study, []).run()
    assert not study.folder.exists()


def test_a_plan_of_points_needs_no_data_set(tmp_path: Path) -> None:
    clips = Clips()
    planned = plan_study(compose(tmp_path / "none", tmp_path, "seeds=[0]"), clips)
    assert planned.runs
    assert f"there is no data set at {tmp_path / 'none'}/train" in clips.notes[0]
    clips.of(compose_run(["experiment=cpu_demo", "data.root=elsewhere", "horizon.steps=1"]))
    assert len(clips.notes) == 1  # one clip stands in for both
    assert f"at {tmp_path / 'none'}/train, elsewhere/train, so FLOPs" in clips.notes[0]


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lengths.tokens=[1e5]", r"^lengths: must give values of one unit"),
        ("lengths.flops=[-1]", r"^lengths\.flops\[0\]=-1: must be above 0"),
        ("seeds=[1,1]", r"^seeds: must be distinct"),
        ("repeat.seeds=[0]", r"^seeds: must be distinct"),
        ("repeat={seeds: [9], lengths: [3]}", r"^repeat\.lengths: must be among lengths"),
        ("noise_seeds=[1]", r"^noise_seeds: must be none or at least two"),
        ("analysis=schedule", r"^branches\.every: must be positive in a study of schedules"),
        ("analysis=tea", r"expected one of \[power, data"),
        ("budgets=[1]", r"^budgets: unknown key\. .*Allowed: analysis, arms"),
        ("sizes={params: [1e4], at: 0, exponent: 1}", r"^sizes\.at: must be a length"),
    ],
)
def test_a_study_that_cannot_answer_is_refused(clips, tmp_path, override, message) -> None:
    with pytest.raises(ValueError, match=message):
        compose(clips, tmp_path, override)


def test_a_study_of_points_is_no_isoflop_study() -> None:
    with pytest.raises(ValueError, match=r"study=cpu_seeds: is one of points"):
        compose_study(["study=cpu_seeds"])


@pytest.mark.heavy
def test_more_seeds_and_another_level_continue_a_study_and_other_sizes_do_not(
    clips: Path, tmp_path: Path
) -> None:
    freeze_study(compose(clips, tmp_path))
    freeze_study(compose(clips, tmp_path, "seeds=[0,1,2,3,4]", "level=0.8"))
    with pytest.raises(ValueError, match="holds a study with other settings"):
        freeze_study(compose(clips, tmp_path, "sizes.params=[5e4]"))


# The runner, its runs planted.


def plant(runner: PointsRunner, job: Any, loss: float) -> None:
    """Write what the run of a job would leave behind."""
    point = next(p for p in [*runner.points] if runner.folders[p.spec.name] == job.run_dir)
    result = {
        "name": job.run_dir.name, "status": "finished", "params": point.params,
        "tokens": point.tokens, "flops": job.cost, "loss": loss, "loss_noise": 1e-4,
        "samples": point.tokens / 72, "seconds": 1.0, "accounting": {"epochs": 5.5},
        "lr": 5e-3, "width": 24, "depth": 1, "batch_tokens": 768,
    }  # fmt: skip
    (job.run_dir / "result.json").write_text(json.dumps(result))


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Let jobs leave results at once; return the names that each phase started."""
    phases: list[list[str]] = []

    def run(self: PointsRunner, phase: str, jobs: list[Any]) -> None:
        missing = [job for job in jobs if not job.done_marker.exists()]
        phases.append([job.name for job in missing])
        for job in missing:
            if job.name.startswith("noise-"):
                losses = {"11": 0.5, "12": 0.501, "13": 0.5, "14": 0.502}
                job.done_marker.parent.mkdir(parents=True, exist_ok=True)
                job.done_marker.write_text(
                    json.dumps({"captions": {"dense": {"by_noise_seed": losses}}})
                )
            else:
                plant(self, job, 0.5 + 0.002 * len(phases) + 0.001 * hash_of(job.name))

    monkeypatch.setattr(PointsRunner, "launch", run)
    return phases


def hash_of(name: str) -> float:
    return sum(name.encode()) % 7 / 7


@pytest.mark.heavy
def test_a_study_ends_with_its_table_answer_and_page_and_starts_nothing_twice(
    clips: Path, tmp_path: Path, planted: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    study = compose(clips, tmp_path, "seeds=[0,1,2]")
    assert run_study(study, ["study=cpu_seeds"]) == 0
    assert "Two seeds of one setting differ by" in capsys.readouterr().out
    assert [len(names) for names in planted] == [9, 0, 9]
    rows = list(csv.DictReader((study.folder / "runs.csv").read_text().splitlines()))
    assert len(rows) == 9
    assert {row["excluded"] for row in rows} == {"0"}
    assert float(rows[0]["clip_tokens"]) == 72
    assert {row["unique_tokens"] for row in rows} == {str(16 * 72)}
    page = (study.folder / "report/index.html").read_text()
    assert "saw every clip more than 4 times" in page
    planted.clear()
    again = compose(clips, tmp_path, "seeds=[0,1,2,3]")
    assert run_study(again, ["study=cpu_seeds"]) == 0
    assert [len(names) for names in planted] == [3, 0, 3]
    assert all("-s3" in name for name in planted[0])


@pytest.mark.heavy
def test_whom_the_runs_alert_is_told_that_their_study_ended(
    clips: Path, tmp_path: Path, planted: list[list[str]], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    base = f'"experiment=cpu_demo","data.root={clips}","validation.splits=[val_worlds]"'
    base = f'base=[{base},"log.alerts.webhook=KINESCALE_WEBHOOK"]'
    study = compose(clips, tmp_path, "seeds=[0,1,2]", base)
    with hook() as web:
        monkeypatch.setenv("KINESCALE_WEBHOOK", web.url)
        assert run_study(study, ["study=cpu_seeds"]) == 0
        (told,) = web.posted
        assert (told["what"], told["of"]) == ("ended", "cpu_seeds")
        assert "9 runs. Page: " in told["text"]
        monkeypatch.setattr("sweeps.report.pages.by_kind.build_page", lambda folder: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_study(study, ["study=cpu_seeds"])
        assert "It stopped: division by zero" in web.posted[1]["text"]
        web.mode = "500"
        with pytest.raises(ZeroDivisionError):
            run_study(study, ["study=cpu_seeds"])
    assert '"cpu_seeds: ended" did not reach the webhook' in capsys.readouterr().err
    job_types = [load_run(f).log.job_type for f in (study.folder / "runs").iterdir()]
    assert job_types == ["grid"] * 9


@pytest.mark.heavy
def test_the_best_run_of_every_group_is_repeated_and_left_out_of_the_fit(
    clips: Path, tmp_path: Path, planted: list[list[str]]
) -> None:
    study = compose(clips, tmp_path, "axes=['model.width=48,96','optim.lr=1e-3,2e-3,4e-3']",
                    study="cpu_lr_transfer")  # fmt: skip
    runner = PointsRunner(study, [])
    runner.run()
    rows = runner._rows()
    best = {min((r for r in rows if r["model.width"] == w and r["phase"] == "grid"),
                key=lambda r: r["loss"])["optim.lr"] for w in ("48", "96")}  # fmt: skip
    repeats = [r for r in rows if r["phase"] == "replicate"]
    assert [r["seed"] for r in repeats] == [1, 1]
    assert {r["optim.lr"] for r in repeats} == best
    assert {r["reason"] for r in repeats} == {"replicate: measures the noise floor"}


@pytest.mark.heavy
def test_a_failed_run_is_shown_and_the_others_are_analysed(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = compose(clips, tmp_path, "seeds=[0,1,2]", "noise_seeds=[]")
    runner = PointsRunner(study, [])

    def launch(title: str, jobs: list[Any], cluster: object, seen: object) -> list[Outcome]:
        del title, cluster, seen
        for job in jobs[1:]:
            plant(runner, job, 0.5 + 0.001 * hash_of(job.name))
        first = Outcome(jobs[0].name, Status.failed, reason=f"killed {HOSTILE}")
        return [first, *(Outcome(job.name, Status.done) for job in jobs[1:])]

    monkeypatch.setattr(runner_module, "launch_phase", launch)
    runner.run()
    page = build_points_report(study.folder).read_text()
    assert runner.failures[0]["job"] == "w24d1-f1e11"
    assert "failed in “grid”: killed" in page
    assert "missing: no result.json" in page
    assert "<script>alert" not in page
    assert "5 degrees of freedom" in page


# The page.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a finished study with hostile text in all its parts."""
    folder = tmp_path / "study"
    folder.mkdir()
    series = {"label": f"$x$ {HOSTILE}", "x": [1e9, 1e10], "y": [0.5, 0.4], "low": [0.4, None],
              "high": [0.6, None], "colour": 1}  # fmt: skip
    panel = {"title": HOSTILE, "xlabel": "$C$", "ylabel": HOSTILE, "series": [series],
             "xlog": True, "ylog": True}  # fmt: skip
    finding = {
        "answer": HOSTILE, "said": [HOSTILE], "warnings": [HOSTILE],
        "tables": {HOSTILE: [{"arm": HOSTILE, "value": 0.25, "none": None}]}, "panels": [panel],
    }  # fmt: skip
    (folder / "analysis.json").write_text(json.dumps(finding))
    # "grid" is what studies of points were called until 2026-11-30.
    study = {"kind": "grid", "name": "po<int", "question": HOSTILE, "cost": HOSTILE, "flops": 1e12,
             "command": HOSTILE, "config": {"note": HOSTILE}, "seconds": 9.0}  # fmt: skip
    (folder / "study.json").write_text(json.dumps(study))
    (folder / "runs.csv").write_text(f'name,arm,loss,reason\na,"{HOSTILE}",0.5,"{HOSTILE}"\n')
    return folder


def test_hostile_text_stays_text_and_the_page_one_file(folder: Path) -> None:
    assert report_main([str(folder)]) == 0
    page = (folder / "report/index.html").read_text()
    assert "<script>alert" not in page
    assert "<img src=https" not in page
    assert page.count("<script>") == 2  # the page's own and the explorer's
    assert page.count("&lt;script&gt;alert") >= 8
    assert page.count("<svg") == 1
    assert "po<int" not in page
    assert (folder / "report/figures/answer.png").stat().st_size > 5000


def test_a_folder_without_files_gives_a_page_that_names_them(tmp_path: Path) -> None:
    page = build_points_report(tmp_path).read_text()
    for name in ("study.json", "analysis.json", "runs.csv"):
        assert f"{name} is missing" in page
    assert "no answer yet" in page
    with pytest.raises(ValueError, match="must be a folder"):
        build_points_report(tmp_path / "nowhere")


def test_data_limits_enter_a_runs_identity_only_when_set() -> None:
    base = ["experiment=cpu_demo", "horizon.steps=5"]
    plain, zero, some = (
        run_name(compose_run([*base, *more])) for more in ([], ["data.limit=0"], ["data.limit=0.5"])
    )
    assert plain == zero != some
