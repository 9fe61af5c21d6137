"""What the data were: splits side by side, real sources with licences, how the packs were filled.

Reads ``data.json``, whose keys the data room decides; what is missing is left out. The rest of the
file is shown folded, by :func:`sweeps.report.tables.isoflop.tabulate`.
"""

import math
from typing import Any

from sweeps.report.inputs.isoflop import Inputs, Json, mapping, records, to_number
from sweeps.report.tables.isoflop import Cell, Table, make_table, number_cell, pairs_table
from sweeps.report.wording import format_percent

_COUNTS = ("sources", "clips", "images", "frames", "tokens")
_FACTS = {
    "token_cap": "at most {} tokens a clip", "max_frames": "at most {} frames",
    "cell": "a token is {} frames and pixels",
}  # fmt: skip


def accounting_tables(inputs: Inputs) -> list[Table]:
    """Return the tables that a reader wants first."""
    found = [_splits(inputs), _packing(inputs), _real_sources(inputs), _rejects(inputs)]
    return [table for table in found if table is not None]


def folded(inputs: Inputs) -> dict[str, Any]:
    """Return data.json without the long lists that nobody reads on a page."""
    data = {k: v for k, v in inputs.data.items() if k not in ("splits", "shards", "indexes")}
    if accounting := mapping(data.get("accounting")):
        data["accounting"] = {k: v for k, v in accounting.items() if not isinstance(v, dict)}
    splits = mapping(inputs.data.get("splits"))
    data["histograms"] = {
        name: mapping(split).get("histograms")
        for name, split in splits.items()
        if isinstance(split, dict)
    }
    return data


def _splits(inputs: Inputs) -> Table | None:
    """Return one column a split."""
    splits = {k: mapping(v) for k, v in mapping(inputs.data.get("splits")).items()}
    if not splits:
        return None
    rows = [
        [Cell(key), *(number_cell(_count(s, key), _shown(_count(s, key))) for s in splits.values())]
        for key in _COUNTS
    ]
    shares = {
        "real share of tokens": lambda s: _ratio(s.get("tokens_real"), s.get("tokens")),
        "edge padding of the token grid": lambda s: to_number(s.get("edge_padding_share")),
        "pixels kept by the token cap": lambda s: _ratio(
            mapping(s.get("downscale")).get("kept_pixels"),
            mapping(s.get("downscale")).get("source_pixels"),
        ),
    }
    for name, share in shares.items():
        rows.append([Cell(name), *(_percent(share(s)) for s in splits.values())])
    for name in ("landscape", "portrait", "square"):
        shapes = [_histogram(s, "aspect_ratio", name) for s in splits.values()]
        rows.append([Cell(f"{name} samples"), *(number_cell(n, _shown(n)) for n in shapes)])
    data = inputs.data
    facts = [text.format(_sides(data[key])) for key, text in _FACTS.items() if key in data]
    told = f" ({', '.join(facts)})" if facts else ""
    return make_table(f"Splits, by source{told}", ["", *splits], rows)


def _sides(value: object) -> str:
    return " × ".join(map(str, value)) if isinstance(value, list) else str(value)


def _packing(inputs: Inputs) -> Table | None:
    """Return how the loader filled the packs of the run it is reported for."""
    account = mapping(inputs.data.get("accounting"))
    if not account:
        return None
    tokens = to_number(account.get("tokens"))
    real = 1 - to_number(account.get("rendered_tokens")) / tokens
    dropped = account.get("dropped")
    encoded = mapping(mapping(inputs.data.get("reading")).get("decoders"))
    pairs = [
        ("Run", str(account.get("run", ""))),
        ("Videos and images packed", f"{account.get('videos')} and {account.get('images')}"),
        ("Tokens packed", _shown(tokens)),
        ("Padding", _text(format_percent, to_number(account.get("padding_share")))),
        ("Tokens from real sources", _text(format_percent, real)),
        ("Passes over the training split", f"{to_number(account.get('epochs')):.1f}"),
        ("Samples dropped", str(len(dropped) if isinstance(dropped, list) else 0)),
        ("Samples read by", _decoders(mapping(account.get("decoders")))),
        ("Clips decoded for encoding by", _decoders(encoded)),
    ]
    return pairs_table("Loading, for the largest run: no crop, no stretch", pairs)


def _decoders(counts: Json) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "not recorded"


def _real_sources(inputs: Inputs) -> Table | None:
    """Return the real sources with licence and samples, by split."""
    rows = []
    for split, value in mapping(inputs.data.get("splits")).items():
        for name, source in mapping(mapping(value).get("sources")).items():
            licence = str(mapping(source).get("licence", ""))
            if "rendered" not in licence:
                count = to_number(mapping(source).get("samples"))
                rows.append(
                    [Cell(name), Cell(split), number_cell(count, _shown(count)), Cell(licence)]
                )
    columns = ["source", "split", "samples", "licence"]
    return make_table("Real sources", columns, rows) if rows else None


def _rejects(inputs: Inputs) -> Table | None:
    rejects = records(inputs.data.get("rejects"))
    rows = [[Cell(str(value)) for value in reject.values()] for reject in rejects]
    if not rejects:
        return pairs_table("Rejected files", [("none", "every input file was read")])
    return make_table("Rejected files", [str(key) for key in rejects[0]], rows)


def _count(split: Json, key: str) -> float:
    value = split.get(key)
    return float(len(value)) if isinstance(value, dict) else to_number(value)


def _histogram(split: Json, name: str, key: str) -> float:
    counts = mapping(mapping(split.get("histograms")).get(name))
    return to_number(counts.get(key)) if key in counts else 0.0


def _ratio(part: object, whole: object) -> float:
    total = to_number(whole)
    return to_number(part) / total if total else math.nan


def _percent(share: float) -> Cell:
    return number_cell(share, _text(format_percent, share))


def _shown(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else ""


def _text(form: Any, value: float) -> str:
    return form(value) if math.isfinite(value) else ""
