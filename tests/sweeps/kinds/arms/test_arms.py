"""Studies of arms: their plan, their statistics, their page; training is in test_arms_line.py."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from data.dataset.shards import ShardWriter, write_manifest
from sweeps.kinds.arms.compare import compare, crossed_interval, noise_floor, spread_over_seeds
from sweeps.kinds.arms.config import ArmsConfig
from sweeps.kinds.arms.plan import ArmsPlan
from sweeps.kinds.arms.prompts import choose_prompts, shape_of
from sweeps.kinds.arms.run import ArmsRunner
from sweeps.kinds.arms.summary import summarise, verdict
from sweeps.kinds.arms.table import (
    SUMMARY_COLUMNS,
    Measure,
    Value,
    read_values,
    write_csv,
    write_values,
)
from sweeps.kinds.compose import compose_any, compose_study
from sweeps.report.__main__ import main as report_main
from sweeps.report.pages.arms import build_arms_report
from sweeps.report.video import write_mp4
from sweeps.study.freeze import freeze_study
from sweeps.study.spec import Phase

HOSTILE = "</script><script>alert('x')</script><img src=https://evil.example/x onerror=alert(1)>"
LOSS = Measure("loss given dense captions", "all", "loss", "lower")
SHARE = Measure("subject inside the frame", "all", "share", "higher")


def write_clips(root: Path, split: str = "val_worlds") -> Path:
    """Write an index of latents that nobody opens: wide, tall and square clips of two worlds."""
    sizes = [(48, 96), (96, 48), (64, 64), (48, 96)]
    for name in ("train", split):
        with ShardWriter(root, name, 1_000_000) as writer:
            for number in range(16):
                height, width = sizes[number % 4]
                frames = 1 if number == 15 else 9
                meta = {
                    "key": f"{name}-{number}", "media": "latent", "num_frames": frames,
                    "height": height, "width": width, "fps": 12.0, "duration_seconds": frames / 12,
                    "caption": f"dense words of clip {number}", "short_caption": f"clip {number}",
                    "source": f"{'rooms' if number % 3 else 'craft'}/{number}", "licence": "CC0",
                    "rendered": True, "original": {}, "caption_tokens": 6,
                    "short_caption_tokens": 3,
                }  # fmt: skip
                writer.write(meta, b"none", "safetensors")
    write_manifest(root, {"name": "clips"})
    return root


def compose(tmp_path: Path, *overrides: str) -> ArmsConfig:
    root = tmp_path / "clips"
    if not root.exists():
        write_clips(root)
    base = f'base=["experiment=cpu_demo","data.root={root}","validation.splits=[val_worlds]"]'
    study = compose_any(["study=arms_smoke", base, f"root={tmp_path}/runs", *overrides])
    assert isinstance(study, ArmsConfig)
    return study


# The plan.


@pytest.mark.heavy
def test_every_arm_has_every_seed_at_the_same_flops_and_arms_of_a_seed_are_neighbours(
    tmp_path: Path,
) -> None:
    plan = ArmsPlan(compose(tmp_path, "seeds=[3,4]"))
    assert [spec.name for spec in plan.specs] == ["dense-s3", "short-s3", "dense-s4", "short-s4"]
    assert {spec.phase for spec in plan.specs} == {Phase.arm}
    assert [spec.arm for spec in plan.specs] == ["dense", "short", "dense", "short"]
    runs = [plan.compose(spec) for spec in plan.specs]
    assert {run.horizon.flops for run in runs} == {4e8}
    assert [run.seed for run in runs] == [3, 3, 4, 4]
    assert [run.objective.dense_captions for run in runs] == [0.95, 0.0, 0.95, 0.0]
    assert len({plan.job(spec).run_dir for spec in plan.specs}) == 4


def test_prompts_are_moving_and_dealt_over_worlds_and_shapes(tmp_path: Path) -> None:
    root = str(write_clips(tmp_path / "clips"))
    found = choose_prompts(root, "val_worlds", 6)
    kinds = [(info.source.split("/")[0], shape_of(info)) for info in found]
    assert len(set(kinds)) == 6
    assert all(info.num_frames > 1 for info in choose_prompts(root, "val_worlds", 15))
    assert choose_prompts(root, "val_worlds", 9)[:6] == found
    with pytest.raises(ValueError, match=r"draws\.prompts=16: .* holds 15 moving clips"):
        choose_prompts(root, "val_worlds", 16)


@pytest.mark.heavy
def test_arms_are_asked_for_the_same_prompts_and_noise(tmp_path: Path) -> None:
    study = compose(tmp_path, "draws.captions=[dense,short]", "draws.noises=2")
    plan = ArmsPlan(study)
    prompts, asked = plan.prompts(), []
    for spec, job in zip(plan.specs, map(plan.job, plan.specs), strict=True):
        drawing, made = plan.drawing(spec, job.run_dir, prompts)
        requests = json.loads((drawing.run_dir / "requests.json").read_text())
        assert [str(study.folder / clip.file) for clip in made] == [r.pop("out") for r in requests]
        asked.append(requests)
    assert asked[0] == asked[1] == asked[2] == asked[3]
    assert [r["seed"] for r in asked[0][:4]] == [0, 1, 0, 1]
    assert {r["prompt"] for r in asked[0]} == {p.caption for p in prompts} | {
        p.short_caption for p in prompts
    }


@pytest.mark.heavy
def test_a_request_that_changed_forgets_its_clips_and_an_equal_one_keeps_them(
    tmp_path: Path,
) -> None:
    study = compose(tmp_path)
    plan = ArmsPlan(study)
    spec, job = plan.specs[0], plan.job(plan.specs[0])
    _, made = plan.drawing(spec, job.run_dir, plan.prompts())
    for clip in made:
        (study.folder / clip.file).write_bytes(b"clip")
    assert plan.drawing(spec, job.run_dir, plan.prompts())[0].done_marker.exists()
    study.draws.steps += 1
    assert not plan.drawing(spec, job.run_dir, plan.prompts())[0].done_marker.exists()


@pytest.mark.heavy
def test_more_seeds_continue_a_study_and_other_arms_do_not(tmp_path: Path) -> None:
    freeze_study(compose(tmp_path))
    freeze_study(compose(tmp_path, "seeds=[0,1,2]", "draws.prompts=3", "level=0.9"))
    with pytest.raises(ValueError, match="holds a study with other settings"):
        freeze_study(compose(tmp_path, "flops=1e9"))
    with pytest.raises(ValueError, match=r"cluster\.slurm\.env\[0\]: holds a key"):
        freeze_study(compose(tmp_path, "cluster.slurm.env=['DATA=https://me:planted@host/']"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("reference=other", r"^reference: must name an arm\. Use one of \['dense', 'short'\]"),
        ("seeds=[1,1]", r"^seeds: must be distinct"),
        ("flops=0", r"^flops: must be positive"),
        ("+arms.a/../b=[]", r"arms\.a/\.\./b|cannot be read"),
        ("draws.captions=[dropped]", "a dropped caption is no prompt"),
        ("draws.probe=framing", r"needs clips with truth\. Set draws\.root"),
        ("draws.probe=eyes", r"expected one of \[none, attributes, framing\]"),
        ("level=1", r"^level=1: must be below 1"),
        ("budgets=[1,2]", r"^budgets: unknown key\. .*Allowed: arms, base"),
    ],
)
def test_a_study_that_cannot_answer_is_refused(tmp_path, override, message) -> None:
    with pytest.raises(ValueError, match=message):
        compose(tmp_path, override)


def test_an_arm_that_would_leave_its_folder_is_refused(tmp_path: Path) -> None:
    study = compose(tmp_path)
    study.arms["../x"] = []
    with pytest.raises(ValueError, match=r"arms\.'\.\./x': must be 1-41 of"):
        study.check()


def test_an_isoflop_study_and_one_of_arms_are_told_apart() -> None:
    with pytest.raises(ValueError, match=r"study=framing: compares arms"):
        compose_study(["study=framing"])
    assert not isinstance(compose_any(["study=demo"]), ArmsConfig)


def test_missing_data_stops_a_study_before_any_run(tmp_path: Path) -> None:
    study = compose(tmp_path, f"losses.root={tmp_path}/none")
    with pytest.raises(ValueError, match="is missing"):
        ArmsRunner(study, []).run()
    assert not study.folder.exists()


# The statistics.


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("seeds", "clips", "spreads"),
    [
        (3, 1, (1, 0, 0)), (3, 24, (1, 1, 1)), (3, 24, (0.3, 1, 1)), (3, 24, (0, 1, 1)),
        (3, 24, (0, 0, 1)), (5, 32, (1, 0.2, 2)),
    ],
)  # fmt: skip
def test_the_interval_covers_the_truth_as_often_as_it_says(seeds, clips, spreads) -> None:
    """Differences with effects of seeds, of clips and of both; the true mean is 0.7."""
    rng = np.random.default_rng(3)
    of_seed, of_clip, of_both = spreads
    hits, draws = 0, 1500
    for _ in range(draws):
        table = 0.7 + of_seed * rng.normal(size=(seeds, 1)) + of_clip * rng.normal(size=(1, clips))
        table = table + of_both * rng.normal(size=(seeds, clips))
        _, low, high, _ = crossed_interval(table, 0.95)
        hits += low <= 0.7 <= high
    # Satterthwaite's approximation; 1,500 draws leave a standard error of .006.
    assert 0.91 <= hits / draws <= 0.99


def test_one_clip_gives_students_interval_over_seeds_and_one_seed_none() -> None:
    mean, low, high, degrees = crossed_interval(np.array([[1.0], [2.0], [3.0]]), 0.95)
    assert (mean, degrees) == (2.0, 2)
    assert high - mean == pytest.approx(4.3027 / 3**0.5, rel=1e-4)  # t(.975, 2) s / sqrt(3)
    assert mean - low == pytest.approx(high - mean)
    assert np.isnan(crossed_interval(np.ones((1, 9)), 0.95)[1])


def values_of(arm: str, table: np.ndarray, measure: Measure = LOSS) -> list[Value]:
    return [
        Value(measure, arm, seed, f"clip-{clip}", float(value))
        for seed, row in enumerate(table)
        for clip, value in enumerate(row)
    ]


def test_pairing_removes_what_seeds_and_clips_share() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(3, 1)) + rng.normal(size=(1, 12))
    noise = 0.01 * rng.normal(size=(2, 3, 12))
    found = compare(
        values_of("a", shared + 0.1 + noise[0]), values_of("b", shared + noise[1]), 0.95
    )
    assert found is not None
    assert found.resolved
    assert found.low < 0.1 < found.high
    assert found.high - found.low < 0.06  # unpaired it would be over 1
    assert (found.seeds, found.clips) == (3, 12)


def test_only_seeds_and_clips_that_both_arms_have_are_compared() -> None:
    table = np.arange(12.0).reshape(3, 4)
    one = [v for v in values_of("a", table + 1) if v.seed != 1]
    two = [v for v in values_of("b", table) if v.clip != "clip-2"]
    found = compare(one, two, 0.95)
    assert found is not None
    assert (found.mean, found.seeds, found.clips) == (1.0, 2, 3)
    assert compare(one, [], 0.95) is None
    broken = values_of("b", np.where(np.arange(3)[:, None] == 2, np.nan, table))
    left = compare(values_of("a", table), broken, 0.95)
    assert left is not None
    assert left.seeds == 2


def test_the_noise_floor_pools_arms_and_needs_two_seeds() -> None:
    mean, deviation, seeds = spread_over_seeds(values_of("a", np.array([[1.0, 3.0], [3.0, 5.0]])))
    assert (mean, seeds) == (3.0, 2)
    assert deviation == pytest.approx(2**0.5)
    assert noise_floor([(1.0, 2), (2.0, 4)]) == pytest.approx(((1 + 3 * 4) / 4) ** 0.5)
    assert np.isnan(noise_floor([(float("nan"), 1)]))


def test_a_verdict_says_better_only_where_the_interval_lies_on_one_side() -> None:
    rng = np.random.default_rng(1)
    base = 0.3 + 0.001 * rng.normal(size=(3, 8))
    clear = [*values_of("new", base - 0.03), *values_of("old", base)]
    row = summarise(clear, ["old", "new"], "old", 0.95)[1]
    assert "new is better than old by −" in verdict(row, "old")
    assert "%" in verdict(row, "old")
    rng = np.random.default_rng(2)
    shares = [
        *values_of("new", rng.random((3, 8)), SHARE), *values_of("old", rng.random((3, 8)), SHARE),
    ]  # fmt: skip
    row = summarise(shares, ["old", "new"], "old", 0.95)[1]
    assert row["resolved"] == "no"
    assert "no difference that 3 seeds can show" in verdict(row, "old")
    alone = summarise(values_of("old", base), ["old", "new"], "old", 0.95)[1]
    assert "share no finished seed" in verdict(alone, "old")


def test_values_survive_their_file(tmp_path: Path) -> None:
    values = [Value(Measure(HOSTILE, "rooms, tall", "share", "higher"), "a b", 3, "x,y", 0.25)]
    write_values(tmp_path / "values.csv", values)
    assert read_values(tmp_path / "values.csv") == values
    (tmp_path / "values.csv").write_text("measure,group\n1,2\n")
    with pytest.raises(ValueError, match=r"values\.csv:2: .* Needs the columns measure, group"):
        read_values(tmp_path / "values.csv")


# The page.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a finished study with a hostile caption, arm and failure, and one failed run."""
    folder = tmp_path / "study"
    rng = np.random.default_rng(0)
    arms = ["native", "$square$ <b>"]
    values: list[Value] = []
    for arm, shift in zip(arms, (0.02, 0.0), strict=True):
        table = 0.5 + 0.01 * rng.normal(size=(3, 6))
        values += values_of(arm, table + shift) + values_of(arm, table + 5 * shift, SHARE)
    folder.mkdir()
    write_values(folder / "values.csv", values)
    write_csv(folder / "summary.csv", SUMMARY_COLUMNS, summarise(values, arms, arms[1], 0.95))
    columns = ("name", "arm", "seed", "status", "reason", "loss", "epochs")
    rows = [
        {"name": f"{arm}-s{seed}", "arm": arm, "seed": seed, "status": "finished", "loss": 0.5,
         "epochs": 6.5}
        for arm in arms for seed in range(3)
    ]  # fmt: skip
    rows[-1] |= {"status": "missing", "reason": f"killed {HOSTILE}", "loss": None}
    write_csv(folder / "runs.csv", columns, rows)
    write_mp4(folder / "samples" / "a.mp4", rng.integers(0, 255, (5, 32, 48, 3), np.uint8))
    shown = {
        "text": HOSTILE, "captions": "dense", "shape": "5 × 32 × 48, wide",
        "files": {arms[0]: "samples/a.mp4", arms[1]: "../../../etc/passwd"},
        "held_out": "samples/a.mp4",
    }  # fmt: skip
    (folder / "samples.json").write_text(json.dumps({"seed": 0, "rows": [shown]}))
    study = {
        "kind": "arms", "name": "fram<ing", "question": HOSTILE, "cost": HOSTILE,
        "expected": "More.", "command": "kinescale run study=x", "level": 0.95,
        "arms": {arms[0]: [], arms[1]: [HOSTILE]}, "reference": arms[1], "flops": 1e12,
        "config": {"note": HOSTILE}, "seconds": 300.0, "env": {"python": "3.11"},
        "probe": [{"measure": SHARE.name, "what": HOSTILE, "value": 0.01, "clips": 8}],
        "probe_notes": [HOSTILE], "held_out": [],
        "failures": [{"phase": "train", "job": "square-s2", "reason": "exit status 1",
                      "last_line": HOSTILE}],
    }  # fmt: skip
    (folder / "study.json").write_text(json.dumps(study))
    return folder


@pytest.mark.heavy
def test_the_page_answers_shows_failures_and_stays_one_file(folder: Path) -> None:
    page = build_arms_report(folder).read_text()
    assert "is better than" in page  # the share, which the study asks about
    assert "square-s2 failed in “train”: exit status 1" in page
    assert "left out of every comparison" in page
    assert "saw every clip more than 4 times" in page
    assert page.count("data:video/mp4;base64,") == 2
    assert "passwd" in page  # named in the note, not read
    assert re.findall(r'(?:src|href)="(?!data:|#)', page) == []
    assert (folder / "report" / "figures" / "differences.png").stat().st_size > 5000
    assert page.count("<svg") == 2


@pytest.mark.heavy
def test_hostile_text_stays_text(folder: Path) -> None:
    page = build_arms_report(folder).read_text()
    assert "<script>alert" not in page
    assert "<img src=https" not in page
    assert page.count("<script>") == 2  # the page's own and the explorer's
    assert page.count("&lt;script&gt;alert") >= 5
    assert "fram<ing" not in page


def test_the_report_command_knows_the_kind_of_a_study(folder: Path, capsys) -> None:
    assert report_main([str(folder)]) == 0
    assert "Comparison at equal compute" in (folder / "report/index.html").read_text()


@pytest.mark.heavy
@pytest.mark.parametrize("broken", ["study.json", "summary.csv", "values.csv", "samples.json"])
def test_a_missing_file_becomes_a_note(folder: Path, broken: str) -> None:
    (folder / broken).unlink()
    assert f"{broken} " in build_arms_report(folder).read_text()


def test_a_summary_without_numbers_does_not_break_the_page(folder: Path) -> None:
    rows = list(csv.DictReader((folder / "summary.csv").read_text().splitlines()))
    for row in rows:
        row |= dict.fromkeys(("difference", "low", "high", "mean"), "")
    write_csv(folder / "summary.csv", SUMMARY_COLUMNS, rows)
    assert "could not be compared" in build_arms_report(folder).read_text()


@pytest.mark.heavy
def test_one_resolved_measure_among_many_is_no_finding(folder: Path) -> None:
    rows = list(csv.DictReader((folder / "summary.csv").read_text().splitlines()))
    compared = next(row for row in rows if row["resolved"])
    many = [compared | {"measure": f"measure {i}", "resolved": "no"} for i in range(20)]
    many[3] |= {"resolved": "yes"}
    write_csv(folder / "summary.csv", SUMMARY_COLUMNS, many)
    page = build_arms_report(folder).read_text()
    assert "1 of 20 measures differs between the arms, about as many as chance alone" in page
