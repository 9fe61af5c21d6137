"""The files of a synthetic study whose values come from a planted law."""

import csv
import json
import math
from pathlib import Path

import numpy as np

from sweeps.report.video import write_mp4

E, A, B, ALPHA, BETA = 0.22, 38.0, 320.0, 0.42, 0.44
BUDGETS = [3e11, 1e12, 3e12, 1e13, 4e13]
HELD_OUT = BUDGETS[-1]
HOSTILE = "</script><script>alert('x')</script><img src=https://evil.example/x onerror=alert(1)>"
LEVEL = 0.9
DIVERGED = '=cmd|"x"!A1'  # what a spreadsheet would run
ESCAPED_LINK = "src=https://evil.example"


def loss_of(params, tokens):
    return E + A / params**ALPHA + B / tokens**BETA


def best_params(flops):
    sizes = np.geomspace(1e4, 1e8, 4001)
    return float(sizes[np.argmin(loss_of(sizes, flops / (6 * sizes)))])


def around(value, width):
    return [value * (1 - width), value * (1 + width)]


def write_runs(
    study: Path, rng: np.random.Generator, budgets: list[float] = BUDGETS, sizes: int = 5
) -> list[dict]:
    rows = []
    for budget in budgets:
        for factor in np.geomspace(0.25, 4.0, sizes):
            params = round(best_params(budget) * factor)
            tokens = budget / (6 * params)
            loss = loss_of(params, tokens) * math.exp(rng.normal(0, 0.004))
            rows.append(
                {
                    "name": f"demo-{budget:.0e}-{params}".replace("+", ""), "params": params,
                    "tokens": round(tokens), "flops": budget, "flops_6nd": 0.93 * budget,
                    "loss": loss, "loss_noise": 0.002, "lr": 4e-3 * (tokens / 1e6) ** -0.2,
                    "batch_tokens": 2048, "excluded": 0, "reason": "", "budget": budget,
                    "phase": "grid", "width": 64, "depth": 4, "steps": round(tokens / 2048),
                    "seed": 0, "loss_real": loss * 1.18, "real_token_share": 0.24,
                    "seconds": budget / 2e10, "world_size": 1, "zero_stage": 0,
                    "padding_share": 0.004,
                }
            )  # fmt: skip
    diverged = {**rows[3], "name": DIVERGED, "loss": float("nan"), "excluded": 1}
    rows.append({**diverged, "reason": "loss is nan: the run diverged <b>&"})
    with (study / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for row in rows[:-1]:
        write_curve(study / "runs" / row["name"], row)
    return rows


def write_curve(run_dir: Path, row: dict) -> None:
    run_dir.mkdir(parents=True)
    lines = ["step,tokens,flops,loss,train_loss"]
    for share in np.geomspace(0.02, 1.0, 14):
        loss = loss_of(row["params"], share * row["tokens"]) * row["loss"]
        loss /= loss_of(row["params"], row["tokens"])
        lines.append(f"{share * row['steps']:.0f},0,{share * row['flops']},{loss},{loss}")
    (run_dir / "curve.csv").write_text("\n".join(lines) + "\n")
    (run_dir / "result.json").write_text(json.dumps(make_result(row)))


def make_result(row: dict) -> dict:
    """What a run leaves behind: losses by noise level and by group add up to its loss."""
    shapes = [("rooms", 1, 64, 96), ("rooms", 9, 64, 96), ("doom", 17, 96, 64)]
    weights = [0.7, 1.0, 1.3]
    groups = [
        {"world": world, "num_frames": frames, "height": height, "width": width, "clips": 4,
         "tokens": 400, "values": 1000.0, "errors": 1000.0 * weight * row["loss"], "variance": 4.0}
        for weight, (world, frames, height, width) in zip(weights, shapes, strict=True)
    ]  # fmt: skip
    return {
        "loss": row["loss"], "loss_noise": 0.001 * row["loss"],
        "loss_by_time": [1.6 * row["loss"], 0.6 * row["loss"], 0.5 * row["loss"],
                         1.3 * row["loss"]],
        "validation": {"val_worlds": {"loss": row["loss"], "groups": groups}},
        "params_detail": {"embedding": 0.02 * row["params"], "conditioning": 0.1 * row["params"],
                          "head": 0.01 * row["params"], "mlp": 0.87 * row["params"]},
        "schedule": {"warmup": 0.05, "decay": 0.3, "last_lr": 0.01 * row["lr"]},
        "accounting": {"epochs": 1.7},
    }  # fmt: skip


def make_law(rows: list[dict], budgets: list[float] = BUDGETS) -> dict:
    def frontier(flops):
        params = best_params(flops)
        tokens = flops / (6 * params)
        spread = 0.01 + 0.012 * max(0.0, math.log10(flops / 1e13))
        values = {"params": params, "tokens": tokens, "loss": loss_of(params, tokens)}
        widths = {"params": 0.16, "tokens": 0.14, "loss": spread}
        return {
            "flops": flops, **values, "interior": True, "extrapolation_factor": flops / 1e13,
            "intervals": {key: around(values[key], widths[key]) for key in values},
        }  # fmt: skip

    fitted = [row for row in rows if not row["excluded"] and row["budget"] != budgets[-1]]
    minima = [
        {**frontier(c), "budget": c * (1 + 1e-12), "interval": around(best_params(c), 0.2),
         "loss_interval": None, "reason": None, "sizes": 5, "intervals": {}}
        for c in budgets[:-1]
    ]  # fmt: skip
    end = frontier(budgets[-1])["loss"]
    actual = end * 1.013
    return {
        "form": "chinchilla", "objective": 1.7e-5, "level": LEVEL, "delta": 1e-3,
        "equation": "L = E + A / params^alpha + B / tokens^beta", "residual": "log",
        "starts": {"tried": 24, "agreeing": 22}, "gradient_norm": 3e-15, "condition": 4.1e3,
        "converged": True, "scatter": 0.0041, "noise_floor": 0.0051,
        "coefficients": {"E": E, "A": A, "B": B, "alpha": ALPHA, "beta": BETA},
        "intervals": {"E": [0.15, 0.27], "A": [9.0, 150.0], "alpha": [0.36, 0.47],
                      "B": [60.0, 1700.0], "beta": [0.37, 0.5]},
        "identified": {"E": {"ok": True, "reason": None},
                       "A": {"ok": False, "reason": "its interval spans more than a factor 10"}},
        "exponents": {"approach_3": {"params": BETA / (ALPHA + BETA), "interval": [0.46, 0.56]},
                      "approach_2": {"params": None, "reason": "1 interior minima"},
                      "approach_1": {"params": 0.49, "interval": [0.44, 0.55]},
                      "approach_2_bias": {"params_factor": 0.96, "exponent": -0.02}},
        "frontier": [frontier(c) for c in [*budgets, 1.6e14]], "isoflop": minima,
        "held_out": {"budget": budgets[-1], "predicted": end, "actual": actual,
                     "relative_error": end / actual - 1, "interval": around(end, 0.02),
                     "inside": True, "noise_floor": 0.005, "skill": 0.86, "skill_reason": None,
                     "extrapolation_factor": 4.0,
                     "runs": [{"name": "demo-4e13", "predicted": end, "actual": actual}]},
        "residuals": [{"name": row["name"], "params": row["params"], "log_residual":
                       math.log(loss_of(row["params"], row["tokens"]) / row["loss"])}
                      for row in fitted],
        "warnings": ["The frontier at 1.6e+14 FLOPs lies 16x beyond the largest fitted run, 4 "
                     "times further than the held-out test reached (4x).",
                     "A is not identified: its interval spans more than a factor 10."],
        "excluded": [{"name": DIVERGED, "reason": "loss is nan"}],
    }  # fmt: skip


def make_frames(height: int, width: int, clarity: float, seed: int) -> np.ndarray:
    """A ball over stripes, in noise that falls with compute."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    frames = []
    for step in range(9):
        place = 0.2 + 0.6 * step / 8
        ball = np.hypot(x - place * width, y - 0.55 * height) < 0.2 * height
        image = np.stack([90 + 60 * y / height, 120 + 40 * x / width, 150 + 0 * x], -1)
        image[ball] = (235, 190 - 30 * seed, 70 + 50 * seed)
        frames.append(image + rng.normal(0, 90 * (1 - clarity), image.shape))
    return np.clip(frames, 0, 255).astype(np.uint8)


def write_ladder(study: Path, budgets: list[float] = BUDGETS) -> None:
    prompts = [("corridor", "a corridor of green bricks", (48, 80)),
               ("ball", "an orange ball rolls over a grey floor", (48, 48)),
               ("tower", HOSTILE, (80, 44))]  # fmt: skip
    files = {}
    for number, (key, _, (height, width)) in enumerate(prompts):
        files[key] = []
        for column in range(len(budgets)):
            frames = make_frames(height, width, (column + 1) / len(budgets), number)
            write_mp4(study / "samples" / key / f"{column}.mp4", frames)
            files[key].append(f"samples/{key}/{column}.mp4")
    write_mp4(study / "samples" / "real.mp4", make_frames(48, 80, 1.0, 0))
    files["tower"][1] = "../../../etc/passwd"
    ladder = {
        "prompts": [{"id": k, "text": t, "shape": [9, *s]} for k, t, s in prompts],
        "columns": [{"budget": c, "run": f"demo-{c:.0e}", "params": best_params(c),
                     "loss": loss_of(best_params(c), c / 6 / best_params(c)), "flops": c}
                    for c in budgets],
        "files": files, "reference": {"corridor": "samples/real.mp4"},
    }  # fmt: skip
    (study / "samples" / "ladder.json").write_text(json.dumps(ladder))


def make_data() -> dict:
    return {
        "splits": {
            "train": {"sources": 31, "clips": 5120, "tokens": 1_310_720},
            "val_rendered": {"sources": 8, "clips": 96, "tokens": 24_576},
            "val_real": {"sources": 3, "clips": 41, "tokens": 11_890},
        },
        "licences": {"MIT": 4100, "CC-BY-3.0": 700, "unknown": 320},
        "rejects": [{"file": HOSTILE, "reason": "not a video"},
                    {"file": "tiny.mp4", "reason": "1x1 pixels: under one patch"}],
        "downscale": {"clips": 1290, "pixels_before": 9.1e9, "pixels_after": 1.2e9},
        "loader": {"tokens_packed": 1_305_411, "padding_share": 0.0041, "edge_padding": 5309,
                   "dropped": {"too long": 0, "unreadable": 2},
                   "decoders": {"decord": 5009, "pyav": 109}, "rendered_share": 0.76},
    }  # fmt: skip


def write_study(study: Path, budgets: list[float] = BUDGETS, sizes: int = 5) -> Path:
    study.mkdir(parents=True)
    rows = write_runs(study, np.random.default_rng(1), budgets, sizes)
    (study / "law.json").write_text(json.dumps(make_law(rows, budgets)))
    (study / "data.json").write_text(json.dumps(make_data()))
    write_ladder(study, budgets)
    about = {
        "name": "demo", "question": "How does video loss fall with compute on two CPU cores?",
        "command": "kinescale run study=demo",
        "config": {"note": HOSTILE, "budgets": budgets},
        "started": "2026-01-02 10:00", "finished": "2026-01-02 10:19", "seconds": 1140.0,
        "env": {"python": "3.11", "torch": "2.13.0+cpu", "cpu": "Xeon", "cores": 2,
                "memory": "16 GB",
                "packages": {"deepspeed": "0.19.8", "av": "18.1.0"}},
        "seeds_noise": {"mean": 0.412, "std": 0.0021, "n": 3},
        "twin": {"names": ["one", "two"], "max_relative_difference": 2.1e-7, "ok": True},
        "recipe": "lr = 4e-3 (tokens / 1e6)^-0.2; batch 2,048 tokens.", "pilot": "Five sizes.",
    }  # fmt: skip
    (study / "study.json").write_text(json.dumps(about))
    return study
