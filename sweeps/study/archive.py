"""Keep a finished study small: tables that refit and redraw it, in place of a folder for each run.

usage: kinescale archive STUDY_DIR OUT      write the archive of a study's folder
       kinescale archive --restore DIR OUT  make run folders of it again

examples:
  kinescale archive runs/cpu_isoflop docs/studies/cpu_isoflop
  kinescale archive --restore docs/studies/cpu_isoflop runs/cpu_isoflop

An archive holds the study's own small files, its shown videos and pictures, and

  runs.csv         a row a run, with its loss by stratum of time (loss_t1 is the noisiest) and by
                   world, so that another axis of the law is a refit and not a rerun
  runs.jsonl.gz    config.yaml, result.json and what it answered (probes, samples) of each run
  curves.csv.gz    the curves of all runs; training losses to six digits

A restored study goes on where it ended: its runs count as trained. Generated pages are not kept:
``kinescale report DIR`` draws them from an archive as from a study's folder.
"""

import csv
import gzip
import io
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.files import write_bytes, write_csv, write_text
from data.shell import command
from sweeps.fit.rows.y_axis import STRATUM, TRAINED
from trainer.probes.likelihood.config import FILE as PROBES
from trainer.probes.samples.config import FILE as SAMPLES

RUNS, CURVES = "runs.jsonl.gz", "curves.csv.gz"
KEPT = (
    "*.yaml", "*.json", "*.csv", "*.txt", "README.md",
    "samples/**/*.mp4", "samples/*.json", "samples/*.png",
)  # fmt: skip
ANSWERS = {"probes": PROBES, "samples": SAMPLES}  # files of a run that was asked
PICTURES = ("law.png", "answer.png", "differences.png")
PICTURE = "picture.png"
CURVE_COLUMNS = ("run", "step", "tokens", "flops", "loss", "train_loss")
COMPRESSED_BYTES = 100_000  # tables above this size are stored compressed

Json = dict[str, Any]


def archive(study_dir: Path, out: Path) -> None:
    """Write the archive of a study's folder. Raises ValueError where there is no study."""
    if not (study_dir / "runs.csv").is_file():
        raise ValueError(f"STUDY_DIR={study_dir}: has no runs.csv. Give a study's folder.")
    if out.resolve() == study_dir.resolve():
        raise ValueError(f"OUT={out}: is the study itself. Give another folder.")
    out.mkdir(parents=True, exist_ok=True)
    for pattern in KEPT:
        for path in sorted(study_dir.glob(pattern)):
            _keep(path, out / path.relative_to(study_dir))
    for name in PICTURES:
        picture = study_dir / "report" / "figures" / name
        if picture.is_file():
            write_bytes(out / PICTURE, picture.read_bytes())
    runs = list(_runs_of(study_dir))
    if not runs:
        return
    _write_table(out / "runs.csv", study_dir / "runs.csv", {r["name"]: r["result"] for r in runs})
    lines = "".join(json.dumps(run) + "\n" for run in runs)
    write_bytes(out / RUNS, gzip.compress(lines.encode(), mtime=0))
    write_bytes(out / CURVES, gzip.compress(_curves(study_dir).encode(), mtime=0))


def _keep(path: Path, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    content = path.read_bytes()
    if path.suffix == ".csv" and len(content) > COMPRESSED_BYTES:
        write_bytes(kept.with_name(kept.name + ".gz"), gzip.compress(content, mtime=0))
    else:
        write_bytes(kept, content)


def _runs_of(study_dir: Path) -> Iterator[Json]:
    for folder in sorted((study_dir / "runs").glob("*/")):
        if (folder / "result.json").is_file():
            run = {
                "name": folder.name,
                "config": (folder / "config.yaml").read_text(encoding="utf-8"),
                "result": json.loads((folder / "result.json").read_text(encoding="utf-8")),
            }
            found = {key: folder / name for key, name in ANSWERS.items()}
            yield run | {
                key: json.loads(path.read_text(encoding="utf-8"))
                for key, path in found.items()
                if path.is_file()
            }


def _write_table(path: Path, table: Path, results: dict[str, Json]) -> None:
    with table.open(newline="", encoding="utf-8") as stream:
        rows: list[Json] = list(csv.DictReader(stream))
    for row in rows:
        row |= losses_by_part(results.get(row["name"], {}))
    columns = dict.fromkeys(key for row in rows for key in row)
    write_csv(path, list(columns), rows)


def losses_by_part(result: Json) -> dict[str, float]:
    """Return a run's validation loss by stratum of time (``loss_t1``...), as trained, by world.

    The loss of a world or a stratum is a ratio of sums over its clips, as the whole loss is over
    all. Results from before 2026-12 have a stratum for each of a clip's times alone.
    """
    first: Json = next(iter((result.get("validation") or {}).values()), {})
    parts = losses_by_time(result)
    sums: dict[str, list[float]] = {}
    for group in first.get("groups") or []:
        of = sums.setdefault(f"loss_{group['world']}", [0.0, 0.0])
        of[0] += group["errors"]
        of[1] += group["values"]
    return parts | {name: errors / values for name, (errors, values) in sorted(sums.items())}


def losses_by_time(result: Json) -> dict[str, float]:
    """Return a run's loss by stratum of time, and the mean of them over its training times."""
    first: Json = next(iter((result.get("validation") or {}).values()), {})
    kept: Json = first.get("strata") or {}
    losses = result.get("loss_by_time") or []
    if kept and all(kept["values"]):
        losses = [e / v for e, v in zip(kept["errors"], kept["values"], strict=True)]
    parts = {f"{STRATUM}{number}": float(loss) for number, loss in enumerate(losses, 1)}
    if kept and len(kept["trained"]) == len(losses):
        pairs = zip(kept["trained"], losses, strict=True)
        parts[TRAINED] = math.fsum(share * loss for share, loss in pairs)
    return parts


def _curves(study_dir: Path) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CURVE_COLUMNS)
    for path in sorted(study_dir.glob("runs/*/curve.csv")):
        with path.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                train = row["train_loss"] and f"{float(row['train_loss']):.6g}"
                values = (row[key] for key in CURVE_COLUMNS[1:-1])
                writer.writerow([path.parent.name, *values, train])
    return text.getvalue()


def open_table(path: Path) -> io.TextIOBase:
    """Open a table of a study as text, also where an archive keeps it compressed.

    Raises FileNotFoundError where there is neither.
    """
    packed = path.with_name(path.name + ".gz")
    if not path.exists() and packed.exists():
        return gzip.open(packed, "rt", newline="", encoding="utf-8")
    return path.open(newline="", encoding="utf-8")


def read_results(study_dir: Path) -> dict[str, Json]:
    """Return result.json of every run that an archive holds; none where it is no archive.

    Raises ValueError where the file is damaged.
    """
    return {run["name"]: run["result"] for run in _archived(study_dir)}


def read_configs(study_dir: Path) -> dict[str, str]:
    """Return config.yaml of every run that an archive holds, as text; none where it is no archive.

    Raises ValueError where the file is damaged.
    """
    return {run["name"]: run["config"] for run in _archived(study_dir)}


def read_curves(study_dir: Path) -> dict[str, list[tuple[float, float]]]:
    """Return the (flops, loss) pairs of the curves of every run that an archive holds."""
    found = {}
    for name, series in read_series(study_dir).items():
        pairs = zip(series["flops"], series["loss"], strict=True)
        if points := [pair for pair in pairs if math.isfinite(pair[1])]:
            found[name] = points
    return found


def read_series(study_dir: Path) -> dict[str, dict[str, list[float]]]:
    """Return the curves of every run that an archive holds, by column; NaN where there is no value.

    Raises ValueError where the file is damaged.
    """
    path = study_dir / CURVES
    if not path.is_file():
        return {}
    names = CURVE_COLUMNS[1:]
    found: dict[str, dict[str, list[float]]] = {}
    try:
        with gzip.open(path, "rt", newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                columns = found.setdefault(row["run"], {name: [] for name in names})
                for name in names:
                    columns[name].append(float(row[name] or "nan"))
    except (OSError, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: is damaged ({error}). Restore it.") from error
    return found


def _archived(study_dir: Path) -> list[Json]:
    path = study_dir / RUNS
    if not path.is_file():
        return []
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            runs = [json.loads(line) for line in stream]
        needed = ("name", "config", "result")
        return [
            {key: run[key] for key in needed} | {key: run.get(key) for key in ANSWERS}
            for run in runs
        ]
    except (OSError, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: is damaged ({error}). Restore it.") from error


def restore(archived: Path, out: Path) -> None:
    """Make a study's folder of an archive: files, run folders, curves. Nothing is replaced."""
    runs = _archived(archived)
    if not runs:
        raise ValueError(f"DIR={archived}: has no {RUNS}. Give a folder that archive wrote.")
    if out.exists():
        raise ValueError(f"OUT={out}: exists. Choose another folder.")
    shutil.copytree(archived, out, ignore=shutil.ignore_patterns(RUNS, CURVES, PICTURE))
    texts: dict[str, io.StringIO] = {}
    with gzip.open(archived / CURVES, "rt", newline="", encoding="utf-8") as stream:
        for row in csv.reader(stream):
            name, fields = row[0], row[1:]
            if name not in texts:
                texts[name] = io.StringIO()
                if name != CURVE_COLUMNS[0]:
                    texts[name].write(",".join(CURVE_COLUMNS[1:]) + "\r\n")
            texts[name].write(",".join(fields) + "\r\n")
    for run in runs:
        name = run["name"]
        if Path(name).name != name:
            raise ValueError(f"{archived / RUNS}: {name!r} is no name of a run. Restore the file.")
        folder = out / "runs" / name
        folder.mkdir(parents=True)
        write_text(folder / "config.yaml", run["config"])
        if name in texts:
            write_text(folder / "curve.csv", texts[name].getvalue())
        for key, file in ANSWERS.items():
            if run[key]:
                write_text(folder / file, json.dumps(run[key], indent=1) + "\n")
        # Last: it marks the run as finished.
        write_text(folder / "result.json", json.dumps(run["result"], indent=1) + "\n")


@command(
    __doc__,
    kept="the first folder is unchanged. Run the same command again.",
    doing="copying the study",
)
def main(argv: list[str]) -> int:
    """Archive or restore; print what was written."""
    restoring = "--restore" in argv
    folders = [Path(word) for word in argv if word != "--restore"]
    if len(folders) != 2:
        raise ValueError(f"{' '.join(argv)}: two folders are needed. See --help.")
    (restore if restoring else archive)(*folders)
    print(folders[1])
    return 0


if __name__ == "__main__":
    main.run()
