"""launch.doctor: what it checks here, and how it judges what a probe measured."""

import json

import pytest

from data.checks import Verdict
from launch import doctor
from launch.checks import check_folder, check_here
from launch.node_checks import judge_nodes


def rank(number: int, host: str, speed: float = 1e12, link: float = 1e9, **more: object) -> dict:
    """Return what a rank measured."""
    return {"rank": number, "host": host, "device": "H100", "time": 100.0,
            "flops_per_second": speed, "ring_bytes_per_second": link,
            "all_reduce_bytes_per_second": link} | more  # fmt: skip


def test_a_folder_is_checked_for_what_checkpoints_and_the_fence_need(tmp_path):
    names = {check.name: check for check in check_folder(tmp_path / "runs")}
    assert {"free space", "write, sync, rename", "hard links", "locks"} <= names.keys()
    assert names["hard links"].verdict is Verdict.good
    assert list((tmp_path / "runs").iterdir()) == []
    assert check_here()[0].verdict is Verdict.good


def test_a_folder_that_cannot_be_is_bad_with_a_remedy(tmp_path, capsys):
    (tmp_path / "file").touch()
    (check,) = check_folder(tmp_path / "file" / "runs")
    assert check.is_bad
    assert "folder=" in check.line()
    assert doctor.main([f"folder={tmp_path / 'file' / 'runs'}", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["exclude"] == []


def test_slow_nodes_are_left_out_by_name():
    ranks = [rank(i, f"n{i // 2}") for i in range(8)]
    checks, exclude = judge_nodes(ranks, 0.15)
    assert exclude == []
    assert {check.verdict for check in checks} == {Verdict.good}
    ranks[5]["flops_per_second"] = 0.8e12
    checks, exclude = judge_nodes(ranks, 0.15)
    assert exclude == ["n2"]
    assert any("n2 80%" in check.line() for check in checks)


def test_a_slow_network_card_is_told_from_its_neighbours_by_its_two_links():
    ranks = [rank(i, f"n{i}") for i in range(5)]
    ranks[1]["ring_bytes_per_second"] = ranks[2]["ring_bytes_per_second"] = 1e8  # n1-n2, n2-n3
    checks, exclude = judge_nodes(ranks, 0.15)
    assert exclude == ["n2"]
    assert any("slow: n1-n2, n2-n3" in check.line() for check in checks)
    ranks[2]["ring_bytes_per_second"] = 1e9
    assert judge_nodes(ranks, 0.15)[1] == []  # one slow link does not say which end


def test_mixed_devices_and_clocks_that_differ_are_reported():
    checks, _ = judge_nodes([rank(0, "n0"), rank(1, "n1", device="A100", time=200.0)], 0.15)
    text = "\n".join(check.line() for check in checks)
    assert "A100, H100" in text
    assert "within 100.0 s" in text


def test_slurm_that_is_not_there_or_not_configured_is_bad_with_a_remedy(
    tmp_path, capsys, monkeypatch
):
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    words = ["cluster=slurm", f"folder={tmp_path}", "nodes=2"]
    assert doctor.main(words) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("bad     cluster.kind=slurm: needs the commands of SLURM")
    assert last.endswith("Use a login node of the cluster, or cluster=local.")
    fatal = "echo 'sbatch: fatal: Could not establish a configuration source' >&2"
    script = programs / "sbatch"
    script.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/asked\n{fatal}\nexit 1\n")
    script.chmod(0o755)
    assert doctor.main(words) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        "bad     cluster.kind=slurm: sbatch: fatal: Could not establish a configuration source. "
        "Use a machine where sbatch works (or set SLURM_CONF), or choose cluster=local."
    )
    assert (tmp_path / "asked").read_text() == "asked\n"  # no pause, no second try


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nodez=3"], "nodez=3: unknown key. Allowed: folder, nodes, slow, seconds"),
        (["cluster=nope"], "cluster=nope: unknown choice"),
    ],
)
def test_bad_input_is_refused_by_name(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.main([*words, f"folder={tmp_path}"]) == 2
    assert f"error: {message}" in capsys.readouterr().err
