"""What a finished run hands to ``sweeps``: result.json and curve.csv."""

import resource
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.dataset.sample import world_of
from data.files import write_csv, write_json
from models.count import count_params
from models.times import root_mean_square
from trainer.config import RunConfig
from trainer.optim import learning_rate
from trainer.run.metrics import read_metrics

if TYPE_CHECKING:  # both import the engine, which small networks do not need
    from models.tasks import Task
    from trainer.diffusion.evaluate import Validation
    from trainer.diffusion.progress import Progress


def summarise(
    run: RunConfig,
    folder: Path,
    progress: "Progress",
    validations: "dict[str, Validation]",
    tasks: "dict[Task, Validation]",
    accounting: dict[str, Any],
) -> dict[str, Any]:
    """Return the flat record of a finished run; ``loss`` is that of the first validation split.

    tasks: validations of the tasks of its mixture, none where nothing is given in training.
    """
    params = count_params(run.model)
    first, *others = run.validation.splits
    main = validations[first]
    record = {
        "name": folder.name,
        "status": "finished",
        "params": params.total,
        "params_detail": params.parts,
        "tokens": progress.tokens,
        "samples": progress.samples,
        "steps": progress.step,
        "flops": progress.flops,
        "flops_before": progress.flops_before,
        "flops_6nd": 6 * params.total * progress.tokens,
        "loss": main.loss,
        "loss_noise": main.noise,
        "loss_by_time": main.by_time,
        "t_range": list(run.objective.t_range),
        "spread": run.objective.spread or root_mean_square(run.model.spread),
        "loss_real": validations[others[0]].loss if others else None,
        "loss_real_noise": validations[others[0]].noise if others else None,
        "validation": {split: asdict(value) for split, value in validations.items()},
        "real_token_share": progress.real_tokens / progress.tokens,
        "padding_share": accounting["padding_share"],
        "lr": run.optim.lr,
        "schedule": _schedule(run, progress.step),
        "batch_tokens": run.batch_tokens,
        "width": run.model.width,
        "depth": run.model.depth,
        "seed": run.seed,
        "seconds": progress.seconds,
        "attempts": progress.attempts,
        "updates": progress.updates,
        "rewinds": progress.rewinds,
        "world_size": run.parallel.processes,
        "layout": str(run.parallel.layout),
        "zero_stage": run.parallel.zero_stage,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "accounting": _by_world(accounting),
    }
    return record | ({"tasks": {t: _of_task(v) for t, v in tasks.items()}} if tasks else {})


def _of_task(found: "Validation") -> dict[str, float]:
    """Return a task's loss over what it makes, with its noise and how much was looked at."""
    return {
        "loss": found.loss,
        "noise": found.noise,
        "clips": found.clips,
        "values": sum(group.values for group in found.groups),
    }


def _by_world(accounting: dict[str, Any]) -> dict[str, Any]:
    """Return an accounting whose sources are summed by world: thousands of scenes are one line."""
    summed: dict[str, dict[str, int]] = {"source_samples": {}, "source_tokens": {}}
    for key, totals in summed.items():
        for source, count in accounting[key].items():
            world = world_of(source)
            totals[world] = totals.get(world, 0) + count
    return accounting | summed


def _schedule(run: RunConfig, steps: int) -> dict[str, float]:
    """Return the shares of warm-up and decay, and the rate of the last of ``steps`` steps.

    A point whose last rate is not near zero was cut from a longer schedule, and its loss is not
    that of a run of its own length (Hoffmann et al. 2022, section 3.1).
    """
    last = learning_rate(run.optim, steps - 1, steps)
    return {"warmup": run.optim.warmup, "decay": run.optim.decay, "last_lr": last}


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write curve.csv, then result.json, whose existence marks the run as finished."""
    columns = ["step", "tokens", "flops", "loss", "train_loss"]
    write_csv(folder / "curve.csv", columns, read_metrics(folder / "metrics.jsonl"))
    write_json(folder / "result.json", result, default=str)
