"""How a process joins its world."""

import json
import multiprocessing
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.layout.config import ParallelConfig
from trainer.layout.layout import Layout
from trainer.parallel.mesh import end_start, flight_record, join_mesh, start_mesh, stop_mesh

from .worlds import PRELOAD, run_world

pytestmark = pytest.mark.dist


def join_alone(port: int) -> None:
    """Be a run of one process in an environment that names a port."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    stop_mesh(start_mesh(ParallelConfig(device="cpu")))


def test_a_process_alone_needs_no_port_that_another_run_may_hold() -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        process = context.Process(target=join_alone, args=other.getsockname()[1:])
        process.start()
        process.join(60)
        process.kill()
        assert process.exitcode == 0


def wait_for_nobody(folder: Path) -> None:
    """Be one of two ranks, of which the second does not come to a collective of the training."""
    made: list[list[int]] = []
    new_group = torch.distributed.new_group

    def counted(members: list[int], **settings: Any) -> Any:
        made.append(members)
        return new_group(members, **settings)

    torch.distributed.new_group = counted  # type: ignore[assignment]
    mesh = join_mesh(Layout(dp=2), torch.device("cpu"), owns_world=True)
    found: dict[str, Any] = {"groups": made}
    mesh.barrier()
    end_start(mesh, 0.5)
    done = folder / "0.json"
    if mesh.rank == 0:
        began = time.monotonic()
        with pytest.raises(RuntimeError, match=r"[Tt]imed out"):
            torch.distributed.all_reduce(torch.zeros(1), group=mesh.groups["replicas"])
        found["seconds"] = time.monotonic() - began
        found["recorded"] = json.loads(flight_record())["version"]
    while mesh.rank == 1 and not done.exists():
        time.sleep(0.05)
    (folder / f"{mesh.rank}.json").write_text(json.dumps(found))


def test_a_rank_makes_its_own_groups_alone_and_waits_shortly_once_it_trains(
    tmp_path: Path,
) -> None:
    run_world(2, "tests.trainer.parallel.test_mesh:wait_for_nobody", tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (first["groups"], second["groups"]) == ([[0, 1], [0]], [[0, 1], [1]])
    assert 0.5 <= first["seconds"] < 60  # gloo's own default is half an hour
    assert first["recorded"]
