"""The table of a study's runs before anything starts: its costs, what exists, what it assumes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from data.dataset.shards import read_index
from launch.planner.machine import load_machine
from sweeps.kinds.catalogue import plan_study
from sweeps.kinds.compose import compose_any
from sweeps.plan.__main__ import main
from sweeps.plan.table import Estimator, doubts, makespan, totals
from sweeps.study.clips import Clips
from tests.trainer.conftest import write_latents
from trainer.identity import run_name

BASE = 'base=["experiment=cpu_smoke","data.root=nowhere"]'


def planned_json(capsys, *arguments):
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Return the smoke study without a data set, planned once: composing is what takes time."""
    clips = Clips()
    root = tmp_path_factory.mktemp("plan")
    return plan_study(compose_any(["study=smoke", f"root={root}", BASE]), clips), clips


def folder_of(expected):
    run = expected.compose()
    folder = Path(run.run_root) / run_name(run)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.heavy
def test_an_isoflop_study_is_planned_without_a_pilot_and_without_a_data_set(tmp_path, capsys):
    plan = planned_json(capsys, "study=smoke", f"root={tmp_path}", BASE)
    assert [run["phase"] for run in plan["runs"]] == ["pilot"] + 4 * ["grid"]
    for run in plan["runs"]:
        budget = 2e8 if run["phase"] == "pilot" else 4e8 if "c4e08" in run["name"] else 1.2e9
        step = run["flops"] / run["steps"]
        assert run["state"] == "missing"
        assert abs(run["flops"] - budget) <= step / 2  # whole steps
        assert run["tokens"] == pytest.approx(run["steps"] * run["batch_tokens"])
        assert run["checkpoint_bytes"] > 16 * run["params"]
    total = plan["totals"]
    assert total["runs"] == total["missing"] == 5
    assert total["flops"] == pytest.approx(sum(run["flops"] for run in plan["runs"]))
    assert total["money"] == pytest.approx(0.05 * total["device_hours"])
    notes = " ".join(plan["notes"])
    assert "no data set at nowhere/train" in notes
    assert "no pilot run has ended" in notes
    assert "N = 3e+04" in notes


@pytest.mark.heavy
def test_a_finished_pilot_centres_the_grid(tmp_path):
    words = ["study=smoke", f"root={tmp_path}", BASE]
    study = compose_any(words)
    before = plan_study(study, Clips())
    result = {"status": "finished", "params": 1.2e5, "loss": 0.5}
    (folder_of(before.runs[0]) / "result.json").write_text(json.dumps(result))
    after = plan_study(study, Clips())
    assert "N = 1.2e+05" in " ".join(after.notes)
    assert "Assumed: no pilot" not in " ".join(after.notes)
    names = [[expected.spec.name for expected in plan.runs] for plan in (before, after)]
    assert names[0][0] == names[1][0]
    assert names[0][1:] != names[1][1:]


@pytest.mark.heavy
def test_what_exists_is_not_to_be_done_again(smoke):
    planned, clips = smoke
    machine = load_machine("cpu2")
    (folder_of(planned.runs[0]) / "result.json").write_text('{"status": "finished"}')
    part = folder_of(planned.runs[1])
    (part / "metrics.jsonl").write_text('{"step": 5, "flops": 1e8}\n{"step": 6, "fl')
    rows = [Estimator(machine, clips).row(expected) for expected in planned.runs]
    assert [row.state for row in rows] == ["finished", "partial"] + 3 * ["missing"]
    assert rows[1].done == pytest.approx(1e8 / rows[1].flops)
    total = totals(rows, planned, machine, 2)
    assert (total.finished, total.partial, total.missing) == (1, 1, 3)
    assert total.flops_left == pytest.approx(total.flops - rows[0].flops - 1e8)


def test_hours_follow_the_machine_and_money_its_price(smoke):
    planned, clips = smoke
    slow, fast = load_machine("cpu2"), load_machine("h100", ["price.per_device_hour=10"])
    one, other = (Estimator(m, clips).row(planned.runs[0]) for m in (slow, fast))
    assert one.flops == other.flops
    assert one.device_hours > other.device_hours
    assert one.money == pytest.approx(0.05 * one.device_hours)
    assert other.money == pytest.approx(10 * other.device_hours)


def test_a_disk_that_is_too_small_is_said(smoke):
    planned, clips = smoke
    machine = load_machine("cpu2")
    rows = [Estimator(machine, clips).row(expected) for expected in planned.runs[:1]]
    total = totals(rows, planned, machine, 2)
    assert not [d for d in doubts(rows, total) if d.name == "disk"]
    full = replace(total, disk_free_bytes=total.disk_bytes)
    assert [d for d in doubts(rows, full) if d.name == "disk"]


def test_a_study_of_arms_is_planned_and_printed(tmp_path, capsys):
    assert main(["study=arms_smoke", f"root={tmp_path}", "price=2", "seeds=[0]"]) == 0
    text = capsys.readouterr().out
    for word in ("dense-s0", "short-s0", "2 missing", "2 devices of cpu2", "USD", "Disk"):
        assert word in text


@pytest.mark.heavy
def test_rounding_by_more_than_a_tenth_is_warned_of(tmp_path):
    def doubts_of(*words):
        base = 'base=["experiment=cpu_demo","data.root=nowhere"]'
        study = compose_any(
            ["study=demo", f"root={tmp_path}", base, "pilot.params=[3.7e4]", *words]
        )
        runs = plan_study(study, Clips()).runs
        return "\n".join(doubt.text for expected in runs for doubt in expected.doubts)

    assert doubts_of() == ""  # a grid's sizes may be rounded by less than half of its spacing
    text = doubts_of("recipe.batch_tokens=1100", "grid.spacing=1.15")
    assert "batch in tokens: 1100 was asked, 1 whole pack of 768 makes 768 (-30%)" in text
    assert "parameters: " in text


@pytest.mark.heavy
def test_shapes_that_bend_a_law_are_noted(tmp_path):
    study = ["study=demo", f"root={tmp_path}", 'base=["experiment=cpu_demo","data.root=nowhere"]']
    notes = " ".join(plan_study(compose_any(study), Clips()).notes)
    assert "Widths 16, 24 are below a token's 32 values" in notes
    assert "ask for objective.prediction=data" in notes
    assert "Some sizes have one head and others 2: they" in notes
    data = '["experiment=cpu_demo","data.root=nowhere","objective.prediction=data"]'
    notes = " ".join(plan_study(compose_any([*study[:2], f"base={data}"]), Clips()).notes)
    assert "Widths 16, 24 are below" in notes
    assert "ask for objective" not in notes
    even = plan_study(compose_any([*study, "grid.min_params=1e5", "grid.heads=2"]), Clips())
    assert "Widths" not in " ".join(even.notes)
    assert "one head" not in " ".join(even.notes)
    models = [expected.compose().model for expected in even.runs if expected.spec.phase == "grid"]
    assert {model.num_heads for model in models} == {2}
    assert len({model.width for model in models}) > 3


@pytest.mark.parametrize(
    ("heads", "rule"), [(-1, "at least 0"), (3, "1, 2 or 4"), (5, "at most 4")]
)
def test_a_number_of_heads_that_narrow_sizes_cannot_have_is_refused(heads, rule):
    with pytest.raises(ValueError, match=f"grid.heads={heads}: must be {rule}"):
        compose_any(["study=demo", f"grid.heads={heads}"])


def test_the_longest_run_starts_first_on_free_devices():
    assert makespan([(1, 1), (1, 1), (2, 1)], 2) == 2
    assert makespan([(3, 2), (1, 1), (1, 1)], 2) == 4
    assert makespan([(3, 8)], 2) == 3


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("devices=none", "devices=none: must be a whole number"),
        ("clip=big", "clip=big: must be FRAMESxHEIGHTxWIDTH"),
        ("machine=abacus", "machine=abacus: unknown choice"),
        ("grid.sizes=0", "grid.sizes=0"),
        ("--jsn", "--jsn: is not an option"),
    ],
)
def test_a_bad_option_is_named(capsys, argument, said):
    assert main(["study=smoke", argument]) == 2
    found = capsys.readouterr().err
    assert found.startswith("error: ")
    assert said in found


@pytest.mark.heavy
def test_doubts_of_one_kind_are_one_line_and_all_are_in_json(tmp_path, capsys):
    words = ["study=demo", f"root={tmp_path}", 'base=["experiment=cpu_demo","data.root=nowhere"]']
    words += ["pilot.params=[3.7e4]", "grid.spacing=1.15", "recipe.batch_tokens=1100"]
    assert main(words) == 0
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if line.startswith("  - ")]
    kinds = [line.split(":")[0] for line in lines]
    assert len(kinds) == len(set(kinds))
    (batch,) = [line for line in lines if line.startswith("  - batch in tokens: ")]
    assert " runs, the worst " in batch
    assert main([*words, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    every = [doubt for run in plan["runs"] for doubt in run["doubts"]]
    assert sum("batch in tokens: " in doubt for doubt in every) == int(batch.split()[4])
    assert len(plan["warnings"]) >= len(every)
    assert all(run["passes"] is None for run in plan["runs"])
    assert "Clips: a run meets" not in text


@pytest.mark.heavy
def test_how_often_a_run_meets_its_clips_is_said_where_they_are(tmp_path, capsys):
    root = write_latents(tmp_path / "latents", samples=12)
    words = ["study=smoke", f"root={tmp_path}", f'base=["experiment=cpu_smoke","data.root={root}"]']
    assert main([*words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["runs"]
    cell = compose_any(words)
    run = plan_study(cell, Clips()).runs[0].compose()
    frames, height, width = run.cell
    once = sum(
        (1 + -(-(i.num_frames - 1) // frames)) * -(-i.height // height) * -(-i.width // width)
        for i in read_index(root, "train")
    )
    assert [row["passes"] for row in rows] == pytest.approx([r["tokens"] / once for r in rows])
    most = max(row["passes"] for row in rows)
    assert most > 4
    assert main(words) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"to {most:,.0f} times" in text or f"to {most:.2g} times" in text
    assert "- clips: " in text
    assert "times each. Beyond 4 repeated data is worth less than new" in text
    half = [w.replace('"]', '","data.limit=0.5"]') if w.startswith("base") else w for w in words]
    assert main([*half, "--json"]) == 0
    halved = json.loads(capsys.readouterr().out)["runs"]
    assert halved[0]["passes"] > 1.5 * rows[0]["passes"]
