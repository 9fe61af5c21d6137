"""The study's own W&B run: the law, its tables and figures, in the group of its runs."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweeps.collect import COLUMNS
from sweeps.config import StudyConfig
from trainer.config import WandbMode
from trainer.metrics import start_wandb


def log_summary(
    study: StudyConfig,
    project: str,
    rows: Sequence[dict[str, Any]],
    law: dict[str, Any],
    report: Path,
) -> None:
    """Log table, law, figures and page of a study; W&B's own mode variable decides where to."""
    mode = WandbMode(os.environ.get("WANDB_MODE", "offline"))
    if mode is WandbMode.disabled:
        return
    import wandb

    config = {"question": study.question, "budgets": list(study.budgets)}
    run = start_wandb(f"{study.name}-law", mode, study.folder, project, study.name, ["law"], config)
    cells = [[row.get(column) for column in COLUMNS] for row in rows]
    run.log({"step": 0, "runs": wandb.Table(columns=list(COLUMNS), data=cells)})
    coefficients = law.get("coefficients") or {}
    intervals = law.get("intervals") or {}
    table = [
        [name, value, *(intervals.get(name) or [None, None])]
        for name, value in coefficients.items()
    ]
    columns = ["coefficient", "value", "low", "high"]
    run.log({"step": 0, "law": wandb.Table(columns=columns, data=table)})
    picture = report.parent / "figures" / "law.png"
    if picture.exists():
        run.log({"step": 0, "law_figure": wandb.Image(str(picture))})
    run.log({"step": 0, "report": wandb.Html(report.read_text(), inject=False)})
    held_out = law.get("held_out") or {}
    numbers = {f"law/{k}": v for k, v in coefficients.items()}
    numbers |= {
        f"held_out/{k}": held_out[k]
        for k in ("predicted", "actual", "relative_error", "skill")
        if isinstance(held_out.get(k), int | float)
    }
    run.summary.update(numbers)
    run.finish()
