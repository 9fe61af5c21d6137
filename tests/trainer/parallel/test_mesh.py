"""How a process joins its world."""

import multiprocessing
import os
import socket

import pytest

from trainer.layout.config import ParallelConfig
from trainer.parallel.mesh import start_mesh, stop_mesh

from .worlds import PRELOAD

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
