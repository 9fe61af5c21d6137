"""The study's W&B run and report, both offline."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeps.kinds.compose import compose_any
from sweeps.kinds.isoflop.config import StudyConfig
from sweeps.kinds.isoflop.run import IsoflopRunner
from sweeps.report.inputs.isoflop import read_inputs
from sweeps.report.pages.isoflop import build_report
from sweeps.report.tables.isoflop import Cell, Table
from sweeps.run import run_study
from sweeps.summary import (
    LOG_FILE,
    log_summary,
    plain_table,
    send_summary,
    summary_mode,
    summary_numbers,
)
from sweeps.summary import main as summary_main
from sweeps.workspaces import available, main
from trainer.log_config import WandbMode
from trainer.mirror.tail import read_sent

from .study_files import BUDGETS, HOSTILE, make_law, write_runs

needs_workspaces = pytest.mark.skipif(
    not available(), reason="wandb-workspaces is not installed (the workspaces extra)"
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    """A study with its page, whose question is hostile."""
    root = tmp_path_factory.mktemp("wandb")
    study = StudyConfig(name="tiny", root=str(root), budgets=list(BUDGETS), question=HOSTILE)
    study.folder.mkdir()
    rows = write_runs(study.folder, np.random.default_rng(1))
    (study.folder / "law.json").write_text(json.dumps(make_law(rows)))
    about = {"name": study.name, "question": study.question}
    (study.folder / "study.json").write_text(json.dumps(about))
    build_report(study.folder)
    return study


def read_wandb(folder: Path) -> list[dict[str, Any]]:
    """Read the records of a run's offline W&B file."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # wandb's and protobuf's own
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # wandb keeps its service's socket open
def test_the_summary_run_holds_law_tables_figures_and_files(
    study: StudyConfig,
) -> None:
    law = json.loads((study.folder / "law.json").read_text())
    log_summary(study.folder, WandbMode.offline, "tests")
    records = read_wandb(study.folder)
    (started,) = [r["run"] for r in records if r["type"] == "run"]
    assert (started["run_group"], started["tags"]) == ("tiny", ["law", "chinchilla"])
    assert (started["job_type"], started["display_name"]) == ("law", "tiny-law")
    # Of its own: in one project two people may have studies of one name.
    assert started["run_id"] == read_sent(study.folder).id
    assert re.fullmatch(r"tiny-[0-9a-f]{8}", started["run_id"])
    (item,) = [r["history"]["item"] for r in records if r["type"] == "history"]
    item = {key.split(".")[0]: value for key, value in item.items()}  # media are flat: a.path
    tables = {key for key in item if key.startswith("tables/")}
    assert tables >= {"tables/checklist", "tables/exponents", "tables/frontier", "tables/groups"}
    figures = {key for key in item if key.startswith("figures/")}
    assert figures == {f"figures/{p.stem}" for p in (study.folder / "report/figures").glob("*.svg")}
    assert {"runs", "report", "law_figure"} <= set(item)
    summary: dict[str, Any] = {}
    for record in records:
        summary |= record.get("summary", {}).get("update", {})
    assert summary["law/alpha"] == law["coefficients"]["alpha"]
    assert summary["exponent/approach_1"] == 0.49
    artifacts = [r["artifact"] for r in records if r["type"] == "artifact"]
    assert "tiny-study" in {artifact["name"] for artifact in artifacts}
    assert (study.folder / "wandb_report.json").exists() == available()


@pytest.mark.heavy
def test_where_the_base_sends_its_runs_the_summary_goes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(IsoflopRunner, "run", lambda self: None)  # its runs are there already
    for mode in ("disabled", "offline"):
        base = ["experiment=cpu_smoke", f"log.wandb={mode}", "log.project=mine"]
        study = StudyConfig(name=mode, root=str(tmp_path), budgets=list(BUDGETS), base=base)
        study.folder.mkdir()
        rows = write_runs(study.folder, np.random.default_rng(1))
        (study.folder / "law.json").write_text(json.dumps(make_law(rows)))
        (study.folder / "study.json").write_text('{"kind": "isoflop", "name": "tiny"}')
        assert run_study(study, []) == 0
    assert not (tmp_path / "disabled/wandb").exists()
    records = read_wandb(tmp_path / "offline")
    (started,) = [r["run"] for r in records if r["type"] == "run"]
    assert started["project"] == "mine"
    (alert,) = [r["alert"] for r in records if r["type"] == "alert"]
    assert (alert["title"], alert["level"]) == ("tiny: ended", "INFO")


def test_a_disabled_wandb_writes_nothing(tmp_path: Path) -> None:
    assert send_summary(tmp_path, WandbMode.disabled, "tests", 1.0)
    assert list(tmp_path.iterdir()) == []


def test_a_summary_goes_where_the_runs_go_or_less_far() -> None:
    offline, online, disabled = WandbMode.offline, WandbMode.online, WandbMode.disabled
    assert summary_mode(online, {}) is online
    assert summary_mode(disabled, {"WANDB_MODE": "online"}) is disabled
    assert summary_mode(offline, {"WANDB_MODE": "run"}) is offline
    assert summary_mode(online, {"WANDB_MODE": "dryrun"}) is offline
    assert summary_mode(online, {"WANDB_MODE": "disabled"}) is disabled
    with pytest.raises(ValueError, match="WANDB_MODE=shared: is no mode of a study"):
        summary_mode(offline, {"WANDB_MODE": "shared"})


def test_a_wandb_mode_that_is_none_is_refused_before_any_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "shared")
    study = compose_any(["study=demo", f"root={tmp_path}"])
    with pytest.raises(ValueError, match="WANDB_MODE=shared"):
        run_study(study, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.heavy
def test_a_summary_that_fails_is_a_line_and_ends_nothing(tmp_path: Path, capsys) -> None:
    assert not send_summary(tmp_path, WandbMode.offline, "tests", 60.0)
    line = capsys.readouterr().err
    assert f"ended with status 2: {tmp_path / LOG_FILE}" in line
    assert f"kinescale summary {tmp_path} mode=online" in line
    assert "has no page" in (tmp_path / LOG_FILE).read_text()
    assert not send_summary(tmp_path / "none", WandbMode.offline, "tests", 60.0)
    assert "cannot be started" in capsys.readouterr().err


@pytest.mark.heavy
def test_a_summary_that_hangs_is_ended_in_time(study: StudyConfig, capsys) -> None:
    started = time.monotonic()
    assert not send_summary(study.folder, WandbMode.offline, "tests", 0.05)
    assert time.monotonic() - started < 30
    assert "did not end in 0.05 s" in capsys.readouterr().err


@pytest.mark.heavy
def test_the_command_sends_and_refuses_what_it_does_not_know(study: StudyConfig, capsys) -> None:
    assert summary_main([str(study.folder), "mode=shared"]) == 2
    assert "mode=shared: is not known" in capsys.readouterr().err
    assert summary_main([str(study.folder), "moed=online"]) == 2
    assert summary_main([str(study.folder), "seconds=long"]) == 2
    assert summary_main([str(study.folder), "mode=disabled"]) == 0


def test_a_column_of_a_table_has_one_type() -> None:
    cells = [[Cell("a", 1.0), Cell("x", 2.0)], [Cell("–"), Cell("y")]]
    names, values = plain_table(Table("t", ("", "b"), cells))
    assert names == ["name", "b"]
    assert values[0] == [1.0, "x"]
    assert np.isnan(values[1][0])
    assert values[1][1] == "y"


def test_numbers_of_an_unfitted_law_are_none() -> None:
    assert summary_numbers({"coefficients": None, "held_out": None, "exponents": None}) == {}


@pytest.mark.heavy
@needs_workspaces
def test_the_report_is_a_definition_that_needs_no_login(study: StudyConfig, capsys) -> None:
    assert main([str(study.folder), "--project", "mine"]) == 0
    path = Path(capsys.readouterr().out.strip())
    found = json.loads(path.read_text())
    assert "--publish ENTITY" in found["how_to_publish"]
    report = found["report"]
    assert report["displayName"] == "tiny: scaling law"
    assert report["project"]["name"] == "mine"
    text = json.dumps(report["spec"], ensure_ascii=False)
    assert "A is not identified" in text
    assert "22 of 24 starts reach the best optimum" in text
    (grid,) = [b for b in report["spec"]["blocks"] if b["type"] == "panel-grid"]
    (runs,) = grid["metadata"]["runSets"]
    (kept,) = runs["filters"]["filters"]
    assert (kept["key"]["name"], kept["op"], kept["value"]) == ("group", "=", "tiny")
    assert "Loss against compute" in json.dumps(found["workspace"])


@needs_workspaces
def test_a_hostile_study_name_is_no_filter(study: StudyConfig, tmp_path: Path, capsys) -> None:
    (tmp_path / "study.json").write_text(json.dumps({"name": "it's' or 1 == \"1"}))
    assert main([str(tmp_path)]) == 0
    report = json.loads((tmp_path / "wandb_report.json").read_text())["report"]
    (grid,) = [b for b in report["spec"]["blocks"] if b["type"] == "panel-grid"]
    assert grid["metadata"]["runSets"][0]["filters"]["filters"] == []


def test_what_cannot_be_published_is_an_error_with_a_remedy(
    study: StudyConfig, tmp_path: Path, monkeypatch, capsys
) -> None:
    assert main([str(tmp_path / "none")]) == 2
    assert "must be a folder" in capsys.readouterr().err
    monkeypatch.setattr("sweeps.workspaces.available", lambda: False)
    assert main([str(study.folder)]) == 2
    assert 'pip install "kinescale[workspaces]"' in capsys.readouterr().err
    assert read_inputs(study.folder).study["name"] == "tiny"
