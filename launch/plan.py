"""Plan a run before the queue does: memory, time, money and disk, or the best layout.

usage: kinescale plan [machine=NAME] [key=value ...] [--json]
       kinescale plan --search gpus=N [machine=NAME] [key=value ...] [--json]

examples:
  kinescale plan machine=h100 model=w6144d48 horizon.tokens=1e12 \\
      parallel.processes=1024 parallel.tp=8 parallel.cp=2 parallel.zero_stage=1 \\
      parallel.precision=bf16 parallel.recompute=selective \\
      data.pack_tokens=131072 data.packs_per_step=256
  kinescale plan --search gpus=1024 model=w6144d48 horizon.tokens=1e12
  kinescale plan --search gpus=256 machine=b200 model=w6144d48 horizon.tokens=1e12 \\
      search.batch_tokens=8e6 plan.clip_tokens=75600
  kinescale plan machine=cpu2 experiment=cpu_demo horizon.flops=1e12
  kinescale plan machine=cpu2 experiment=vae_tiny
  kinescale plan machine=h100 machine.price.per_device_hour=1.9 model=w6144d48 ... --json

The command line is Hydra's and kinescale train's: group=choice selects a file under trainer/conf,
key=value sets a value of the run (keys: trainer/config.py). Of other kinds of run than the
diffusion transformer's, less is known; the plan says what is not modelled. Beside them:
  machine=NAME       h100 (default), a100, b200, cpu2, gb200, gb300, h20, h200, mi300x
                     (launch/conf/machine), or the path of your own file (machine=my/hall.yaml)
  machine.KEY=VALUE  a value of it (keys: launch/planner/machine.py)
  plan.KEY=VALUE     what is assumed: clip_tokens, caption_tokens, fill, goodput, online,
                     disk_bytes, disk_bytes_per_second, max_days (launch/planner/config.py)
  search.KEY=VALUE   gpus, batch_tokens, top, precision, max_tp, offload; gpus=N is search.gpus=N

The dataset's index is read where data.root has one here. Equations and how far to trust them:
docs/plan.md. Exit status: 0, 1 where a run would not fit or no layout does, 2 for a bad value.
"""

import json
from typing import TYPE_CHECKING, Any, TypeVar

from data.shell import command
from launch.run_folder.runs import refuse_study

if TYPE_CHECKING:
    from launch.planner.machine import MachineConfig
    from launch.planner.small import SmallRun

T = TypeVar("T")


@command(__doc__, prints_only=True, doing="planning the run")
def main(argv: list[str]) -> int:
    """Parse the command line and print a plan; return the exit status."""
    flags = {word for word in argv if word.startswith("--")}
    if unknown := flags - {"--json", "--search"}:
        raise ValueError(f"{min(unknown)}: unknown flag. Use --search, --json or --help.")
    words = [word for word in argv if word not in flags]
    refuse_study(words, "plan-study")
    run_search = "--search" in flags
    return (_search if run_search else _plan)(_sort(words, run_search), "--json" in flags)


def _sort(words: list[str], searching: bool) -> dict[str, list[str]]:
    """Sort key=value words by whom they are for."""
    found: dict[str, list[str]] = {"machine": [], "plan": [], "search": [], "run": [], "name": []}
    for word in words:
        key = word.partition("=")[0]
        group, _, rest = word.partition(".")
        if key == "machine":
            found["name"].append(word.partition("=")[2])
        elif key == "gpus":
            found["search"].append(word)
        elif group in ("machine", "plan", "search") and "=" in rest:
            found[group].append(rest)
        else:
            found["run"].append(word)
    if found["search"] and not searching:
        raise ValueError(f"search.{found['search'][0]}: needs --search. Add it, or leave this out.")
    return found


def _parse(schema: type[T], group: str, words: list[str]) -> T:
    from trainer.compose import parse_as

    try:
        return parse_as(schema, words)
    except ValueError as error:
        raise ValueError(f"{group}.{error}") from error


def _plan(words: dict[str, list[str]], as_json: bool) -> int:
    from launch.planner.config import PlanConfig
    from launch.planner.estimate import estimate
    from launch.planner.machine import load_machine
    from launch.planner.show import show_estimate
    from trainer.config import RunConfig
    from trainer.kinds import compose_any

    machine = load_machine((words["name"] or ["h100"])[-1], words["machine"])
    run = compose_any(words["run"])
    if not isinstance(run, RunConfig):
        return _plan_small(run, machine, words["plan"], as_json)
    plan = _parse(PlanConfig, "plan", words["plan"])
    found = estimate(run, machine, plan)
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        show_estimate(found)
    return 1 if found.memory.excess > 0 else 0


def _plan_small(
    run: "SmallRun", machine: "MachineConfig", assumed: list[str], as_json: bool
) -> int:
    from launch.planner.show import show_small
    from launch.planner.small import plan_small

    if assumed:
        raise ValueError(
            f"plan.{assumed[0]}: says nothing of a run of kind={run.kind}. Leave it out."
        )
    found = plan_small(run, machine)
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        show_small(found)
    return 0 if found.fits else 1


def _search(words: dict[str, list[str]], as_json: bool) -> int:
    from launch.planner.config import PlanConfig, SearchConfig
    from launch.planner.machine import load_machine
    from launch.planner.search import search, step_tokens
    from launch.planner.show import search_json, show_search
    from launch.planner.workload import TYPICAL_CLIP, plan_workload
    from trainer.config import RunConfig
    from trainer.kinds import compose_any

    machine = load_machine((words["name"] or ["h100"])[-1], words["machine"])
    plan = _parse(PlanConfig, "plan", words["plan"])
    settings = _parse(SearchConfig, "search", words["search"])
    plan.check()
    settings.check()
    if given := [word for word in words["run"] if word.startswith("parallel.")]:
        raise ValueError(f"{given[0]}: is what --search chooses. Leave it out.")
    run = compose_any(words["run"])
    if not isinstance(run, RunConfig):
        raise ValueError(f"kind={run.kind}: is trained in one layout. Plan it without --search.")
    # A pack is what the search chooses, so it does not bound a clip here.
    plan.clip_tokens = plan.clip_tokens or TYPICAL_CLIP
    clips = plan_workload(run, plan).clips
    found = search(run.model, machine, clips, settings, step_tokens(run, settings))
    if as_json:
        answer: dict[str, Any] = search_json(run, machine, plan, settings, found)
        print(json.dumps(answer, indent=1))
    else:
        show_search(run, machine, plan, settings, found)
    return 0 if found.best else 1


if __name__ == "__main__":
    main.run()
