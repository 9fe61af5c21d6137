"""Check a machine or a cluster before a long run: what would break, with the remedy.

usage: kinescale doctor [cluster=NAME] [cluster.key=value ...] [key=value ...]

examples:
  kinescale doctor
  kinescale doctor cluster=slurm cluster.slurm.partition=gpu
  kinescale doctor cluster=slurm nodes=16 cluster.slurm.gpus_per_node=8
  kinescale doctor cluster=slurm nodes=16 --exclude       print only the nodes to leave out

folder=runs     where runs will lie: free space, rename, hard links, locks, clock of its server
nodes=0         nodes to probe with a small job: devices, speed of each, bandwidth of an all-reduce;
                0 asks SLURM but starts nothing
slow=0.15       how much slower than the median a node may be
seconds=600     how long the probe may wait and run
--json          the same as JSON

Exit status 1 when something would break, or when nodes should be left out.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from data.shell import command

if TYPE_CHECKING:
    from data.checks import Check
    from launch.config import ClusterConfig

_KEYS = ("folder", "nodes", "slow", "seconds")


def find_checks(
    cluster: "ClusterConfig", settings: dict[str, str]
) -> "tuple[list[Check], list[str]]":
    """Run all checks; return them and the nodes to leave out."""
    from launch.checks import check_folder, check_here, check_slurm
    from launch.config import ClusterKind

    folder = Path(settings.get("folder", "runs"))
    checks = [*check_here(), *check_folder(folder)]
    if cluster.kind is not ClusterKind.slurm:
        return checks, []
    checks += check_slurm(cluster)
    nodes = int(_number(settings, "nodes", "0"))
    if not nodes or any(check.is_bad for check in checks):
        return checks, []
    from launch.node_checks import probe_nodes

    found, exclude = probe_nodes(
        cluster,
        folder,
        nodes,
        _number(settings, "slow", "0.15"),
        _number(settings, "seconds", "600"),
    )
    return checks + found, exclude


def _number(settings: dict[str, str], key: str, default: str) -> float:
    text = settings.get(key, default)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError(f"{key}={text}: must be a number of 0 or more. Use {default}.")
    return value


@command(
    __doc__,
    needs_words=False,
    kept="nothing was changed. Run the same command again.",
    doing="looking at this machine and its queue",
)
def main(argv: list[str]) -> int:
    """Parse the command line, check, and print."""
    from launch.config import compose_cluster, split_overrides

    about, words = split_overrides(argv)
    flags = {word for word in words if word in ("--json", "--exclude")}
    settings = dict(w.split("=", 1) for w in words if w.split("=")[0] in _KEYS and "=" in w)
    unknown = [w for w in words if w not in flags and w.split("=")[0] not in settings]
    if unknown:
        allowed = f"{', '.join(_KEYS)}, --json, --exclude"
        raise ValueError(f"{unknown[0]}: unknown key. Allowed: {allowed}.")
    checks, exclude = find_checks(compose_cluster(about), settings)
    if "--json" in flags:
        found = {"checks": [check.to_dict() for check in checks], "exclude": exclude}
        print(json.dumps(found, indent=1))
    elif "--exclude" in flags:
        print(",".join(exclude))
    else:
        for check in checks:
            print(check.line())
        if exclude:
            print(f"leave out: cluster.slurm.exclude=[{','.join(exclude)}]")
    return 1 if exclude or any(check.is_bad for check in checks) else 0


if __name__ == "__main__":
    main.run()
