"""Probe nodes with a small trainer job, and judge which ones to leave out."""

import secrets
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.checks import Check, Verdict, judge
from data.files import write_json
from data.words import counted
from launch.config import ClusterConfig
from launch.local.process import LOG_FILE, Job, tail_text
from launch.run_folder.records import CANCELLED_FILE, read_json
from launch.slurm import commands
from launch.slurm.submit import entries_of, submit_jobs

# A link is slow below so much of the median: traffic of others moves it far more than arithmetic.
_SLOW_LINK = 0.5
_CLOCK_SECONDS = 5.0


def probe_nodes(
    cluster: ClusterConfig, folder: Path, nodes: int, slow: float, seconds: float
) -> tuple[list[Check], list[str]]:
    """Run the probe on so many nodes; return its checks and the nodes to leave out.

    Raises ValueError, SlurmError. The job is cancelled when it takes longer than ``seconds``.
    """
    out = folder.resolve() / f".doctor-{secrets.token_hex(4)}"
    result = out / "result.json"
    cluster.slurm.processes_per_node = max(1, cluster.slurm.num_gpus)
    processes = nodes * cluster.slurm.processes_per_node
    argv = [sys.executable, "-m", "trainer.gpu_checks.node", str(result)]
    job = Job("doctor", out, argv, processes, 1.0, result)
    (submitted,) = submit_jobs("doctor", [job], cluster)
    if submitted.waits:
        remedy = "Wait until fewer of your jobs are in the queue."
        return [Check("probe of nodes", Verdict.bad, submitted.waits, remedy)], []
    print(
        f"probing {counted(nodes, 'node')} as job {submitted.job}, log in {out / LOG_FILE}",
        file=sys.stderr,
    )
    deadline = time.monotonic() + seconds
    while not result.exists():
        entries = entries_of(out, commands.queue())
        late = time.monotonic() > deadline
        if late:
            write_json(out / CANCELLED_FILE, {"time": time.time()})
            commands.cancel([entry.job for entry in entries])
        if late or (not entries and not result.exists()):
            why = f"no result in {seconds:.0f} s" if late else tail_text(out / LOG_FILE, 3)
            remedy = f"See {out / LOG_FILE}; ask for fewer nodes, or for more time with seconds=..."
            return [Check("probe of nodes", Verdict.bad, why or "left the queue", remedy)], []
        time.sleep(cluster.poll_seconds)
    return judge_nodes(read_json(result).get("ranks", []), slow)


def judge_nodes(ranks: Sequence[Mapping[str, Any]], slow: float) -> tuple[list[Check], list[str]]:
    """Return the checks of what ranks measured, and the nodes to leave out.

    A node is left out when its slowest rank computes ``slow`` below the median of all nodes, or
    when it stands at both ends of slow links: its neighbours have a fast one on their other side.
    """
    hosts = sorted({str(rank["host"]) for rank in ranks})
    speed = {h: min(r["flops_per_second"] for r in ranks if r["host"] == h) for h in hosts}
    median = statistics.median(speed.values())
    slow_nodes = [h for h in hosts if speed[h] < (1 - slow) * median]
    arithmetic = judge(
        "arithmetic of nodes",
        not slow_nodes,
        f"median {median / 1e12:.4g} TFLOP/s; "
        + (", ".join(f"{h} {speed[h] / median:.0%}" for h in slow_nodes) or "all alike"),
        "Leave them out: every step waits for the slowest.",
        Verdict.warning,
    )
    links, slow_links = _judge_links(ranks)
    exclude = sorted({*slow_nodes, *slow_links})
    return [_judge_devices(ranks), arithmetic, links, _judge_clocks(ranks)], exclude


def _judge_links(ranks: Sequence[Mapping[str, Any]]) -> tuple[Check, list[str]]:
    """Judge each rank's link to the next one on another host."""
    world = len(ranks)
    links = [
        (str(a["host"]), str(ranks[(i + 1) % world]["host"]), float(a["ring_bytes_per_second"]))
        for i, a in enumerate(ranks)
        if a.get("ring_bytes_per_second")
    ]
    links = [link for link in links if link[0] != link[1]]
    if not links:
        return Check("network", Verdict.good, "one node: nothing to measure"), []
    median = statistics.median(speed for _, _, speed in links)
    slow = [(a, b) for a, b, speed in links if speed < _SLOW_LINK * median]
    ends = [host for link in slow for host in link]
    bad = sorted({host for host in ends if ends.count(host) > 1})
    bus = min(float(r["all_reduce_bytes_per_second"]) for r in ranks)
    found = f"all-reduce {bus / 1e9:.3g} GB/s (bus), links {median / 1e9:.3g} GB/s (median)"
    found += "; slow: " * bool(slow) + ", ".join(f"{a}-{b}" for a, b in slow)
    remedy = "Leave out the node that slow links share; ask the site about the others."
    return judge("network", not slow, found, remedy, Verdict.warning), bad


def _judge_devices(ranks: Sequence[Mapping[str, Any]]) -> Check:
    kinds = sorted({str(rank["device"]) for rank in ranks})
    nodes = len({rank["host"] for rank in ranks})
    found = f"{len(ranks)} on {counted(nodes, 'node')}: {', '.join(kinds)}"
    remedy = "Ask for one kind with cluster.slurm.constraint: steps wait for the slowest."
    return judge("devices", len(kinds) == 1, found, remedy, Verdict.warning)


def _judge_clocks(ranks: Sequence[Mapping[str, Any]]) -> Check:
    # Taken right after joining, so within a second of each other.
    times = [float(rank["time"]) for rank in ranks]
    spread = max(times) - min(times)
    return judge(
        "clocks of nodes",
        spread < _CLOCK_SECONDS,
        f"within {spread:.1f} s",
        "Synchronise the clocks (chrony): times in logs will not agree.",
        Verdict.warning,
    )
