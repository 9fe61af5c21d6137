"""CSV that a spreadsheet opens as data: no cell of it is run as a formula."""

import base64
import csv
import io
import math

from sweeps.report.inputs.isoflop import to_number

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def neutralise(text: str) -> str:
    """Return a cell with a quote before what a spreadsheet would run; numbers stay numbers."""
    if text.startswith(_FORMULA) and not math.isfinite(to_number(text)):
        return "'" + text
    return text


def csv_data_uri(content: bytes) -> str:
    """Return a CSV file as a ``data:`` URI; its bytes are kept where no cell is dangerous."""
    text = content.decode("utf-8", errors="replace")
    rows = list(csv.reader(text.splitlines()))
    safe = [[neutralise(cell) for cell in row] for row in rows]
    if safe != rows:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows(safe)
        content = buffer.getvalue().encode("utf-8")
    return "data:text/csv;base64," + base64.b64encode(content).decode("ascii")
