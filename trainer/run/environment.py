"""On what a run ran: versions, processor, revision."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from data.secrets import masked_in

_PACKAGES = ("torch", "deepspeed", "webdataset", "decord", "av", "hydra-core", "wandb", "numpy")


def environment() -> dict[str, Any]:
    """Describe where a run happens, for the record; no host, user, variable or key."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "packages": {name: _version(name) for name in _PACKAGES},
        "git": _git_revision(),
        "argv": masked_in(sys.argv[1:], os.environ),
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _git_revision() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"
