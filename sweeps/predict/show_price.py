"""Costs of a target loss as tables, and as a page with a figure."""

import io
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from rich.table import Table

from data.files import write_text
from launch.planner.console import wide_console
from sweeps.predict.price import Cost, Frontier, PriceConfig

FAR = 10.0  # times beyond the largest fitted budget from which a target is called far

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 58rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c2128; background: #fefefe }
table { border-collapse: collapse; margin: 1rem 0; font-size: .9rem }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #e3e5e9; text-align: right }
th:first-child, td:first-child, .left { text-align: left }
svg { width: 100%; height: auto }
.note { color: #5f6772 }
"""


def show_costs(
    frontier: Frontier, settings: PriceConfig, found: Sequence[Cost], factors: Sequence[float]
) -> None:
    """Print what each target costs today and in later years."""
    console = wide_console()
    for title, head, rows in _tables(found, factors):
        table = Table(title=title)
        for index, name in enumerate(head):
            table.add_column(name, justify="left" if index == 0 else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for line in _notes(frontier, settings, found):
        console.print(line, markup=False, highlight=False)


def write_page(
    path: Path,
    frontier: Frontier,
    settings: PriceConfig,
    found: Sequence[Cost],
    factors: Sequence[float],
) -> None:
    """Write one static page: figure, tables, assumptions."""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>Cost of a loss</title><style>{_STYLE}</style>",
        "<h1>What a loss costs</h1>",
        _figure(found, factors),
    ]
    for title, head, rows in _tables(found, factors):
        cells = "".join(f"<th>{escape(name)}</th>" for name in head)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
        )
        parts.append(f"<h2>{escape(title)}</h2><table><tr>{cells}</tr>{body}</table>")
    parts += [f"<p class='note'>{escape(line)}</p>" for line in _notes(frontier, settings, found)]
    write_text(path, "\n".join(parts) + "\n")


def _tables(
    found: Sequence[Cost], factors: Sequence[float]
) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Yield (title, head, rows): the targets, their cost today, and in later years."""
    targets = {cost.loss: cost for cost in found}.values()
    yield (
        "targets",
        ["loss", "params", "tokens", "FLOPs", "beyond the runs"],
        [
            [
                f"{cost.loss:.4g}", f"{cost.params:.3g}", f"{cost.tokens:.3g}",
                f"{cost.flops:.3g}", f"{cost.beyond:.3g}x",
            ]
            for cost in targets
        ],
    )  # fmt: skip
    rows = [
        [
            f"{cost.loss:.4g}", cost.machine, f"{cost.flops_per_second / 1e12:.3g}",
            f"{cost.device_hours:.3g}", f"{cost.kilowatt_hours:.3g}",
            f"{cost.money:.3g} {cost.currency}",
            f"{cost.interval[0]:.2g} to {cost.interval[1]:.2g}",
        ]
        for cost in found
    ]  # fmt: skip
    head = ["loss", "machine", "TFLOP/s", "device-hours", "kWh", "money", "if the law errs"]
    yield "today", head, rows
    years = [f"+{year} y" if year else "today" for year in range(len(factors))]
    later = [
        [f"{cost.loss:.4g}", cost.machine, *(f"{cost.money * factor:.3g}" for factor in factors)]
        for cost in found
    ]
    yield "in later years, in the same money", ["loss", "machine", *years], later


def _notes(frontier: Frontier, settings: PriceConfig, found: Sequence[Cost]) -> Iterator[str]:
    """Yield every assumption, and what the law says against itself."""
    law = frontier.law
    values = ", ".join(f"{name} = {value:.4g}" for name, value in law.coefficients.items())
    yield (
        f"The law: {law.form.equation}, {values}, FLOPs = {frontier.flops_per_param_token:.3g} "
        f"params tokens, fitted up to {frontier.largest_flops:.3g} FLOPs; 'if the law errs' moves "
        "its loss by its interval there."
    )
    speed = (
        f"mfu {settings.mfu:g}"
        if settings.mfu
        else f"speed of a device from launch/conf/machine, models {settings.width_per_block:g} "
        f"wide a block, packs of {settings.pack_tokens} tokens, clips of {settings.clip_tokens}, "
        f"{settings.parallel_share:g} left by "
        "communication and bubbles"
    )
    yield (
        f"Assumed: {speed}; a year changes the price of a device-hour by "
        f"{settings.price_per_year:+.0%}, its FLOP/s by {settings.efficiency_per_year:+.0%}, the "
        f"worth of a FLOP by {settings.algorithm_per_year:+.0%}. Prices: launch/conf/machine."
    )
    beyond = max(cost.beyond for cost in found)
    if beyond > FAR:
        yield (
            f"Warning: targets up to {beyond:.3g} times beyond the runs "
            "the law was fitted to: a guess, not a forecast."
        )
    for warning in law.warnings:
        yield f"The law warns: {warning}"


def _figure(found: Sequence[Cost], factors: Sequence[float]) -> str:
    """Return an SVG of money over years, one line a target and machine."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "font.size": 11}):
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        axes = figure.subplots()
        styles = dict(zip(sorted({c.loss for c in found}), ("-", "--", ":", "-."), strict=False))
        names = sorted({cost.machine for cost in found})
        for cost in found:
            axes.plot(
                range(len(factors)),
                [cost.money * factor for factor in factors],
                color=matplotlib.colormaps["viridis"](names.index(cost.machine) / len(names)),
                linestyle=styles.get(cost.loss, "-"),
                marker="o",
                markersize=3,
                label=f"loss {cost.loss:.3g}, {cost.machine}",
            )
        axes.set_yscale("log")
        axes.set_xticks(range(len(factors)))
        axes.set_xlabel("years from now")
        axes.set_ylabel(f"money, {found[0].currency}")
        axes.grid(visible=True, color="#e3e5e9")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside right upper", frameon=False, fontsize=9)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
