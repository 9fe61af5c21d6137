"""Every line of docs/first_day.md that a GPU must show something of has rows in ``gpu-check``."""

from pathlib import Path

import pytest
import torch

from trainer.gpu_checks import check, layouts
from trainer.gpu_checks.report import Settings

PAGE = Path(__file__).parents[3] / "docs" / "first_day.md"
HEADING = ["line", "mended", "how it was proven", "what a GPU must still show"]
# Beginning of a line -> parts of the titles of rows, each with its check.
MET = {
    "bf16 gradients of modulation and of a norm": [
        ("gradients", "gradient of modulation, bf16, 65,536 rows a segment, twice"),
        ("gradients", "gradient of modulation, bf16, 65,536 rows a segment, and fp64"),
        ("gradients", "its time"),
        ("gradients", "gradient of a norm's weight"),
        ("resume", "bf16, and stopped after 3 and resumed, deterministic"),
    ],
    "No layout was held against fp32 in bf16": [
        ("gradients", "all gradients of a step, bf16 and fp32, wide"),
        ("arithmetic", "in bf16 and in fp32, ZeRO 1"),
    ],
    "Gradients added up in bf16": [
        ("memory", "ZeRO 2, fp32 gradients"),
        ("kernels", "gradients fp32: overlap_comm and not"),
    ],
    "Context parallelism beyond heads": [
        ("layouts", "cp2 ZeRO 1 head_ranks 1"),
        ("attention", "parts of segments"),
    ],
    "Under ZeRO 3 every device": [("memory", "ZeRO 3, bf16")],
    "Every rank makes every process group": [("layouts", "tp2-cp2-pp2-dp2")],
    "One time-out for start and training": [("layouts", "dp2 ZeRO 1")],
    "Pipeline: sends are held": [("layouts", "pp2 ZeRO 0"), ("layouts", "pp2-dp2 ZeRO 2")],
    "Every peer reads and decodes": [("links", "a pack of 256 MiB handed to a peer")],
    "Sampling, scoring and encoding on CPU": [
        ("sampling", "on the device and on CPU"),
        ("sampling", "drawn in bf16"),
    ],
    "The flight recorder is lost": [("links", "the flight recorder names the last collective")],
    "Compile with recompute compiles nothing": [
        ("speed", "bf16, compiled"),
        ("arithmetic", "torch.compile of the blocks and eager, bf16"),
        ("arithmetic", "recompute selective and none, bf16"),
    ],
    "Fast kernels": [
        *(
            ("attention", f"{kernel} bf16: forward and backward")
            for kernel in ("varlen", "fa3", "flash", "te")
        ),
        *(
            ("attention", f"{kernel} bf16 and loop fp32: cross, head 64")
            for kernel in ("varlen", "fa3", "flash", "te")
        ),
        ("kernels", "te norm bf16 and torch's"),
        ("kernels", "te norm bf16: forward"),
        ("kernels", "float8 and bf16"),
        ("kernels", "products float8, bf16"),
    ],
    "Gradients of tensor ranks' rows": [("layouts", "tp2 ZeRO 0")],
    "ZeRO reduces after the backward pass": [
        ("layouts", "dp2 ZeRO 2 scatter"),
        ("layouts", "dp2 ZeRO 3 overlap"),
        ("kernels", "overlap_comm and not"),
    ],
}
# Words of the last column of lines that ten minutes on one machine cannot meet, or do not yet.
ELSEWHERE = ("study", "shared file system", "no row of gpu-check yet")


def lines() -> dict[str, str]:
    """Return title -> last column of every line of both tables."""
    found: dict[str, str] = {}
    inside = False
    for text in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in text.strip("|").split("|")]
        if cells == HEADING:
            inside = True
        elif not text.startswith("|"):
            inside = False
        elif inside and not cells[0].startswith("---"):
            assert len(cells) == len(HEADING), text
            found[cells[0]] = cells[-1]
    return found


@pytest.fixture
def titles(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Return the titles of all rows on a machine with 16 GPUs, of which none is asked to work."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 16)
    monkeypatch.setattr(layouts, "_train", lambda jobs, settings: ["not run"] * len(jobs))
    settings = Settings(torch.device("cuda"), quick=False)
    return {name: [case.compared for case in check._cases(name)(settings)] for name in check.CHECKS}


def test_every_line_that_a_gpu_must_meet_has_rows_that_meet_it(
    titles: dict[str, list[str]],
) -> None:
    found = lines()
    assert len(found) > 25
    for title, shown in found.items():
        parts = [parts for beginning, parts in MET.items() if title.startswith(beginning)]
        if shown == "nothing" or any(word in shown for word in ELSEWHERE):
            assert not parts, title
            continue
        assert len(parts) == 1, f"{title}: {shown}"
        for name, part in parts[0]:
            assert any(part in row for row in titles[name]), (title, name, part)


def test_no_row_is_said_to_meet_a_line_that_is_not_there() -> None:
    for beginning in MET:
        assert sum(title.startswith(beginning) for title in lines()) == 1, beginning


def test_titles_of_rows_are_unlike_each_other_and_fit_their_column(
    titles: dict[str, list[str]],
) -> None:
    from trainer.gpu_checks.report import WIDTHS

    for name, rows in titles.items():
        assert len(set(rows)) == len(rows), name
        assert max(map(len, rows)) <= WIDTHS["compared"] + 8, max(rows, key=len)
