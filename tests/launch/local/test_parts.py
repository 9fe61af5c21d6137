"""launch.local.parts: a task of several commands, and what all its starts took."""

import json
from pathlib import Path

import pytest

from launch.local.parts import run_parts


def test_the_end_says_what_all_starts_took_together(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ledger = tmp_path / "runs" / "demo-starts.json"
    good, bad = ("says", ["--version"]), ("fails", ["comapre"])
    assert run_parts([good, bad], ledger) == 2
    assert "stopped with status 2" in capfd.readouterr().err
    counted = json.loads(ledger.read_text())
    assert counted["starts"] == 1
    assert 0 < counted["seconds"] < 60
    ledger.write_text(json.dumps(counted | {"seconds": 600.0}))
    assert run_parts([good], ledger) == 0
    last = capfd.readouterr().out.splitlines()[-1]
    assert last.startswith("finished in 0 min ")
    assert "; all 2 starts together took 10 min " in last
    ledger.write_text("{broken")
    assert run_parts([good], ledger) == 0
    assert "together" not in capfd.readouterr().out
