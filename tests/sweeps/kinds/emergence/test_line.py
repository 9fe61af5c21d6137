"""A study of emergence from its YAML to its page, with real runs of seconds, and again."""

import csv
import json
from base64 import b64encode
from pathlib import Path

import pytest

from sweeps.kinds.compose import compose_any
from sweeps.kinds.emergence.config import EmergenceConfig
from sweeps.run import run_study
from sweeps.study.archive import archive, restore
from tests.trainer.probes.likelihood.conftest import strip_config
from tests.trainer.tiny_runs import write_tiny

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    codec = strip_config(root).codec
    write_tiny(root / "lawful", codec)
    write_tiny(root / "lawless", codec, lawless="all")
    return root


def compose(clips: Path, runs: Path, *more: str) -> EmergenceConfig:
    study = compose_any(
        ["study=emergence_smoke", f"root={runs}", f'law=["data.root={clips}/lawful"]',
         f'twin=["data.root={clips}/lawless"]', *more]
    )  # fmt: skip
    assert isinstance(study, EmergenceConfig)
    return study


def test_smoke_goes_from_its_runs_to_its_page_and_a_second_time_starts_nothing(
    clips: Path, tmp_path: Path
) -> None:
    study = compose(clips, tmp_path)
    assert run_study(study, ["study=emergence_smoke"]) == 0
    made = sorted(study.folder.glob("runs/*/result.json"))
    assert len(made) == 8  # four budgets, law and twin
    probes = sorted(study.folder.glob("runs/law-*/probes.json"))
    assert len(probes) == 4
    drawn = json.loads(probes[0].with_name("samples.json").read_text())
    assert set(drawn["worlds"][0]["sources"]) >= {"run", "twin", "true", "static"}
    assert {name: len(clips) for name, clips in drawn["worlds"][0]["shown"].items()} == {
        "true": 2, "run": 2, "twin": 2, "free": 2
    }  # fmt: skip
    table = list(csv.DictReader((study.folder / "samples.csv").read_text().splitlines()))
    assert len(table) == 4 * 6  # budgets x sources
    forecast = (study.folder / "forecast.json").read_text()
    assert json.loads(forecast)["registered"]
    stamps = [path.stat().st_mtime_ns for path in (*made, *probes)]
    one = json.loads(probes[-1].read_text())

    probes[-1].unlink()  # what is missing is done again, and nothing else
    assert run_study(study, ["study=emergence_smoke"]) == 0
    assert json.loads(probes[-1].read_text())["properties"] == one["properties"]
    assert [path.stat().st_mtime_ns for path in (*made, *probes[:-1])] == stamps[:-1]
    assert (study.folder / "forecast.json").read_text() == forecast

    rows = list(csv.DictReader((study.folder / "abilities.csv").read_text().splitlines()))
    assert len(rows) == 4 * 2 * 2  # budgets x properties x looks
    (row,) = [r for r in rows if r["name"] == one["run"] and r["look"] == "given"
              and r["property"] == "lane"]  # fmt: skip
    (prop,) = [p for p in one["properties"] if p["property"] == "lane"]
    learned = prop["given"]["differences"]["learned"]["value"]
    assert float(row["learned"]) == pytest.approx(learned, rel=1e-4)
    assert float(row["run"]) - float(row["twin"]) == pytest.approx(learned, abs=1e-6)
    page = (study.folder / "report/index.html").read_text()
    assert "Study of emergence" in page
    assert "Is the jump real" in page
    picture = (study.folder / "samples/ladder-strip.png").read_bytes()
    assert f'src="data:image/png;base64,{b64encode(picture).decode()}"' in page

    archive(study.folder, tmp_path / "kept")
    restore(tmp_path / "kept", tmp_path / "again")
    assert (tmp_path / "again/samples/ladder-strip.png").read_bytes() == picture
    for name in ("probes.json", "samples.json"):
        again = tmp_path / "again" / probes[0].relative_to(study.folder).with_name(name)
        assert json.loads(again.read_text()) == json.loads(probes[0].with_name(name).read_text())


def test_smoke_asks_of_a_law_without_a_covariance(clips: Path, tmp_path: Path) -> None:
    codec = strip_config(clips).codec
    write_tiny(clips / "switch_lawful", codec, worlds=("switch",))
    write_tiny(clips / "switch_lawless", codec, worlds=("switch",), lawless="all")
    study = compose(
        clips, tmp_path, f'law=["data.root={clips}/switch_lawful"]',
        f'twin=["data.root={clips}/switch_lawless"]', "budgets=[6e8]", "forecast_from=0",
        "pairs.worlds=[switch]", "pairs.properties=[lane,switch,lamp]", "draws.shown=0",
    )  # fmt: skip
    assert run_study(study, ["study=emergence_smoke"]) == 0
    rows = list(csv.DictReader((study.folder / "abilities.csv").read_text().splitlines()))
    given = {row["property"]: row for row in rows if row["look"] == "given"}
    assert {name: row["law"] for name, row in given.items()} == {
        "lane": "1", "switch": "1", "lamp": "0"
    }  # fmt: skip
    assert not list((study.folder / "samples").glob("*.png"))
