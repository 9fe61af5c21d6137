"""Shared test settings: one thread a process, no network, offline W&B; tables in the summary."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# On a busy machine everything lasts: tests read what commands say for good.
os.environ.setdefault("KINESCALE_NOTICE_SECONDS", "3600")
os.environ.setdefault("KINESCALE_PLUGINS", "tests")  # toys of the tests are modules of their own

AddRow = Callable[..., None]


def child_seconds() -> float:
    """Return processor seconds of all children that ended: a busy machine adds little."""
    spent = os.times()
    return spent.children_user + spent.children_system


@dataclass
class Table:
    """What tests measured, printed after the run as a markdown table."""

    columns: Sequence[str]
    rows: list[tuple[object, ...]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the table as aligned markdown."""
        cells = [[str(value) for value in row] for row in (self.columns, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
            for row in cells
        ]
        return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]


_TABLES = pytest.StashKey[dict[str, Table]]()
Sent = dict[str, tuple[list[str], list[list[str]]]]  # title -> columns, rows; between processes


@pytest.fixture(scope="session")
def summary_table(pytestconfig: pytest.Config) -> Callable[[str, Sequence[str]], AddRow]:
    """Return ``table(title, columns) -> add_row(*values)``; equal titles share one table."""
    tables = pytestconfig.stash.setdefault(_TABLES, {})

    def table(title: str, columns: Sequence[str]) -> AddRow:
        made = tables.setdefault(title, Table(columns))

        def add_row(*values: object) -> None:
            assert len(values) == len(made.columns), f"{title}: {values} for {made.columns}"
            made.rows.append(values)

        return add_row

    return table


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the tables of a worker of pytest-xdist to the process that prints."""
    sent: Sent = {
        title: (list(table.columns), [[str(value) for value in row] for row in table.rows])
        for title, table in session.config.stash.get(_TABLES, {}).items()
    }
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tables"] = sent


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Take over a worker's tables; pytest-xdist calls it when a worker has ended."""
    tables = node.config.stash.setdefault(_TABLES, {})
    sent: Sent = getattr(node, "workeroutput", {}).get("tables", {})
    for title, (columns, rows) in sent.items():
        tables.setdefault(title, Table(columns)).rows.extend(map(tuple, rows))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the tables of the tests that ran."""
    for title, table in config.stash.get(_TABLES, {}).items():
        if table.rows:
            terminalreporter.section(title)
            for line in table.lines():
                terminalreporter.write_line(line)
