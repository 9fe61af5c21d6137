"""The page's account of the data: what is shown first, what is folded, what may be missing."""

from pathlib import Path

from sweeps.report.inputs.isoflop import Inputs
from sweeps.report.tables.data import accounting_tables, folded
from sweeps.report.tables.isoflop import Table

SPLIT = {
    "clips": 1200,
    "tokens": 1000,
    "tokens_real": 250,
    "downscale": {"kept_pixels": 1, "source_pixels": 4},
    "histograms": {"aspect_ratio": {"portrait": 7}},
    "sources": {
        "pkg/film.mp4": {"licence": "package licence: MIT (clip not proven)", "samples": 3},
        "rooms/seed-1": {"licence": "rendered here, free of rights", "samples": 2},
    },
}


def cells(table: Table) -> dict[str, list[str]]:
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}


def test_splits_stand_side_by_side_with_their_shares() -> None:
    inputs = Inputs(Path(), data={"splits": {"train": SPLIT, "val": {}}})
    table = cells(accounting_tables(inputs)[0])
    assert table["clips"][0] == "1,200"
    assert table["real share of tokens"][0] == "25.0 %"
    assert table["pixels kept by the token cap"][0] == "25.0 %"
    assert table["portrait samples"][0] == "7"


def test_real_sources_are_listed_with_their_licence_and_rendered_ones_are_not() -> None:
    inputs = Inputs(Path(), data={"splits": {"train": SPLIT}})
    listed = [table for table in accounting_tables(inputs) if table.caption == "Real sources"]
    assert list(cells(listed[0])) == ["pkg/film.mp4"]
    assert "clip not proven" in cells(listed[0])["pkg/film.mp4"][-1]


def test_rejects_are_shown_or_said_to_be_none() -> None:
    reject = {"file": "bad.mp4", "reason": "no frame", "remedy": "re-encode it"}
    shown = accounting_tables(Inputs(Path(), data={"rejects": [reject]}))[-1]
    assert cells(shown)["bad.mp4"] == ["no frame", "re-encode it"]
    assert "every input file was read" in cells(accounting_tables(Inputs(Path()))[-1])["none"]


def test_the_rest_of_the_record_is_folded_without_its_long_lists() -> None:
    data = {"splits": {"train": SPLIT}, "shards": {"a": 1}, "accounting": {"x": 1, "by": {"k": 2}}}
    rest = folded(Inputs(Path(), data=data))
    assert "shards" not in rest
    assert rest["accounting"] == {"x": 1}
    assert rest["histograms"] == {"train": SPLIT["histograms"]}
