"""What a script tells of its end before the supervisor runs, by bash as it is."""

import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from data.files import write_json
from launch.run_folder.records import append_launch, read_launches
from launch.run_folder.runs import RunFolder
from launch.slurm.plan import RUNS_FILE, SubmitPlan
from launch.slurm.render import render
from launch.state import state_of

from ..plans import make_plan

MODULE = """
module() {
  if [ "$1" = use ]; then paths=$2; return; fi
  if [ "$2" != there ]; then echo "ERROR: no \\"module\\" $2 in $paths" >&2; return 1; fi
}
unset_is_fine=$NO_SUCH_VARIABLE
"""


def run_script(plan: SubmitPlan, index: int = 0, **variables: str) -> tuple[int, str]:
    """Run a plan's script as a node does; return its status and what was printed."""
    plan.folder.mkdir(parents=True)
    for task in plan.tasks:
        task.run_dir.mkdir(exist_ok=True)
        (task.run_dir / "config.yaml").write_text("name: run\n")
    (plan.folder / RUNS_FILE).write_text("".join(f"{task.run_dir}\n" for task in plan.tasks))
    script = plan.folder / "job.sh"
    # As on a node whose own modules are not those of this machine.
    script.write_text(re.sub("/(etc|usr)/[a-z/.]*(lmod|modules)", "/nowhere", render(plan)))
    single = len(plan.tasks) == 1
    numbers = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(index)} if not single else {}
    out = plan.folder / ("9.out" if single else f"7_{index}.out")
    with out.open("w") as file:
        done = subprocess.run(
            ["bash", str(script)], stdout=file, stderr=file,
            env={"PATH": os.environ["PATH"], "SLURM_JOB_ID": "9", **numbers, **variables},
        )  # fmt: skip
    return done.returncode, out.read_text()


def told(plan: SubmitPlan, index: int = 0) -> str:
    """Return what status says of a run, and check that the log says so too."""
    run_dir = plan.tasks[index].run_dir
    state = state_of(RunFolder("run", run_dir), [])
    assert state.state == "failed"
    assert state.reason[:40] in (run_dir / "log.txt").read_text()
    (record,) = read_launches(run_dir)
    assert record["job_name"] == plan.job_name
    assert json.dumps(record)
    return state.reason


def prologue(folder: Path, *lines: str) -> str:
    """Write a site's file."""
    path = folder / 'it\'s a "site".sh'
    path.write_text("\n".join((*lines, "")))
    return str(path)


def test_a_missing_module_is_told_by_its_line_and_its_message(tmp_path: Path) -> None:
    site = prologue(tmp_path, MODULE)
    plan = make_plan(
        tmp_path,
        ("a", "b"),
        prologue=site,
        module_paths=["/site's own"],
        modules=["there", "no\\w"],
    )
    status, _ = run_script(plan, 1)
    assert status == 1
    reason = told(plan, 1)
    assert "of job.sh: module load 'no\\w': ERROR: no \"module\" no\\w in /site's own" in reason
    assert not (plan.tasks[0].run_dir / "log.txt").exists()
    assert "ERROR: no" in (plan.tasks[1].run_dir / "log.txt").read_text().splitlines()[-1]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["true", "ls /no/such/$(echo x)"], "line 2 of it's a \"site\".sh: ls /no/such/$(echo x)"),
        (["fails() { false; }", "", "fails 1"], "line 3 of it's a \"site\".sh: fails 1"),
        (["echo 'the quota is \"used\"\\up' >&2", "exit 3"],
         ".sh': the quota is \"used\"\\up"),
        (["set -u", "echo $NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE: unbound variable"),
        (["if"], "syntax error"),
        (["echo 'Lmod ERROR: no such module'; echo; echo 'Check its name.'; echo", "false"],
         "line 2 of it's a \"site\".sh: false: Lmod ERROR: no such module"),
    ],
)  # fmt: skip
def test_a_failing_line_of_the_sites_file_is_told(
    tmp_path: Path, lines: list[str], words: str
) -> None:
    plan = make_plan(tmp_path, prologue=prologue(tmp_path, *lines))
    status, _ = run_script(plan)
    assert status != 0
    assert words in told(plan)


@pytest.mark.parametrize(
    "line", ["export A=planted-0123; false", "A=planted-0123 false", "fetch -H 'Bearer planted-0'"]
)
def test_a_line_that_may_hold_a_key_is_not_told(tmp_path: Path, line: str) -> None:
    plan = make_plan(tmp_path, prologue=prologue(tmp_path, "fetch() { false; }", line))
    run_script(plan)
    assert "line 2 of" in told(plan)
    assert not any("planted" in p.read_text() for p in plan.tasks[0].run_dir.iterdir())


def test_an_interpreter_that_is_missing_is_told(tmp_path: Path) -> None:
    plan = replace(make_plan(tmp_path), python="/no/such/python")
    assert run_script(plan)[0] == 127
    assert "cluster.slurm.python: cannot be run on this node" in told(plan)


def test_a_node_without_modules_says_so(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, modules=["there"])
    assert run_script(plan)[0] == 1
    assert 'there is no command "module" on this node' in told(plan)


def test_modules_are_found_where_the_site_says(tmp_path: Path) -> None:
    init = tmp_path / "lmod" / "init"
    init.mkdir(parents=True)
    (init / "bash").write_text(f"{MODULE}\nfalse\n")  # what it ends with says nothing
    plan = replace(make_plan(tmp_path, modules=["there"]), python="/bin/true")
    assert run_script(plan, MODULESHOME=str(init.parent)) == (0, "")
    assert read_launches(plan.tasks[0].run_dir) == []


def test_a_log_is_printed_where_the_run_itself_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from launch.logs import main

    run, folder = tmp_path / "run", tmp_path / "submission"
    for path in (run, folder):
        path.mkdir()
    (run / "config.yaml").touch()
    write_json(folder / "job.json", {"ids": ["7"]})
    write_json(run / "submission.json", {"job_name": "x", "index": 3, "folder": str(folder)})
    (folder / "7_3.out").write_text("slurmstepd: error: \x1b[2Jno space\n")
    assert main([str(run)]) == 0
    assert "slurmstepd: error: ?[2Jno space" in capsys.readouterr().out
    append_launch(run, "end", reason="x")
    (run / "log.txt").write_text("its own\n")
    assert main([str(run)]) == 0
    assert capsys.readouterr().out == "its own\n"
