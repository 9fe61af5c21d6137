"""The command for the first person with a GPU: here it is shown to run, and to notice failures."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.attention import attend_segments
from models.config import AttentionKernel
from models.kernels import Chosen
from trainer.diffusion.attempt import train_run
from trainer.gpu_checks import check as gpu_check
from trainer.gpu_checks import layouts
from trainer.gpu_checks.curve import Curve, largest_error
from trainer.gpu_checks.layouts import Job
from trainer.gpu_checks.report import (
    WIDTHS,
    Case,
    Finding,
    Row,
    Settings,
    Skip,
    Verdict,
    heading,
    relative,
    run_cases,
    within,
)
from trainer.identity import freeze

from ..conftest import compose_smoke

ROOT = Path(__file__).parents[3]
CURVE = Curve([1.0, 0.9], [2.0, 1.9], [0.1, 0.1], 0, 100, 1000)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ)
    return subprocess.run(
        [sys.executable, "-m", "trainer.gpu_checks", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def parse_table(text: str) -> list[dict[str, str]]:
    """Return the rows of the printed table as dicts by column."""
    lines = text.splitlines()
    first = lines.index(heading().splitlines()[0])
    names = [name.strip() for name in lines[first].split(" | ")]
    assert names == list(WIDTHS)
    rows = [line.split(" | ") for line in lines[first + 2 : -1]]
    return [dict(zip(names, map(str.strip, row), strict=True)) for row in rows]


@pytest.mark.slow
@pytest.mark.dist
def test_every_check_runs_on_cpu_and_passes_or_says_why_not(tmp_path: Path) -> None:
    done = command("--device", "cpu", "--quick", "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert gpu_check.UNPROVEN in done.stdout
    assert "nothing about a GPU" in done.stdout
    rows = parse_table(done.stdout)
    assert {row["check"] for row in rows} == set(gpu_check.CHECKS)
    for row in rows:
        assert re.fullmatch(r"pass|skipped\(.+\)", row["verdict"]), row
        assert re.fullmatch(r"\d+\.\d", row["seconds"]), row
    passed = {row["check"] for row in rows if row["verdict"] == "pass"}
    assert passed == set(gpu_check.CHECKS) - {"memory"}
    ran = " ".join(row["compared"] for row in rows if row["verdict"] == "pass")
    for layout in ("dp2", "tp2", "cp2", "pp2", "ZeRO 3", "resumed", "recompute", "bf16"):
        assert layout in ran
    record = json.loads((tmp_path / "out.json").read_text())
    assert [row["compared"] for row in record["rows"]] == [row["compared"] for row in rows]


@pytest.mark.heavy
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_one_line_says_so_and_the_status_is_2() -> None:
    done = command()
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: device=cuda: ")
    assert "--device cpu" in line


def test_a_failing_case_does_not_stop_the_next() -> None:
    def broken() -> Finding:
        raise RuntimeError("no kernel\nsecond line")

    def absent() -> Finding:
        raise Skip("no flash-attn")

    works = [broken, absent, lambda: within(0.5, 0.1), lambda: within(0.05, 0.1)]
    rows = list(run_cases("attention", (Case(f"case {i}", w) for i, w in enumerate(works))))
    assert [str(row.verdict) for row in rows] == ["fail", "skipped", "fail", "pass"]
    assert str(rows[0]).endswith("fail(no kernel)")
    assert str(rows[1]).endswith("skipped(no flash-attn)")


def test_a_check_whose_process_dies_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "CHECKS", {"attention": 60})
    monkeypatch.setattr(sys, "executable", "false")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    assert gpu_check.main(["--device", "cpu"]) == 1


def test_a_check_that_takes_too_long_fails_and_is_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "CHECKS", {"attention": 0.2})
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    assert gpu_check.main(["--device", "cpu"]) == 1
    assert "took more than 0.2 s" in capsys.readouterr().out


@pytest.mark.parametrize("bad", [float("nan"), 1.5])
def test_wrong_values_are_noticed(bad: float) -> None:
    found, expected = torch.tensor([1.0, bad]), torch.tensor([1.0, 1.0])
    assert within(relative(found, expected), 1e-2).passed is False
    assert within(relative(expected, expected), 1e-2).passed is True
    wrong = Curve([1.0, bad], CURVE.norms, CURVE.seconds, 0, 100, 1000)
    assert within(largest_error(wrong, CURVE), 1e-2).passed is False
    assert within(largest_error(CURVE, CURVE), 1e-2).passed is True


def test_a_layout_that_dies_fails_alone_and_the_rest_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[list[Job]] = []

    def start(jobs: list[Job], *_: object) -> tuple[list[Curve], str]:
        started.append(jobs)
        return ([CURVE], "NCCL error") if len(jobs) == 4 else ([CURVE] * len(jobs), "")

    monkeypatch.setattr(layouts, "_start", start)
    jobs = list(layouts._jobs(1, quick=False))[:4]
    settings = Settings(torch.device("cpu"), quick=True)
    assert layouts._train(jobs, settings) == [CURVE, "NCCL error", CURVE, CURVE]
    assert started == [jobs, jobs[2:]]


@pytest.mark.parametrize(("world", "jobs"), [(1, 8), (2, 20), (4, 21), (8, 13), (16, 3)])
def test_every_layout_and_zero_stage_is_tried_once(world: int, jobs: int) -> None:
    found = list(layouts._jobs(world, quick=False))
    assert len(set(found)) == len(found) == jobs
    for job in found:
        job.parallel("cpu").check(layouts.TINY, layouts.PACKS)


@pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_training_computes_with_the_attention_chosen_for_its_device(
    latents: Path, group: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, calls = [], []

    def attend(*arguments: object) -> torch.Tensor:
        calls.append(len(arguments))
        return attend_segments(*arguments)

    def choose(asked_for: AttentionKernel, capability: object, dtype: object, head: int) -> Chosen:
        asked.append((asked_for, capability, dtype, head))
        return Chosen(AttentionKernel.loop, attend)

    monkeypatch.setattr("trainer.parallel.engine.choose_attention", choose)
    run = compose_smoke(latents, "horizon.steps=1")
    freeze(run, tmp_path)
    assert train_run(run, tmp_path, lambda: False)
    assert asked == [(AttentionKernel.auto, None, torch.float32, run.model.head_dim)]
    assert calls


def test_a_row_fits_its_columns() -> None:
    row = Row("speed", "a model", "1 token/s", "-", 1.25, Verdict.passed)
    places = [i for i, c in enumerate(heading().splitlines()[0]) if c == "|"]
    assert [i for i, c in enumerate(str(row)) if c == "|"] == places
