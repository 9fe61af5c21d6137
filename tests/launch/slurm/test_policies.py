"""The examples of docs/how_to/add_a_cluster.md are policies that compose, and what they become."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from launch.config import ClusterConfig
from launch.slurm.plan import SubmitPlan, make_plans
from launch.slurm.render import environment, render

from ..plans import OLD, make_job, parse_options

PAGE = Path(__file__).parents[3] / "docs/how_to/add_a_cluster.md"


def policies() -> dict[str, ClusterConfig]:
    """Return the clusters of the page by the first word of their heading."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^## (\w+)[^\n]*\n\n```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    schema = OmegaConf.structured(ClusterConfig)
    made = {
        name: OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.create(body)))
        for name, body in found
    }
    assert all(isinstance(cluster, ClusterConfig) for cluster in made.values())
    return made  # type: ignore[return-value]


def plan_of(name: str, root: Path, processes: int) -> SubmitPlan:
    """Return the plan of one run at a site of the page."""
    jobs, code = [make_job(root / "run", processes)], root / "code"
    (plan,) = make_plans("x", jobs, policies()[name], OLD, root / ".slurm", code, "/venv/python")
    return plan


def test_the_page_has_a_site_of_each_kind() -> None:
    assert list(policies()) == ["Plain", "Pyxis", "Apptainer"]


def test_a_plain_site_asks_for_typed_gpus_and_loads_its_modules(tmp_path: Path) -> None:
    plan = plan_of("Plain", tmp_path, 16)
    script, options = render(plan), parse_options(render(plan))
    wanted = {"nodes": "2", "gpus-per-node": "h100:8", "partition": "gpu", "account": "lab",
              "comment": "scaling laws, room 3", "time": "240", "export": "ALL"}  # fmt: skip
    assert options.items() >= wanted.items()
    use, load = script.index("module use /sw/modules\n"), script.index("module load cuda/12.8\n")
    assert use < load < script.index("export NCCL_SOCKET_IFNAME=ib0\n") < script.index("\nexec ")
    assert "--mpi=pmix" in plan.to_dict()["srun"]
    assert plan.to_dict()["container"] == []
    assert environment(plan, {"WANDB_API_KEY": "k", "OTHER": "o"}) == {"WANDB_API_KEY": "k"}


def test_a_site_with_pyxis_hands_its_container_to_srun(tmp_path: Path) -> None:
    found = plan_of("Pyxis", tmp_path, 8).to_dict()
    options = dict(word.removeprefix("--").split("=", 1) for word in found["srun"])
    assert options["container-image"] == "nvcr.io#nvidia/pytorch:25.10-py3"
    assert options["container-mounts"] == "/lustre/lab:/lustre/lab,/datasets:/datasets:ro"
    assert options["container-workdir"] == str(Path.cwd())
    assert {"NCCL_IB_HCA", "PYTHONPATH", "MASTER_ADDR"} < set(options["container-env"].split(","))
    assert (found["container"], found["rank_python"]) == ([], "python3")


def test_a_site_with_apptainer_starts_it_by_srun(tmp_path: Path) -> None:
    plan = plan_of("Apptainer", tmp_path, 4)
    assert parse_options(render(plan))["gres"] == "gpu:a100:4"
    assert plan.to_dict()["container"] == [
        "apptainer", "exec", "--nv", "--pwd=/scratch/lab/work",
        "--bind=/scratch/lab:/scratch/lab", "--bind=/datasets:/datasets:ro",
        "/images/kinescale.sif",
    ]  # fmt: skip
    assert not [word for word in plan.to_dict()["srun"] if word.startswith("--container")]


@pytest.mark.parametrize("name", ["Plain", "Pyxis", "Apptainer"])
def test_the_supervisor_runs_outside_of_any_container(tmp_path: Path, name: str) -> None:
    script = render(plan_of(name, tmp_path, 4))
    assert script.splitlines()[-1].startswith("exec /venv/python -m launch.slurm.task ")
    assert not re.search("apptainer exec|nvcr|sif", script)
