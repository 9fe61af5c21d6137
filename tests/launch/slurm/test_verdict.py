"""launch.slurm: what the end of an attempt means, and what follows from it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.slurm import task
from launch.slurm.commands import SlurmError, parse_queue, parse_version, run
from launch.slurm.job import JobView, job_id, parse_view
from launch.slurm.plan import make_plans
from launch.slurm.port import hold_port
from launch.slurm.rank import rank_environment, torchrun_command
from launch.slurm.snapshot import describe_code, snapshot, write_code
from launch.slurm.verdict import Ending, Signs, blamed_nodes, ended_attempt, judge, num_failures
from trainer.run.start import rank_command, start_processes

from ..plans import OLD, make_cluster, make_job


@pytest.mark.parametrize(
    ("signs", "outcome"),
    [
        (Signs(0, done=True, state="RUNNING"), "done"),
        (Signs(1, done=True, preempted=True, state="RUNNING"), "done"),
        (Signs(75, saved=True, preempted=True, state="RUNNING"), "stopped"),
        (Signs(143, saved=True, state="RUNNING"), "stopped"),  # the status did not survive srun
        (Signs(0, saved=True, told_to_stop=True, state=""), "stopped"),
        (Signs(0, state="RUNNING"), "failed"),  # srun hides a lost rank
        (Signs(137, state="RUNNING"), "failed"),
        (Signs(137, state=""), "failed"),  # a controller that is away says nothing about the job
        (Signs(76, stalled="rank 1 hangs", blamed=["n2"], state="RUNNING"), "stalled"),
        (Signs(1, refused="optim.lr=-1: must be above 0", state="RUNNING"), "refused"),
        (Signs(143, saved=True, state="COMPLETING"), "cancelled"),
        (Signs(75, saved=True, cancelled=True, state="RUNNING"), "cancelled"),
    ],
)
def test_an_ending_is_judged_by_what_the_run_left_behind(signs, outcome):
    assert Ending.of(signs).outcome == outcome


def test_what_follows_depends_on_the_ending_and_the_budget():
    failed, stopped = Ending("failed"), Ending("stopped", "told to stop")
    preempted = Ending("stopped", "preempted")
    assert judge(failed, 1, retries=3, chain=False) == "restart"
    assert judge(failed, 4, retries=3, chain=False) == "give up"
    assert judge(Ending.of(Signs(2, state="RUNNING")), 1, retries=3, chain=False) == "give up"
    assert judge(Ending.of(Signs(3, state="RUNNING")), 1, retries=3, chain=False) == "restart"
    assert judge(Ending("refused"), 1, retries=3, chain=False) == "give up"
    assert judge(Ending("stalled"), 1, retries=3, chain=False) == "requeue"
    assert judge(stopped, 0, retries=3, chain=False) == "requeue"
    assert judge(stopped, 0, retries=3, chain=True) == "nothing"
    assert judge(stopped, 4, retries=3, chain=True) == "give up"  # each link stands still
    assert judge(preempted, 9, retries=0, chain=True) == "requeue"  # nobody's fault
    assert judge(Ending("cancelled"), 0, retries=3, chain=False) == "nothing"


def start(checkpoint: str, name: str = "s", **fields: object) -> dict:
    return {"event": "start", "time": 0.0, "job_name": name, "checkpoint": checkpoint} | fields


def end(outcome: str, reason: str = "", name: str = "s") -> dict:
    return {"event": "end", "time": 0.0, "job_name": name, "outcome": outcome, "reason": reason}


def test_failures_count_since_the_last_new_checkpoint_and_preemption_is_none():
    lost = [start("8"), start("8")]  # the first was lost with its node: no end
    assert num_failures(lost, "s", "8") == 2
    assert num_failures(lost, "s", "16") == 0
    assert num_failures(lost, "later submission", "8") == 0
    failed = [start(""), end("failed"), start("8"), end("failed"), start("8")]
    assert num_failures(failed, "s", "8") == 2
    preempted = [start("8"), end("stopped", "preempted"), start("8")]
    assert num_failures(preempted, "s", "8") == 1


def test_attempts_of_this_job_and_of_ended_jobs_are_orphans_and_no_others():
    states = {"7": "RUNNING", "8": "CANCELLED", "9": ""}

    def view(job: str) -> JobView:
        return JobView(states[job])

    assert ended_attempt([], "7", view) == 0
    assert ended_attempt([start("", job="7", attempt=2), end("failed")], "7", view) == 3
    assert ended_attempt([start("", job="7", attempt=2)], "12", view) == 0
    assert ended_attempt([start("", job="8", attempt=2)], "12", view) == 3
    assert ended_attempt([start("", job="9", attempt=2)], "12", view) == 0  # nobody knows


def test_blamed_nodes_are_those_of_the_watchdogs_suspects():
    suspects = [{"host": "n2", "rank": 1}, {"host": "n2", "rank": 3}, {"host": ""}]
    assert blamed_nodes({"suspects": suspects}) == ["n2"]
    assert blamed_nodes({}) == []


def test_the_queue_and_a_job_are_read_as_slurm_prints_them():
    text = "12|3|PENDING|ks-a|n1|0:00|Resources\n13|N/A|RUNNING|ks-b|n[1-2]|1:00|a|b\nrubbish\n"
    first, second = parse_queue(text)
    assert (first.job, first.index, first.state, first.reason) == (
        "12_3",
        3,
        "PENDING",
        "Resources",
    )
    assert (second.job, second.index, second.nodes, second.reason) == ("13", 0, "n[1-2]", "a|b")
    view = parse_view("JobId=1 JobState=RUNNING SubmitTime=2026-11-26T22:49:14 PreemptTime=Unknown")
    assert view.state == "RUNNING"
    assert view.submitted > 0
    assert view.preempted == 0
    assert parse_view("") == JobView()
    assert parse_view("JobState=RUNNING Comment=a JobState=FAILED Restarts=9").state == "RUNNING"


def test_versions_are_read_in_both_spellings():
    assert parse_version("slurm-wlm 22.05.8\n") == (22, 5)
    assert parse_version("slurm 25.11.0-0rc1") == (25, 11)
    with pytest.raises(ValueError, match="not a version"):
        parse_version("command not found")


def test_ids_of_jobs_and_of_array_tasks_are_what_scontrol_takes():
    array = {"SLURM_JOB_ID": "19", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "7"}
    assert job_id(array) == "12_7"
    assert job_id({"SLURM_JOB_ID": "19"}) == "19"


def test_a_command_that_fails_says_why():
    with pytest.raises(SlurmError, match=r"sh: no such partition"):
        run(["sh", "-c", "echo no such partition >&2; exit 1"], tries=1)


def test_two_jobs_on_one_node_never_get_one_port(tmp_path):
    first, held = hold_port(5, tmp_path)
    with held:
        other, also = hold_port(5, tmp_path)
        also.close()
        assert other != first
        assert min(first, other) >= 20_000
        assert max(first, other) < 32_768
    again, held = hold_port(5, tmp_path)
    held.close()
    assert again == first


def test_ranks_get_torchs_variables_and_torchrun_its_node():
    slurm = {"SLURM_PROCID": "5", "SLURM_NTASKS": "16", "SLURM_LOCALID": "1"}
    found = rank_environment(slurm | {"SLURM_NTASKS_PER_NODE": "4(x4)"})
    assert found == {"RANK": "5", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    node = {"SLURM_NNODES": "2", "SLURM_NODEID": "1", "SLURM_JOB_ID": "9"}
    node |= {"KINESCALE_PER_NODE": "8", "MASTER_ADDR": "n1", "MASTER_PORT": "20001"}
    command = torchrun_command(["python", "-m", "trainer.train", "--run", "x y"], node)
    assert command[-4:] == ["--", "trainer.train", "--run", "x y"]
    assert any("SIGUSR1" in word for word in command)


def test_the_command_of_a_rank_is_that_of_its_launcher_without_torchrun(tmp_path):
    one, two = (start_processes(n, tmp_path) for n in (1, 2))
    assert rank_command(one) == one
    assert rank_command(two) == one


@pytest.mark.heavy
def test_jobs_run_a_snapshot_of_the_code_and_runs_say_which(tmp_path):
    code = snapshot(tmp_path)
    assert snapshot(tmp_path) == code
    assert [path.name for path in tmp_path.iterdir()] == [code.name]
    script = "import launch, trainer.train, models.config; print(launch.__file__)"
    env = {**os.environ, "PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert Path(done.stdout.strip()) == code / "launch" / "__init__.py", done.stderr
    about, diff = describe_code(code, {})
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    write_code(run_dir, about, diff or "a diff")
    assert json.loads((run_dir / "code.json").read_text())["code"] == str(code)
    write_code(run_dir, about, "")
    assert not (run_dir / "code.diff").exists()


def test_a_plan_takes_torchrun_off_a_run_of_several_processes(tmp_path):
    job = make_job(tmp_path / "run", 2)
    argv = start_processes(2, job.run_dir)
    job = type(job)(job.name, job.run_dir, argv, 2, 1.0, job.done_marker)
    (plan,) = make_plans("x", [job], make_cluster(), OLD, tmp_path, tmp_path, "/opt/python")
    assert plan.tasks[0].argv == ("/opt/python", "-m", "trainer.train", "--run", str(job.run_dir))


def test_the_plan_of_a_large_array_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    tasks = [{"run_dir": f"{tmp_path}/none-{'x' * 900}", "argv": []}] * 6000
    (tmp_path / "plan.json").write_text(json.dumps({"tasks": tasks}))
    with pytest.raises(OSError, match="none-"):  # it got as far as the log of its run
        task.main([str(tmp_path)])
