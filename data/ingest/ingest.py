"""Turn foreign files into a dataset: ``kinescale ingest input=FOLDER output=DATASET``.

Input is a folder, a ``.txt`` list of paths, a ``.tar`` or one file; a folder or list may hold tars
(read in place, nothing is ever unpacked). Films are cut where shots end into clips of 1 + 4k frames
at their own size.

Beside FILM.mp4, in the same folder or tar:
    FILM.txt     its caption
    FILM.json    {"caption": ..., "short_caption": ..., "licence": ..., "source": ...}, each of
                 them optional; ``caption`` is the dense one, ``source`` what splits keep whole
    licence.txt  one line, for all files in and below its folder; the nearest one counts,
                 FILM.json goes before it, and the key ``licence`` is for files without either

What cannot be used is listed in ``manifest.json`` under ``rejects`` with its reason, what became of
every frame under ``films``. ``index.html`` shows the dataset: open it in a browser, offline.
"""

import hashlib
from pathlib import Path
from typing import Any

from rich.console import Console

from data.command_line import parse
from data.config import IngestConfig, check
from data.engine.parts import build_dataset
from data.engine.source import Notes, Source
from data.ingest.inputs import find_entries
from data.ingest.media_file import MediaFile
from data.ingest.sidecar import read_sidecars
from data.shell import command
from data.show.progress import Progress
from data.show.report import print_report
from data.show.sheet import write_sheet


def split_of(name: str, config: IngestConfig) -> str:
    """Return the split of a source; ``by_source`` decides by a hash of its name."""
    if config.split != "by_source":
        return config.split
    value = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
    return "val_real" if value < config.val_fraction else "train"


def find_sources(config: IngestConfig, notes: Notes) -> list[MediaFile]:
    """Pair the files of an input with what their sidecars say."""
    entries = find_entries(Path(config.input).expanduser(), notes)
    media, told = read_sidecars(entries, config.caption_bytes, notes.reject)
    files = []
    for entry in media:
        said = told(entry.name)
        files.append(
            MediaFile(
                name=entry.name,
                split=split_of(said.source or entry.name, config),
                path=entry.path.absolute(),
                licence=said.licence or config.licence,
                caption=said.caption,
                short_caption=said.short_caption,
                source=said.source,
                offset=entry.offset,
                nbytes=entry.nbytes,
                stamp=entry.stamp,
            )
        )
    return files


def ingest(config: IngestConfig, console: Console) -> dict[str, Any]:
    """Ingest ``config.input`` into ``config.output`` and return the manifest."""
    check(config)
    notes = Notes()
    sources: list[Source] = [*find_sources(config, notes)]
    if not sources:
        raise ValueError(f"input={config.input}: holds no files. Give videos or images.")
    with Progress("ingest", console) as progress:
        return build_dataset(Path(config.output), sources, config, notes, progress.update)


@command(__doc__, keys=IngestConfig, kept="finished files are kept; run the same command again")
def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    console = Console()
    config = parse(IngestConfig, arguments)
    if not config.input:
        raise ValueError("input=(missing): say what to read. Use input=FOLDER.")
    manifest = ingest(config, console)
    page = write_sheet(Path(config.output))
    print_report(manifest, console)
    console.print(f"dataset: {config.output}, to look at: {page}", highlight=False)
    return 0
