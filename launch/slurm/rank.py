"""What srun starts on the nodes: translate SLURM's variables into torch's, then become the rank.

usage (by the supervisor): python -m launch.slurm.rank srun|torchrun PROGRAM ARGUMENT ...

The trainer knows RANK, WORLD_SIZE, LOCAL_RANK and MASTER_ADDR, and nothing of SLURM.
"""

import os
import sys
from collections.abc import Mapping


def rank_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return torch's variables for one task of srun."""
    return {
        "RANK": environ["SLURM_PROCID"],
        "WORLD_SIZE": environ["SLURM_NTASKS"],
        "LOCAL_RANK": environ["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": environ["SLURM_NTASKS_PER_NODE"].split("(")[0],
    }


def torchrun_command(argv: list[str], environ: Mapping[str, str]) -> list[str]:
    """Return the torchrun of one node, whose ranks run ``argv`` (python -m module ...)."""
    python, dash_m, *module = argv
    assert dash_m == "-m", argv
    options = [
        f"--nnodes={environ['SLURM_NNODES']}",
        f"--nproc_per_node={environ['KINESCALE_PER_NODE']}",
        f"--node_rank={environ['SLURM_NODEID']}",
        "--rdzv_backend=c10d",
        f"--rdzv_endpoint={environ['MASTER_ADDR']}:{environ['MASTER_PORT']}",
        f"--rdzv_id={environ['SLURM_JOB_ID']}",
        "--max_restarts=0",  # the supervisor starts again, and knows when not to
        # Its default set lacks SIGUSR1, of which it would die without telling its ranks.
        "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
    ]
    return [python, "-m", "torch.distributed.run", *options, "-m", "--", *module]


def main(argv: list[str]) -> int:
    """Become the rank, or the node's torchrun."""
    starter, *command = argv
    if starter == "torchrun":
        command = torchrun_command(command, os.environ)
    else:
        os.environ |= rank_environment(os.environ)
    os.execvp(command[0], command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
