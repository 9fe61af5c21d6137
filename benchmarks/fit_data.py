"""Read the public scaling-law measurements that lie beside the checkout, when they do.

They are read here and by tests, never copied into the project. `KINESCALE_REFERENCE` names another
place.
"""

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.fit.forms.base import Array

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "reference_data"
REFERENCE = Path(os.environ.get("KINESCALE_REFERENCE", BESIDE)) / "scaling"
ABSENT = "the shared reference data beside the checkout is absent (or set KINESCALE_REFERENCE)"

Columns = dict[str, Array]
EMBEDDINGS = 50304  # rows of the embedding that the no_embeds variants leave out, times width
PORIAN_KEYS = ("summary_file", "dataset", "hparams", "warmup", "decay", "param_count", "val")
OPENLM_SMALL = ("d=96_l=8_h=4", "d=512_l=8_h=4", "d=576_l=24_h=8", "d=1024_l=24_h=8")
TRAINED = ("cosine_24000", "constant_24000", "wsdcon_9")
HELD_OUT = (
    "constant_72000", "cosine_72000", "wsd_20000_24000", "wsdld_20000_24000", "wsdcon_3",
    "wsdcon_18",
)  # fmt: skip


def present() -> bool:
    """Say whether the reference data is there."""
    return REFERENCE.is_dir()


def _rows(*parts: str) -> list[dict[str, str]]:
    with REFERENCE.joinpath(*parts).open(newline="") as file:
        return list(csv.DictReader(file))


def _column(rows: list[dict[str, str]], name: str) -> Array:
    return np.array([float(row[name]) for row in rows])


def epoch() -> tuple[Columns, Array]:
    """Return the 240 points of Besiroglu et al. 2024: all but the five largest losses."""
    rows = _rows("epoch_chinchilla", "svg_extracted_data.csv")
    params, flops, loss = (_column(rows, n) for n in ("Model Size", "Training FLOP", "loss"))
    kept = np.argsort(loss)[:-5]
    return {"params": params[kept], "tokens": (flops / (6 * params))[kept]}, loss[kept]


def gemstones() -> list[tuple[str, str, Columns, Array, float]]:
    """Return (name, form, columns, loss, published objective) of the 20 fits of McLeish et al."""
    found = []
    for path in sorted((REFERENCE / "gemstones" / "parameters_delta-3").glob("*.json")):
        kind, name = path.stem.removeprefix("approach_3_").split("_grid_search_0_")
        form = {"parameters": "chinchilla", "width_depth": "width_depth"}.get(
            kind, "width_depth_params"
        )
        runs = name.removesuffix("_no_embeds")
        lines = (
            (REFERENCE / "gemstones" / "wandb_dfs" / f"wandb_df_for_fitting_{runs}.jsonl")
            .read_text()
            .splitlines()
        )
        rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
        names = {"params": "params_active_precise", "tokens": "tokens"}
        names |= {n: n for n in ("width", "depth") if n in rows[0]}
        columns = {ours: _column(rows, theirs) for ours, theirs in names.items()}
        if name.endswith("_no_embeds"):
            columns["params"] = columns["params"] - EMBEDDINGS * columns["width"]
        published = float(json.loads(path.read_text())["loss"]["0"])
        found.append((name, form, columns, _column(rows, "final_loss"), published))
    return found


def porian() -> list[tuple[dict[str, str], list[tuple[float, Array, Array]]]]:
    """Return (published fit, (FLOPs, params, loss) of each budget) of the ten configurations."""
    points = _rows("porian", "isoflop_points.csv")
    found = []
    for reference in _rows("porian", "fits_reference.csv"):
        mine = [p for p in points if all(p[k] == reference[k] for k in PORIAN_KEYS)]
        budgets = sorted({float(p["flops"]) for p in mine})
        tables = []
        for budget in budgets:
            rows = [p for p in mine if float(p["flops"]) == budget]
            tables.append((budget, _column(rows, "n"), _column(rows, "loss")))
        found.append((reference, tables))
    return found


def openlm() -> tuple[Columns, Array, list[tuple[str, Columns, float]]]:
    """Return the five small runs of Gadre et al. 2024 (C4 loss) and the two large ones, named."""
    rows = _rows("openlm_overtrain", "loss_table_rpj.csv")

    def is_small(row: dict[str, str]) -> bool:
        times = float(row["cc_mult"])
        return row["model"] in OPENLM_SMALL and (
            times == 1 or (times == 16 and row["model"] == OPENLM_SMALL[0])
        )

    def columns(chosen: list[dict[str, str]]) -> Columns:
        return {"params": _column(chosen, "N"), "tokens": _column(chosen, "D")}

    small = [row for row in rows if is_small(row)]
    large = [
        (name, columns([row]), float(row["loss_c4_val"]))
        for row in rows
        for name, model, times in (("1.4B", "open_lm_1b", 32), ("6.9B", "open_lm_7b", 1))
        if row["model"] == model and float(row["cc_mult"]) == times
    ]
    return columns(small), _column(small, "loss_c4_val"), large


def datablations() -> tuple[Columns, Array]:
    """Return the 182 runs of Muennighoff et al. 2023 that their fit uses."""
    rows = _rows("datablations", "fit_points_182.csv")
    names = ("params", "tokens", "unique_tokens")
    return {n: _column(rows, n) for n in names}, _column(rows, "val_loss")


def curves(names: tuple[str, ...]) -> tuple[Columns, Array]:
    """Return loss curves of the 100M model of Luo et al. 2025 by the names of their schedules."""
    parts = [_rows("multipowerlaw", "csv_100", f"{name}.csv") for name in names]
    index = np.concatenate([np.full(len(p), float(i)) for i, p in enumerate(parts)])
    rows = [row for part in parts for row in part]
    columns = {"curve": index, "step": _column(rows, "step"), "lr": _column(rows, "lr")}
    return columns, _column(rows, "loss")


def curves_of_25(part: str) -> tuple[Columns, Array]:
    """Return the curves of the 25M model of Luo et al. 2025, `part` train or test."""
    rows = _rows("forecast", "curves", f"mpl_25_{part}.csv")
    index = {name: float(i) for i, name in enumerate(dict.fromkeys(r["curve"] for r in rows))}
    curve = np.array([index[row["curve"]] for row in rows])
    return {"curve": curve, **{n: _column(rows, n) for n in ("step", "lr")}}, _column(rows, "loss")


def steplaw() -> Columns:
    """Return the 1,911 runs of Li et al. 2025 over (params, tokens, lr, batch in sequences)."""
    rows = _rows("steplaw", "dense_lr_bs_loss.csv")
    names = {"params": "N", "tokens": "D", "lr": "lr", "batch": "bs", "loss": "smooth loss"}
    return {ours: _column(rows, theirs) for ours, theirs in names.items()}


def dit() -> tuple[Columns, Array]:
    """Return forward FLOPs and FID of the 12 models that Peebles and Xie 2023 correlate."""
    same = {"resolution": "256", "steps_K": "400", "block": "adaLN-Zero"}
    rows = _rows("dit", "dit_table4.csv")
    rows = [row for row in rows if all(row[k] == v for k, v in same.items())]
    return {"flops": 1e9 * _column(rows, "gflops_fwd")}, _column(rows, "fid50k_noguid")
