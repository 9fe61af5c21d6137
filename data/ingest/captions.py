"""Pair films with what tables beside them say: captions, time stamps and all other columns.

Nothing is opened by a name that a table holds: names are looked up among the files that were found.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any

from data.config import IngestConfig
from data.engine.source import Notes
from data.ingest.inputs import Entry
from data.ingest.layouts import (
    FILM_FOLDERS,
    FILM_LISTS,
    WORD_FOLDERS,
    WORD_LISTS,
    Columns,
    columns_of,
)
from data.ingest.names import Ambiguous, Names
from data.ingest.sidecar import Told, one_line, stem, text_of
from data.ingest.spans import span_of, spans_of
from data.ingest.tables import (
    MAX_CELL_CHARACTERS,
    TABLE_SUFFIXES,
    lines_of,
    list_of,
    plain_value,
    rows_of,
)
from data.media.reject import Reject

HEAD_ROWS = 100  # rows that are looked at for the columns of a table
MAX_MISSING = 10_000  # rows without a film that are listed one by one
NO_TABLES = "none"


@dataclass
class Captions:
    """What tables say of films.

    told: what each film's rows say, by its name in the input.
    covered: folders of which a table speaks; a film in them that none names has no words.
    unknown: tables of which nobody knows what they say, with the reason.
    used: names of the files that were read.
    """

    told: dict[str, list[Told]] = field(default_factory=lambda: defaultdict(list))
    covered: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def add(self, other: "Captions") -> None:
        """Add what another table says."""
        for film, several in other.told.items():
            for told in several:
                add_told(self, film, told)
        self.covered = other.covered | self.covered
        self.unknown |= other.unknown

    def table_over(self, name: str) -> str:
        """Return the table that speaks of a film's folder, or nothing."""
        folders = map(str, PurePosixPath(name).parents)
        return next((self.covered[f] for f in folders if f in self.covered), "")


def read_captions(entries: list[Entry], config: IngestConfig, notes: Notes) -> Captions:
    """Read every table among the files of an input, or the one that ``captions`` names.

    Raises ValueError where a table that is asked for cannot be read, has an unknown layout, or
    names none of the films.
    """
    found = Captions()
    stems = {stem(entry.name) for entry in entries if not entry.name.endswith(TABLE_SUFFIXES)}
    tables = [e for e in entries if is_table(e.name) and stem(e.name) not in stems]
    names = Names(e.name for e in entries if not e.name.endswith((*TABLE_SUFFIXES, ".txt")))
    found.used |= {entry.name for entry in tables}
    if config.captions == NO_TABLES:
        return found
    if config.captions:
        table = table_named(config, tables)
        read_table(table, config, names, found, notes)
        if table.name in found.unknown:
            raise ValueError(question(found))
        return found
    by_name = {entry.name: entry for entry in entries}
    for pairs in chain(list_pairs(by_name), folder_pairs(by_name, names, notes)):
        pair_up(pairs, names, found, notes)
    for table in tables:
        own, said = Captions(), Notes()
        try:
            read_table(table, config, names, own, said)
        except ValueError as error:  # one that breaks off in the middle tells nothing
            own, said = Captions(unknown={table.name: str(error)}), Notes()
        found.add(own)
        notes.rejects += said.rejects
        notes.warnings += said.warnings
    return found


@dataclass
class Missing:
    """Rows of a table whose film does not lie here, listed one by one up to ``MAX_MISSING``."""

    table: str
    notes: Notes
    count: int = 0

    def add(self, called: str) -> None:
        """List one."""
        self.count += 1
        if self.count <= MAX_MISSING:
            self._say(called, f"is named by {self.table} and does not lie here")

    def finish(self) -> None:
        """List how many more there were."""
        if self.count > MAX_MISSING:
            more = self.count - MAX_MISSING
            self._say(self.table, f"names {more} more films that do not lie here")

    def _say(self, called: str, reason: str) -> None:
        self.notes.reject(called, Reject(reason, "Nothing is downloaded: put it here yourself."))


def is_table(name: str) -> bool:
    """Say whether a file's name is that of a table."""
    return name.lower().endswith(TABLE_SUFFIXES)


def table_named(config: IngestConfig, tables: list[Entry]) -> Entry:
    """Return the table that ``captions`` names: in the input, or anywhere else."""
    inside = [entry for entry in tables if entry.name == config.captions]
    path = Path(config.captions).expanduser()
    if inside:
        return inside[0]
    if not path.is_file() or not is_table(path.name):
        held = ", ".join(entry.name for entry in tables[:5]) or "none"
        raise ValueError(
            f"captions={config.captions}: is no csv, tsv, jsonl, json or parquet file. "
            f"Give one of the input ({held}) or a path, or captions=none."
        )
    here = next((e for e in tables if e.path == path.absolute() and e.offset == 0), None)
    if here is not None:
        return here
    return Entry(str(path), path.absolute(), 0, path.stat().st_size, path.stat().st_mtime_ns)


def question(tables: Captions) -> str:
    """Return what is asked about tables of which nobody knows what they say."""
    name, why = next(iter(tables.unknown.items()))
    more = (
        f" ({len(tables.unknown) - 1} more files are like it.)" if len(tables.unknown) > 1 else ""
    )
    return (
        f"{why}{more} It lies beside films without a caption: say captions={name} "
        "caption_column=NAME path_column=NAME, or captions=none to do without."
    )


# Rows of tables.


def read_table(
    table: Entry, config: IngestConfig, names: Names, found: Captions, notes: Notes
) -> None:
    """Add what a table says of films to ``found``, or the table to those of unknown layout."""
    rows = rows_of(table, names.holds)
    head = list(islice(rows, HEAD_ROWS))
    listed = list(dict.fromkeys(str(column) for row in head for column in row))
    columns = columns_of(listed, config.path_column, config.caption_column)
    if columns is None:
        shown = ", ".join(listed[:20]) or "none"
        found.unknown[table.name] = (
            f"captions={table.name}: its columns ({shown}) are no layout that is known."
        )
        return
    if columns.stamps and not any(list_of(row.get(columns.stamps)) for row in head):
        columns = replace(columns, stamps="")  # the day of an upload, say
    folder = folder_of(table.name, names)
    missing = Missing(table.name, notes)
    count = 0
    for number, row in enumerate(chain(head, rows), 1):
        called = str(row.get(columns.path or columns.name) or f"row {number}")
        try:
            film = names.find(called, folder, is_path=bool(columns.path))
            if film is None:
                missing.add(called)
                continue
            for told in told_of(row, columns):
                add_told(found, film, told)
        except Ambiguous as error:
            found.told.pop(error.film, None)
            notes.reject(f"{called} ({table.name})", Reject(str(error), error.remedy))
            continue
        except Reject as error:
            notes.reject(f"{called} (row {number} of {table.name})", error)
            continue
        count += 1
    missing.finish()
    found.covered.setdefault(folder, table.name)
    where = f"{columns.caption} of {columns.path or columns.name}"
    notes.warnings.append(f"{table.name} ({columns.title}, {where}): {count} rows name films here")


def folder_of(table: str, names: Names) -> str:
    """Return the nearest folder above a table in or below which films lie."""
    folders = map(str, PurePosixPath(table).parents)
    return next((folder for folder in folders if names.under(folder)), ".")


def told_of(row: dict[str, Any], columns: Columns) -> Iterator[Told]:
    """Yield what a row says: once, or for each of its spans. Raises Reject."""
    rest = {str(c): plain_value(v) for c, v in row.items() if c not in columns.used}
    words, shorts = row.get(columns.caption), row.get(columns.short)
    licence = one_line(str(row.get(columns.licence) or ""))
    if columns.start:
        span = span_of(row.get(columns.start), row.get(columns.end))
        yield from [replace(told_once(words, shorts, licence, rest), span=span)]
        return
    if not columns.stamps:
        yield told_once(words, shorts, licence, rest)
        return
    spans = spans_of(row.get(columns.stamps))
    dealt = {c: list_of(v) for c, v in row.items()}
    captions = dealt[columns.caption]
    if captions is not None and len(captions) != len(spans):
        raise Reject(
            f"has {len(spans)} time stamps and {len(captions)} captions", "Give one for each."
        )
    for place, span in enumerate(spans):
        own = {
            c: plain_value(values[place])
            for c, values in dealt.items()
            if values is not None and len(values) == len(spans) and c in rest
        }
        said = words if captions is None else captions[place]
        yield replace(told_once(said, shorts, licence, rest | own), span=span)


def told_once(words: Any, shorts: Any, licence: str, rest: dict[str, Any]) -> Told:
    """Return what is said of one clip; of several captions the first, the others as metadata."""
    captions = texts_of(words)
    metadata = {column: value for column, value in rest.items() if value is not None}
    if len(captions) > 1:
        metadata["captions"] = captions
    short = texts_of(shorts)
    return Told(captions[0] if captions else "", short[0] if short else "", licence, "", metadata)


def texts_of(value: Any) -> list[str]:
    """Return the captions of a cell: none, one, or those of a list. Raises Reject."""
    several = list_of(value)
    found = []
    for one in [value] if several is None else several:
        if isinstance(one, dict | list):
            raise Reject("its caption is no text", "Name another caption_column.")
        found.append(one_line("" if one is None or one != one else str(one)))
    return [text for text in found if text]


def add_told(found: Captions, film: str, told: Told) -> None:
    """Add what a row says; a second caption of the same span joins the first as metadata."""
    for place, before in enumerate(found.told[film]):
        if before.span == told.span:
            captions = before.metadata.get("captions", [before.caption])
            more = [c for c in [told.caption, *told.metadata.get("captions", [])] if c]
            captions = list(dict.fromkeys(c for c in [*captions, *more] if c))
            metadata = told.metadata | before.metadata
            metadata |= {"captions": captions} if len(captions) > 1 else {}
            caption = before.caption or told.caption
            found.told[film][place] = replace(before, caption=caption, metadata=metadata)
            return
    found.told[film].append(told)


# Files and folders whose lines or names belong together.


@dataclass
class Pairs:
    """Captions with what they are of: a path, or a name without a suffix."""

    title: str
    folder: str
    rows: list[tuple[str, Told]]
    is_path: bool
    files: list[str]


def list_pairs(by_name: dict[str, Entry]) -> Iterator[Pairs]:
    """Yield the captions of each folder that holds a list of them and a list of films.

    Raises ValueError where the two are not of the same length.
    """
    for folder in sorted({str(PurePosixPath(name).parent) for name in by_name}):
        here = {name: by_name.get(str(PurePosixPath(folder, name))) for name in
                (*WORD_LISTS, *FILM_LISTS)}  # fmt: skip
        words = next((here[name] for name in WORD_LISTS if here[name]), None)
        films = next((here[name] for name in FILM_LISTS if here[name]), None)
        if words is None or films is None:
            continue
        captions, paths = lines_of(words), lines_of(films)
        if len(captions) != len(paths):
            raise ValueError(
                f"captions={words.name}: has {len(captions)} lines, {films.name} {len(paths)}. "
                "Line N of the one belongs to line N of the other: mend them, or captions=none."
            )
        rows = [(path, Told(one_line(text))) for path, text in zip(paths, captions, strict=True)]
        rows = [(path, told) for path, told in rows if path]
        yield Pairs(f"{words.name} with {films.name}", folder, rows, True, [words.name, films.name])


def folder_pairs(by_name: dict[str, Entry], names: Names, notes: Notes) -> Iterator[Pairs]:
    """Yield the captions of each folder of texts beside a folder of films of the same names.

    ``notes`` hears of texts that cannot be read.
    """
    texts: dict[str, list[Entry]] = defaultdict(list)
    for name, entry in by_name.items():
        parent = PurePosixPath(name).parent
        if parent.name in WORD_FOLDERS and name.endswith(".txt"):
            texts[str(parent)].append(entry)
    for folder, entries in texts.items():
        films = [str(PurePosixPath(folder).parent / name) for name in FILM_FOLDERS]
        near = next((name for name in films if names.under(name)), None)
        if near is None:
            continue
        rows = []
        for entry in entries:
            try:
                text = text_of(entry, MAX_CELL_CHARACTERS)
            except Reject as error:
                notes.reject(entry.name, error)
                continue
            rows.append((PurePosixPath(entry.name).stem, Told(one_line(text))))
        yield Pairs(f"{folder}/*.txt", near, rows, False, [entry.name for entry in entries])


def pair_up(pairs: Pairs, names: Names, found: Captions, notes: Notes) -> None:
    """Add the captions of a pair of lists or folders to ``found``."""
    missing = Missing(pairs.title, notes)
    found.used.update(pairs.files)
    count = 0
    for called, told in pairs.rows:
        try:
            film = names.find(called, pairs.folder, pairs.is_path)
        except Ambiguous as error:
            found.told.pop(error.film, None)
            notes.reject(f"{called} ({pairs.title})", Reject(str(error), error.remedy))
            continue
        if film is None:
            missing.add(called)
            continue
        add_told(found, film, told)
        count += 1
    missing.finish()
    found.covered.setdefault(pairs.folder, pairs.title)
    notes.warnings.append(f"{pairs.title}: {count} captions of films here")
