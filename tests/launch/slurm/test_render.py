"""launch.slurm: what is planned and what the script says, judged as sbatch and bash read it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launch.config import compose_cluster, split_overrides
from launch.container_config import ContainerConfig, ContainerKind
from launch.slurm.nccl import NCCL_SETTINGS
from launch.slurm.plan import make_plans, shape_of, slug
from launch.slurm.render import dependency, environment, render
from launch.slurm_config import GpuOption, Starter, TimeLimitPolicy

from ..plans import NEW, OLD, make_cluster, make_job, make_plan, parse_options

HOSTILE = [
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned;",
    "' ; touch pwned ; '",
    '" ; touch pwned ; "',
    "<script>alert(1)</script>",
    "-rf",
    "$HOME",
    "\\",
    "*",
]


def run_script(script: str, folder: Path, **variables: str) -> str:
    """Run a script in bash without its ``exec``, and print what it set."""
    body = "".join(f"{line}\n" for line in script.splitlines() if not line.startswith("exec "))
    path = folder / "script.sh"
    path.write_text(body + "pwd\nenv -0\n")
    done = subprocess.run(
        ["bash", str(path)], cwd=folder, capture_output=True, text=True, check=True,
        env={"PATH": "/usr/bin:/bin", **variables},
    )  # fmt: skip
    return done.stdout


def test_one_run_is_one_job_with_the_shape_of_its_ranks(tmp_path):
    plan = make_plan(tmp_path, processes=16, processes_per_node=8, gpus_per_node=8, minutes=240)
    options = parse_options(render(plan))
    assert (options["nodes"], options["ntasks"], options["ntasks-per-node"]) == ("2", "16", "8")
    assert options["gpus-per-node"] == "8"
    assert options["time"] == "240"
    assert "array" not in options
    assert options["signal"] == "B:USR1@180"
    assert {"requeue", "kill-on-invalid-dep"} <= options.keys()


def test_a_study_is_one_array_with_its_throttle_and_a_table_of_runs(tmp_path):
    names = tuple(f"run-{i}" for i in range(20))
    plan = make_plan(tmp_path, names, array_throttle=4)
    assert parse_options(render(plan))["array"] == "0-19%4"
    tasks = plan.to_dict()["tasks"]
    assert [Path(task["run_dir"]).name for task in tasks] == list(names)
    assert len({task["done_marker"] for task in tasks}) == 20


def test_the_costliest_runs_come_first_and_shapes_and_limits_part_arrays(tmp_path):
    jobs = [make_job(tmp_path / f"r{i}", processes=1 + i % 2, cost=float(i)) for i in range(10)]
    cluster = make_cluster(max_array=3)
    plans = make_plans("s", jobs, cluster, OLD, tmp_path, tmp_path, sys.executable)
    assert [len(plan.tasks) for plan in plans] == [3, 2, 3, 2]
    assert [task.name for task in plans[0].tasks] == ["r9", "r7", "r5"]
    assert {plan.shape.processes for plan in plans} == {1, 2}
    assert len({plan.job_name for plan in plans}) == 4


def test_ranks_that_do_not_fill_nodes_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"processes=9: must be a multiple.*Use parallel.*=8"):
        shape_of(9, make_cluster(processes_per_node=8))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_data_to_sbatch_and_to_bash(tmp_path, text):
    folder = tmp_path / "work"
    folder.mkdir()
    name = text.replace("/", "_")
    root = folder / name
    root.mkdir()
    plan = make_plan(root, (name,), title=text, env=[f"VALUE={text}"])
    script = render(plan)
    options = parse_options(script)
    assert options.keys() == parse_options(render(make_plan(folder))).keys()
    assert slug(options["job-name"]) == options["job-name"][:40]
    printed = run_script(script, folder)
    assert not (folder / "pwned").exists()
    assert not (Path.cwd() / "pwned").exists()
    assert f"PYTHONPATH={plan.code}\0" in printed
    assert f"\0VALUE={text}\0" in printed
    # What a run is called and runs is not in the script, and comes back whole from the plan.
    task = json.loads(json.dumps(plan.to_dict()))["tasks"][0]
    assert task["argv"][-1] == str(root / name)


def test_a_path_of_several_lines_is_refused(tmp_path):
    folder = tmp_path / "a\n#SBATCH --uid=0\ntouch pwned"
    with pytest.raises(ValueError, match="must be one line of text"):
        make_plan(folder)
    with pytest.raises(ValueError, match="must be one line of printable text"):
        make_cluster(env=["A=b\ntouch pwned"])


@pytest.mark.parametrize("text", ["a b", "a'b", 'a"b', "a#b", "a\\b", "a\nb", "a\n--uid=0"])
@pytest.mark.parametrize("key", ["partition", "account", "qos", "constraint", "reservation"])
def test_words_that_sbatch_would_misread_are_refused_by_name(key, text):
    with pytest.raises(ValueError, match=rf"cluster.slurm.{key}=.*must be one word"):
        make_cluster(**{key: text})


def test_options_that_the_launcher_sets_itself_are_refused():
    for option in ("array=1-9", "output=/etc/passwd", "wrap=id", "uid=0", "x;y=1", "-a"):
        with pytest.raises(ValueError, match="must be a long sbatch option"):
            make_cluster(options=[option])


def test_options_of_the_site_are_passed_on(tmp_path):
    plan = make_plan(tmp_path, options=["gres=gpu:h100:8", "exclusive"], constraint="[r1|r2]*2")
    options = parse_options(render(plan))
    assert options["gres"] == "gpu:h100:8"
    assert options["exclusive"] == ""
    assert options["constraint"] == "[r1|r2]*2"


def test_keys_are_handed_over_by_name_and_never_written(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    plan = make_plan(tmp_path, pass_env=["WANDB_API_KEY"])
    text = render(plan) + json.dumps(plan.to_dict())
    assert "0123456789abcdef" not in text
    assert environment(plan, {"WANDB_API_KEY": "x", "HF_TOKEN": "y"}) == {"WANDB_API_KEY": "x"}
    with pytest.raises(ValueError, match=r"Use cluster.slurm.pass_env=\[HF_TOKEN\]"):
        make_cluster(env=["HF_TOKEN=hf_abc"])
    with pytest.raises(ValueError, match="must hold names of variables, not values"):
        make_cluster(pass_env=["WANDB_API_KEY=0123456789abcdef"])


def test_no_more_than_a_short_list_of_variables_leaves_the_shell(tmp_path):
    plan = make_plan(tmp_path)
    shell = {"HOME": "/h", "PATH": "/bin", "HF_TOKEN": "k", "BASH_ENV": "/x", "SLURM_JOB_ID": "1"}
    assert environment(plan, shell) == {"HOME": "/h", "PATH": "/bin"}
    # ALL of these few: a list of names would load the login environment beside them.
    assert parse_options(render(plan))["export"] == "ALL"


def test_a_persons_defaults_for_sbatch_count_where_the_config_says_nothing(tmp_path):
    shell = {
        "SBATCH_ACCOUNT": "mine", "SBATCH_TIMELIMIT": "30", "SBATCH_QOS": "low",
        "SBATCH_EXPORT": "NONE", "SBATCH_GET_USER_ENV": "1", "SBATCH_ARRAY_INX": "0-9",
        "SBATCH_OUTPUT": "/tmp/x", "SBATCH_CLUSTERS": "other", "SBATCH_NO_REQUEUE": "1",
        "SBATCH_GRES": "gpu:1", "SBATCH_MEM_PER_CPU": "1G",
    }  # fmt: skip
    none = environment(make_plan(tmp_path / "a"), shell)
    assert set(none) == {
        "SBATCH_ACCOUNT", "SBATCH_TIMELIMIT", "SBATCH_QOS", "SBATCH_GRES", "SBATCH_MEM_PER_CPU"
    }  # fmt: skip
    full = {"account": "ours", "minutes": 60, "gpus_per_node": 8, "memory_gib": 9}
    assert environment(make_plan(tmp_path / "b", **full), shell) == {"SBATCH_QOS": "low"}


@pytest.mark.parametrize("text", ['say "a"', "a\\b\\", "a  'b' #c", "$(touch pwned) %j ü"])
def test_a_comment_may_hold_any_line(tmp_path, text):
    options = parse_options(render(make_plan(tmp_path, comment=text)))
    assert options["comment"] == text
    assert options.keys() == {*parse_options(render(make_plan(tmp_path))), "comment"}


@pytest.mark.parametrize(
    ("site", "processes", "option"),
    [
        ({"gpus": "h100:8"}, 16, ("gpus-per-node", "h100:8")),
        ({"gpus": "h100:8", "gpus_per_node": 4}, 2, ("gpus-per-node", "h100:2")),
        ({"gpus": "nvidia_a100-sxm4-80gb:4"}, 8, ("gpus-per-node", "nvidia_a100-sxm4-80gb:4")),
        ({"gpus": "8", "gpu_option": GpuOption.gres}, 8, ("gres", "gpu:8")),
        ({"gpus": "h100:8", "gpu_option": GpuOption.gres}, 8, ("gres", "gpu:h100:8")),
    ],
)
def test_gpus_are_asked_for_with_their_type(tmp_path, site, processes, option):
    plan = make_plan(tmp_path, processes=processes, **site)
    assert option in parse_options(render(plan)).items()
    assert "NCCL_DEBUG" in plan.environment


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ({"gpus": "h100:4,a100:4"}, "must name one type of GPU.*names a100 and h100. Use one"),
        ({"options": ["gres=gpu:h100:4,nvme:1,gpu:a100:4"]}, "must name one type of GPU"),
        ({"options": ["gpus-per-node=h100:4,l40:4"]}, "must name one type of GPU"),
        ({"gpus": "h100"}, "must be TYPE:NUMBER or NUMBER"),
        ({"gpus": "h100:0"}, "must be TYPE:NUMBER or NUMBER"),
        ({"gpus": "h100:8 --uid=0"}, "must be TYPE:NUMBER or NUMBER"),
        ({"gpus": "8", "options": ["gres=gpu:8"]}, "asks for GPUs that cluster.slurm.gpus asks"),
        ({"srun_options": ["export=NONE"]}, "must be a long srun option"),
        ({"srun_options": ["-w n1"]}, "must be a long srun option"),
        ({"srun_options": ["mpi=a\nb"]}, "must be one line"),
        ({"comment": "a\n#SBATCH --uid=0"}, "must be one line"),
        ({"module_paths": ["a\nb"]}, "must be one line"),
        ({"container": ContainerConfig(mounts=["/a,/b:/c"])}, "must hold no comma"),
        ({"container": ContainerConfig(mounts=["/a"])}, "must be HOST:CONTAINER"),
        ({"container": ContainerConfig(env=["A=b"])}, "must be a variable's name"),
    ],
)
def test_what_slurm_or_a_container_would_misread_is_refused(site, words):
    with pytest.raises(ValueError, match=words):
        make_cluster(**site)


def test_other_resources_go_beside_gpus(tmp_path):
    plan = make_plan(tmp_path, gpus="h100:8", options=["gres=nvme:1"])
    assert parse_options(render(plan)).items() >= {("gres", "nvme:1"), ("gpus-per-node", "h100:1")}


def test_options_of_srun_are_arguments_that_no_shell_reads(tmp_path):
    plan = make_plan(tmp_path, srun_options=["mpi=pmix", "cpu-bind=map_cpu:0,1; touch pwned"])
    assert plan.to_dict()["srun"][-2:] == ["--mpi=pmix", "--cpu-bind=map_cpu:0,1; touch pwned"]
    assert "pmix" not in render(plan)


def test_newer_versions_get_newer_options(tmp_path):
    assert "--oom-kill-step=1" not in make_plan(tmp_path, asked=OLD).to_dict()["srun"]
    assert "--oom-kill-step=1" in make_plan(tmp_path, asked=NEW).to_dict()["srun"]
    # Since 22.05 srun does not take it from the job.
    assert "--cpus-per-task=2" in make_plan(tmp_path, cpus_per_process=2).to_dict()["srun"]


def test_torchrun_is_started_once_a_node(tmp_path):
    plan = make_plan(tmp_path, processes=16, starter=Starter.torchrun, cpus_per_process=2)
    srun = plan.to_dict()["srun"]
    assert {"--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=16"} <= set(srun)


def test_a_container_is_for_the_ranks_alone(tmp_path):
    container = ContainerConfig("a b.sqsh", ["/data:/data:ro", "/runs:/runs"])
    plan = make_plan(tmp_path, container=container)
    srun = plan.to_dict()["srun"]
    assert "--container-image=a b.sqsh" in srun  # one argument: no shell splits it
    assert "--container-mounts=/data:/data:ro,/runs:/runs" in srun
    assert plan.to_dict()["rank_python"] == "python3"
    assert plan.to_dict()["container"] == []
    assert "sqsh" not in render(plan)


def test_what_the_launcher_sets_goes_before_what_an_image_sets(tmp_path):
    container = ContainerConfig("x", env=["MY_FLAG"])
    site = {"pass_env": ["WANDB_API_KEY"], "env": ["A=b"], "gpus_per_node": 8}
    (option,) = [
        word.partition("=")[2]
        for word in make_plan(tmp_path, container=container, **site).to_dict()["srun"]
        if word.startswith("--container-env=")
    ]
    wanted = {"PYTHONPATH", "NCCL_DEBUG", "A", "WANDB_API_KEY", "MY_FLAG", "MASTER_ADDR"}
    assert wanted < set(option.split(","))


def test_apptainer_is_a_program_between_srun_and_the_interpreter(tmp_path):
    container = ContainerConfig(
        "/images/a b;c.sif", ["/data:/data:ro", "/it's:/runs"], kind=ContainerKind.apptainer
    )
    found = make_plan(tmp_path, container=container, gpus="a100:4", env=["A=b"]).to_dict()
    assert found["container"] == [
        "apptainer", "exec", "--nv", f"--pwd={Path.cwd()}", "--bind=/data:/data:ro",
        "--bind=/it's:/runs", "/images/a b;c.sif",
    ]  # fmt: skip
    assert not [word for word in found["srun"] if word.startswith("--container")]
    assert {"A", "PYTHONPATH"} < set(found["container_names"])
    assert "--nv" not in make_plan(tmp_path / "cpu", container=container).to_dict()["container"]


def test_modules_and_the_prologue_come_before_the_job(tmp_path):
    prologue = tmp_path / "it's here.sh"
    prologue.write_text('module() { echo "module $*"; }\n')
    plan = make_plan(tmp_path, prologue=str(prologue), modules=["cuda/12.8", "a b"])
    assert "module load cuda/12.8\nmodule load a b\n" in run_script(render(plan), tmp_path)


def test_gpu_jobs_get_nccl_settings_that_a_site_may_change(tmp_path):
    plan = make_plan(tmp_path, gpus_per_node=8, env=["NCCL_DEBUG=INFO"])
    assert plan.environment["NCCL_DEBUG"] == "INFO"
    assert plan.environment["NCCL_IB_TIMEOUT"] == "22"
    assert not set(make_plan(tmp_path).environment) & {name for name, _, _ in NCCL_SETTINGS}
    assert all(len(reason) > 20 for _, _, reason in NCCL_SETTINGS)


def test_chains_wait_for_the_run_before_and_no_other(tmp_path):
    chain = {"on_time_limit": TimeLimitPolicy.chain, "chain_length": 3, "minutes": 60}
    single, array = make_plan(tmp_path, **chain), make_plan(tmp_path, ("a", "b"), **chain)
    assert dependency(single, "") == []
    assert dependency(single, "12") == ["--dependency=singleton"]
    assert dependency(array, "12") == ["--dependency=aftercorr:12"]
    assert dependency(make_plan(tmp_path), "12") == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cluster=nope"], r"cluster=nope: unknown choice. Allowed: local, slurm"),
        (["cluster=slurm", "cluster.slurm.nope=1"], "cluster.slurm.nope: unknown key"),
        (["cluster=slurm", "cluster.slurm.minutes=2"], "must be less than the limit of 2 minutes"),
        (["cluster=slurm", "cluster.slurm.chain_length=2"], "needs on_time_limit=chain"),
        (["cluster=slurm", "cluster.slurm.array_throttle=-1"], "must be at least 0. Use 0"),
        (["cluster=slurm", "cluster.slurm.starter=mpirun"], "cluster.slurm.starter: Invalid value"),
    ],
)
def test_bad_settings_are_refused_by_name_with_the_remedy(words, message):
    with pytest.raises(ValueError, match=message):
        compose_cluster(words)


def test_words_about_the_cluster_are_told_from_those_about_the_run():
    about, others = split_overrides(
        ["cluster=slurm", "model=w64d2", "+cluster.slots=1", "cluster_size=3"]
    )
    assert about == ["cluster=slurm", "+cluster.slots=1"]
    assert others == ["model=w64d2", "cluster_size=3"]
