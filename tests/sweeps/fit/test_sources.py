"""A table comes from a file, a DataFrame, a list or a tracker's project, and is the same law."""

import importlib.util
import json
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from sweeps.fit.__main__ import main
from sweeps.fit.forms.catalogue import CHINCHILLA, FORMS
from sweeps.fit.law import law_of_table
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.read import read_rows
from sweeps.fit.rows.recipes import at_optima
from sweeps.fit.rows.table import read_table

FEW = FitOptions(resamples=2)


def records(num=12):
    """Return runs of a known law as dicts."""
    rng = np.random.default_rng(0)
    params, tokens = 10 ** rng.uniform(7, 9.5, num), 10 ** rng.uniform(9, 11, num)
    loss = 1.69 + 406.4 / params**0.34 + 410.7 / tokens**0.28
    rows = zip(params.tolist(), tokens.tolist(), loss.tolist(), strict=True)
    return [dict(zip(("params", "tokens", "loss"), row, strict=True)) for row in rows]


class Frame:
    """A DataFrame as pandas has it, of rows, with its missing values."""

    def __init__(self, rows):
        self.rows, self.columns = rows, list(rows[0])

    def to_dict(self, orient):
        assert orient == "records"
        return self.rows


class PolarsFrame:
    """A DataFrame as polars has it."""

    def __init__(self, rows):
        self.rows = rows

    def to_dicts(self):
        return self.rows


def array(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps(records()))
    return path


def lines_called_json(tmp_path):
    path = tmp_path / "lines.json"
    path.write_text("\n".join(json.dumps(row) for row in records()))
    return path


@pytest.mark.parametrize(
    "source",
    [
        lambda _: records(),
        lambda _: tuple(records()),
        lambda _: Frame(records()),
        lambda _: PolarsFrame(records()),
        array,
        lambda path: str(array(path)),
        lines_called_json,
    ],
    ids=["list", "tuple", "pandas", "polars", "json", "text", "lines"],
)
def test_the_rows_of_every_source_are_the_same(tmp_path, source):
    table = read_table(source(tmp_path), CHINCHILLA, {})
    given = records()
    assert table.target.tolist() == [row["loss"] for row in given]
    for column in ("params", "tokens"):
        assert table.columns[column].tolist() == [row[column] for row in given]


@pytest.mark.heavy
def test_a_list_of_dicts_gives_a_law_and_rows_are_called_by_their_number():
    law = law_of_table(records(), options=FEW)
    assert law.fit.coefficients["alpha"] == pytest.approx(0.34, rel=1e-6)
    assert law.runs[0].name == "row 1"


@pytest.mark.skipif(not importlib.util.find_spec("polars"), reason="pip install kinescale[tables]")
def test_parquet_and_real_frames_are_read(tmp_path):
    import polars

    frame = polars.DataFrame(records())
    frame.write_parquet(tmp_path / "t.parquet")
    assert read_rows(tmp_path / "t.parquet") == read_rows(records())
    assert read_rows(frame) == read_rows(records())
    (tmp_path / "bad.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match="is not a parquet file that polars reads"):
        read_rows(tmp_path / "bad.parquet")


def test_parquet_without_its_reader_says_what_to_install(tmp_path, monkeypatch, capsys):
    for module in ("polars", "pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1")
    assert main([f"table={path}"]) == 2
    assert (
        "needs a reader of parquet. Run pip install 'kinescale[tables]'" in capsys.readouterr().err
    )


def test_missing_values_are_blank_and_nested_entries_have_dotted_names():
    missing = float("nan")
    rows, places = read_rows(
        Frame([
            {"params": np.float64(1e6), "cluster": missing, "model": {"depth": 3, "w": {"d": 4}}},
            {"params": missing, "cluster": None, "model": {}},
            {"params": 2, "cluster": "nan", "model": {"depth": 5}},
        ])
    )  # fmt: skip
    assert places == ["row 1", "row 3"]  # the second holds nothing
    assert rows[0] == {"params": "1000000.0", "cluster": "", "model.depth": "3", "model.w.d": "4"}
    assert rows[1]["cluster"] == "nan"  # a name, given as text


@pytest.mark.heavy
def test_a_blank_loss_is_a_run_that_has_not_ended_and_another_blank_cell_is_refused(tmp_path):
    rows = records()
    law = law_of_table([*rows, {"params": 1e8, "tokens": 1e9, "loss": None}], options=FEW)
    assert [run["name"] for run in law.excluded] == ["row 13"]
    assert "has not ended" in law.excluded[0]["reason"]
    with pytest.raises(ValueError, match=r"params='' in row 13: is blank, which only loss may be"):
        read_table([*rows, {"params": None, "tokens": 1e9, "loss": 3.0}], CHINCHILLA, {})
    path = tmp_path / "t.csv"
    path.write_text("params,tokens,loss\n1e6,1e8,3\n1e7,1e8,\n,,\n,1e8,2.5\n")
    with pytest.raises(ValueError, match=r"params='' in line 5: is blank"):
        read_table(path, CHINCHILLA, {})


def test_an_excluded_row_may_be_blank_wherever_it_is_and_a_learning_rate_may_be_missing():
    failed = {"params": None, "excluded": "yes", "reason": "crashed"}
    given = [{"params": r["params"], "flops": 6 * r["params"] * r["tokens"], "loss": r["loss"]}
             for r in records()]  # fmt: skip
    table = read_table([failed, *given], CHINCHILLA, {})
    assert table.excluded == [{"name": "row 1", "reason": "crashed"}]
    assert table.columns["tokens"] == pytest.approx([r["tokens"] for r in records()])
    swept = [{"params": r["params"], "tokens": r["tokens"], "lr": 1e-3} for r in records()]
    swept[4]["lr"] = None
    kept = at_optima(FORMS["lr"], read_table(swept, FORMS["lr"], {}))
    assert len(kept.target) == 11
    assert kept.excluded == [{"name": "row 5", "reason": "no lr is given"}]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (3, "table=int: is no table"),
        ({"loss": [1.0]}, "Give a path, wandb:entity/project, a DataFrame"),
        ([1, 2], "table=list: row 1 must hold one object"),
        ([], "has a header and no rows"),
        ("wandb:lab", "table=wandb:lab: must be wandb:entity/project"),
    ],
)
def test_what_is_no_table_is_refused(source, said):
    with pytest.raises(ValueError) as caught:
        read_rows(source)
    assert said in str(caught.value)


def test_json_that_is_no_array_of_objects_is_refused(tmp_path):
    path = tmp_path / "t.json"
    for text, said in (
        ("[1, 2]", "row 1 must hold one object"),
        ("[{", "is not a JSON array of objects"),
        ("[" * 100_000, "is not a JSON array of objects"),
        ("", "is not a JSON array of objects"),
        ("3", "line 1 must hold one JSON object"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            read_rows(path)


# --- W&B ------------------------------------------------------------------------------------------


class Project(BaseHTTPRequestHandler):
    """Answers W&B's public API as far as the runs of one project go, a page of five at a time."""

    protocol_version = "HTTP/1.1"
    runs: list = []  # noqa: RUF012  set before it serves

    def log_message(self, format, *args):
        """Say nothing."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        query, given = asked.get("query", ""), asked.get("variables") or {}
        data = {"viewer": {"id": "1", "entity": "lab", "username": "me", "email": "",
                           "flags": "{}", "teams": {"edges": []}}}  # fmt: skip
        if "query Runs" in query:
            known = (given["entity"], given["project"]) == ("lab", "ladder")
            data = {"project": self.page(int(given.get("cursor") or 0)) if known else None}
        content = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def page(self, start):
        shown = self.runs[start : start + 5]
        edges = [{"node": run, "cursor": str(start + i + 1)} for i, run in enumerate(shown)]
        more = {"endCursor": str(start + 5), "hasNextPage": start + 5 < len(self.runs)}
        return {"internalId": "1", "runCount": len(self.runs), "readOnly": False,
                "runs": {"edges": edges, "pageInfo": more}}  # fmt: skip


def node(number, row, state="finished"):
    config = {"model": {"value": {"params": row["params"]}}, "loss": {"value": "mse"}}
    summary = {"train/tokens": row["tokens"], "loss": row["loss"], "_step": 7}
    return {
        "id": f"i{number}", "name": f"r{number}", "displayName": f"ladder-{number}", "state": state,
        "config": json.dumps(config), "summaryMetrics": json.dumps(summary), "tags": [],
        "systemMetrics": "{}", "sweepName": None, "group": None, "jobType": None, "commit": None,
        "createdAt": "2026-01-01T00:00:00", "heartbeatAt": None, "description": "", "notes": "",
        "readOnly": False, "historyLineCount": 1, "historyKeys": None, "projectId": "1",
        "user": {"name": "me", "username": "me"},
    }  # fmt: skip


@contextmanager
def serving(runs):
    handler = type("Served", (Project,), {"runs": runs})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.heavy
def test_the_runs_of_a_project_on_wandb_are_rows(monkeypatch):
    runs = [node(i, row) for i, row in enumerate(records())]
    runs[3]["state"], runs[7]["state"] = "running", "crashed"
    with serving(runs) as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        rows, places = read_rows("wandb:lab/ladder")
        table = read_table(
            "wandb:lab/ladder", CHINCHILLA, {"params": "model.params", "tokens": "train/tokens"}
        )
        with pytest.raises(ValueError, match=r"table=wandb:lab/other: W&B does not give it"):
            read_rows("wandb:lab/other")
    assert places[:2] == ["run r0", "run r1"]
    assert rows[0]["config.loss"] == "mse"  # the summary's, which was measured, is `loss`
    assert "_step" not in rows[0]
    kept = [row for i, row in enumerate(records()) if i not in (3, 7)]
    assert table.target.tolist() == [row["loss"] for row in kept]
    assert table.columns["params"].tolist() == [row["params"] for row in kept]
    assert table.excluded == [
        {"name": "ladder-3", "reason": "its state is running"},
        {"name": "ladder-7", "reason": "its state is crashed"},
    ]
