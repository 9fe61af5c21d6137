"""Rows from a project on W&B: the config and the summary of each of its runs."""

from typing import Any

from sweeps.fit.rows.cells import text_row

SCHEME = "wandb:"
SECONDS = 60  # that one answer of the server may take
MAX_RUNS = 20_000  # a law is fitted to one row a run
FINISHED = "finished"


def wandb_rows(address: str) -> list[tuple[str, dict[str, str]]]:
    """Return the place and the cells of each run of `wandb:entity/project`.

    A run's columns are what its config and its summary hold, names of nested entries joined by
    dots. Where both hold a name the summary's value, which was measured, is under it; the config's
    is under `config.NAME` there. Runs that have not finished are marked excluded.
    The key is that of `wandb login` or WANDB_API_KEY, the server WANDB_BASE_URL.

    Raises:
        ValueError: the address is none, or W&B does not give the project.
    """
    parts = address.removeprefix(SCHEME).strip("/").split("/")
    if len(parts) != 2 or not all(parts):
        raise ValueError(
            f"table={address}: must be wandb:entity/project. Use e.g. wandb:lab/sweep."
        )
    # Imported here: it takes a second, and whoever fits a file has no use for it.
    try:
        import wandb
    except ImportError:
        raise ValueError(f"table={address}: needs W&B's client. Run pip install wandb.") from None

    try:
        runs = wandb.Api(timeout=SECONDS).runs("/".join(parts), per_page=100, lazy=False)
        rows = []
        for run in runs:
            rows.append((f"run {run.id}", _row(run)))
            if len(rows) > MAX_RUNS:
                raise ValueError(f"it has more than {MAX_RUNS} runs")
    except (wandb.errors.Error, ValueError, OSError) as error:
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"table={address}: W&B does not give it ({why}). Check the name, the network and "
            "`wandb login`, or export the runs as csv."
        ) from None
    if not rows:
        raise ValueError(f"table={address}: the project has no runs. Check its name.")
    return rows


def _row(run: Any) -> dict[str, str]:
    """Return the cells of one run."""
    config, summary = text_row(run.config), text_row(dict(run.summary))
    both = {f"config.{name}": config[name] for name in config.keys() & summary.keys()}
    row = config | both | {k: v for k, v in summary.items() if not k.startswith("_")}
    row["name"] = str(run.name or run.id)
    if run.state != FINISHED:
        row |= {"excluded": "true", "reason": f"its state is {run.state}"}
    return row
