"""Turn foreign files into a dataset: ``kinescale ingest input=FOLDER output=DATASET``.

Input is a folder, a ``.txt`` list of paths, a ``.tar`` or one file; a folder or list may hold tars
(read in place, nothing is ever unpacked). Films are cut where shots end into clips of 1 + 4k frames
at their own size, as long as token_cap holds them. The last line says what share of all pixels is
kept. A model of a few cores wants small clips: token_cap=512 max_frames=17.

Beside FILM.mp4, in the same folder or tar:
    FILM.txt     its caption
    FILM.json    {"caption": ..., "short_caption": ..., "licence": ..., "source": ...}, each of
                 them optional; ``caption`` is the dense one, ``source`` what splits keep whole
    licence.txt  one line, for all files in and below its folder; the nearest one counts,
                 FILM.json goes before it, and the key ``licence`` is for files without either

Tables of many captions (metadata.csv, prompts.txt with videos.txt, metas/ and others, docs/data.md)
are read where their layout is known. Another one is asked about: captions=FILE caption_column=NAME
path_column=NAME, or captions=none. Whatever else they say of a film is in ``original``.

The dataset is made of parts, each with shards of its own. The same command after films were added
builds parts of these alone, and touches no shard that was there.

Many machines share the work where they share the folders: engine=ray address=HOST:PORT,
engine=slurm tasks=8 cluster=SITE, or tasks of any queue with share=I/N, then the command without.

What cannot be used is listed in ``manifest.json`` under ``rejects`` with its reason, what became of
every frame under ``films``. ``index.html`` shows the dataset: open it in a browser, offline.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from data.command_line import parse
from data.config import IngestConfig
from data.engine.parts import build_dataset, reasons
from data.engine.settings import check
from data.engine.source import Notes, Source
from data.files import local_folder
from data.ingest.captions import Captions, question, read_captions
from data.ingest.checksums import read_checksums
from data.ingest.inputs import Entry, find_entries
from data.ingest.media_file import MediaFile
from data.ingest.sidecar import Told, read_sidecars
from data.ingest.where import check_columns, conditions_of
from data.media.copies import check_copies
from data.media.reject import Reject
from data.shell import command
from data.show.progress import Progress
from data.show.report import pixel_line, print_report, print_share
from data.show.sheet import write_sheet


def split_of(name: str, config: IngestConfig) -> str:
    """Return the split of a source; ``by_source`` decides by a hash of its name."""
    if config.split != "by_source":
        return config.split
    value = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
    return "val_real" if value < config.val_fraction else "train"


def find_sources(config: IngestConfig, notes: Notes) -> list[MediaFile]:
    """Pair the files of an input with what tables and sidecars say of them.

    Raises ValueError where a table beside films without captions has no layout that is known.
    """
    root = Path(config.input).expanduser()
    entries = find_entries(root, notes)
    sums = read_checksums(config.checksums, root)
    if sums:
        entries = sums.checked(entries, notes)
    tables = read_captions(entries, config, notes)
    rest = [entry for entry in entries if entry.name not in tables.used]
    media, told = read_sidecars(rest, config.caption_bytes, notes.reject)
    if tables.unknown and any(
        entry.name not in tables.told and not told(entry.name).caption for entry in media
    ):
        raise ValueError(question(tables))
    for name, why in tables.unknown.items():
        notes.reject(name, Reject(why.partition(": ")[2], f"Say captions={name}, if it has any."))
    conditions = conditions_of(config.where)
    files: list[MediaFile] = []
    columns: set[str] = set()
    for entry in media:
        try:
            found = told_of_film(entry.name, tables, told(entry.name))
        except Reject as error:
            notes.reject(entry.name, error)
            continue
        for said in found:
            columns.update(said.metadata, ("licence",))
            file = media_file(entry, said, config)
            if sums and not entry.offset:
                file = replace(file, digest=sums.of(entry.path))
            try:
                for condition in conditions:
                    condition.check({"licence": file.licence, **said.metadata})
            except Reject as error:
                notes.reject(file.name, error)
                continue
            files.append(file)
    if media:
        check_columns(conditions, columns)
    return files


def told_of_film(name: str, tables: Captions, beside: Told) -> list[Told]:
    """Return what is said of a film, once or for each of its spans; a table goes before a sidecar.

    Raises Reject where a table speaks of the film's folder, but nothing of the film.
    """
    if name not in tables.told:
        table = tables.table_over(name)
        if table and not beside.caption:
            raise Reject(f"is not named by {table}", "Add it there, or say captions=none.")
        return [beside]
    return [
        replace(
            said,
            caption=said.caption or beside.caption,
            short_caption=said.short_caption or beside.short_caption,
            licence=said.licence or beside.licence,
            source=beside.source,
            metadata=beside.metadata | said.metadata,
        )
        for said in tables.told[name]
    ]


def media_file(entry: Entry, said: Told, config: IngestConfig) -> MediaFile:
    """Return a file, or the span of it of which something is said, as a source of samples."""
    where = f" from {said.span[0]:.10g} s to {said.span[1]:.10g} s" if said.span else ""
    return MediaFile(
        name=entry.name + where,
        split=split_of(said.source or entry.name, config),
        path=entry.path.absolute(),
        licence=said.licence or config.licence,
        caption=said.caption,
        short_caption=said.short_caption,
        source=said.source or (entry.name if where else ""),
        offset=entry.offset,
        nbytes=entry.nbytes,
        stamp=entry.stamp,
        metadata=said.metadata,
        span=said.span,
    )


def ingest(config: IngestConfig, console: Console) -> dict[str, Any]:
    """Ingest ``config.input`` into ``config.output`` and return the manifest."""
    check(config)
    local_folder("output", config.output)
    check_copies(config)
    notes = Notes()
    sources: list[Source] = [*find_sources(config, notes)]
    if not sources:
        raise ValueError(
            f"input={config.input}: holds no films or pictures to use. {reasons(notes)} "
            "Give videos or images."
        )
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
    if not manifest:
        return print_share(config, console)
    page = write_sheet(Path(config.output))
    print_report(manifest, console)
    largest = max(split["tokens_largest"] for split in manifest["splits"].values())
    for line in (
        pixel_line(manifest),
        f"largest clip: {largest:,} tokens; data.pack_tokens must hold it where latents train",
    ):
        console.print(line, highlight=False)
    console.print(f"dataset: {config.output}, to look at: {page}", highlight=False)
    return 0
