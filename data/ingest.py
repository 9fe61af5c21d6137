"""Turn foreign files into a dataset: ``python -m data.ingest input=FOLDER output=DATASET``.

Input is a folder, a ``.txt`` list of paths, a ``.tar`` (read as a stream; nothing is ever unpacked
by name) or one file. A caption is read from ``NAME.txt`` or ``NAME.json`` ({"caption": ...}) beside
a file. What cannot be used is listed in ``manifest.json`` under ``rejects``; all else is kept.
"""

import dataclasses
import hashlib
import json
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from data.config import IngestConfig
from data.media import MediaFile
from data.parts import Notes, Source, build_dataset
from data.probe import Reject
from data.progress import Progress
from data.report import print_report

Schema = TypeVar("Schema")
SIDECARS = (".txt", ".json")


@dataclass(frozen=True)
class Entry:
    """A file found in an input: its name there, and where its bytes lie."""

    name: str
    path: Path
    offset: int
    nbytes: int

    def read(self, most: int) -> bytes:
        """Return at most ``most`` bytes."""
        with open(self.path, "rb") as stream:
            stream.seek(self.offset)
            return stream.read(min(most, self.nbytes))


def parse(schema: type[Schema], arguments: list[str]) -> Schema:
    """Build a config from ``key=value`` arguments over a dataclass's defaults.

    Raises ValueError that names the allowed keys or the wanted type.
    """
    allowed = ", ".join(f.name for f in dataclasses.fields(schema))  # type: ignore[arg-type]
    for argument in arguments:
        if "=" not in argument:
            raise ValueError(f"{argument}: must be key=value. Allowed keys: {allowed}.")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.from_dotlist(arguments))
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or getattr(error, "key", None) or "?"
        given = next((a for a in arguments if a.split("=")[0] == key), f"{key}=?")
        rule = str(error).split("\n")[0]
        raise ValueError(f"{given}: {rule}. Allowed keys: {allowed}.") from error


def check(config: IngestConfig) -> None:
    """Raise ValueError where values of an ingest config contradict each other."""
    step = config.cell[0] if len(config.cell) == 3 else 0
    longest = [config.max_frames, *config.clip_frames]
    rules: list[tuple[str, bool, str]] = [
        (
            "cell",
            len(config.cell) == 3 and min(config.cell) >= 1,
            "needs three counts. Use [4,16,16]",
        ),
        (
            "max_frames",
            step > 0 and all(n >= 1 + step and n % step == 1 % step for n in longest),
            f"clip lengths must be 1 + k * {step}. Use 17",
        ),
        (
            "clip_frames",
            all(n <= config.max_frames for n in longest),
            f"must not exceed max_frames={config.max_frames}. Raise max_frames",
        ),
        ("token_cap", config.token_cap >= 8, "must be at least 8. Use 512"),
        (
            "split",
            config.split.replace("_", "").isalnum(),
            "must be a name. Use train or by_source",
        ),
        ("val_fraction", 0 <= config.val_fraction <= 1, "must be in [0, 1]. Use 0.1"),
        ("num_workers", config.num_workers >= 1, "must be at least 1. Use 2"),
        ("timeout_seconds", config.timeout_seconds > 0, "must be positive. Use 120"),
        ("max_clips_per_source", config.max_clips_per_source >= 1, "must be at least 1. Use 64"),
        ("crf", 0 <= config.crf <= 51, "must be in [0, 51]. Use 18"),
        ("max_edge_padding", 0 <= config.max_edge_padding <= 1, "must be in [0, 1]. Use 0.05"),
    ]
    for name, holds, rule in rules:
        if not holds:
            raise ValueError(f"{name}={getattr(config, name)}: {rule}.")


def find_entries(path: Path, notes: Notes) -> list[Entry]:
    """List the files of an input in a stable order; what may not be followed goes to ``notes``."""
    if not path.exists():
        raise ValueError(f"input={path}: does not exist. Give a folder, a .txt list or a .tar.")
    if path.is_dir():
        found = []
        for file in sorted(path.rglob("*")):
            if file.is_symlink():
                link = Reject("is a link", "Put the file itself into the folder.")
                notes.reject(str(file.relative_to(path)), link)
            elif file.is_file():
                found.append((str(file.relative_to(path)), file))
    elif path.suffix == ".txt":
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        found = [(line, path.parent / line) for line in lines if line and line[0] != "#"]
    else:
        found = [(path.name, path)]
    entries: list[Entry] = []
    for name, file in found:
        if not file.is_file():
            notes.reject(name, Reject("does not exist", "Correct the list."))
        elif file.suffix == ".tar":
            entries += tar_entries(name, file, notes)
        else:
            entries.append(Entry(name, file, 0, file.stat().st_size))
    return entries


def tar_entries(name: str, path: Path, notes: Notes) -> Iterator[Entry]:
    """Yield the regular members of an uncompressed tar, without unpacking; refuse the others."""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                inside = PurePosixPath(member.name)
                if inside.is_absolute() or ".." in inside.parts:
                    bad = Reject("its name leaves the archive", "Rename the member.")
                elif member.isdir():
                    continue
                elif not member.isreg() or member.issparse():
                    bad = Reject("is a link or device in an archive", "Store a plain file.")
                else:
                    full = f"{name}/{member.name}"
                    yield Entry(full, path, member.offset_data, member.size)
                    continue
                notes.reject(f"{name}/{member.name}", bad)
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        notes.reject(name, Reject(f"is no whole tar: {error}", "Decompress it or copy it again."))


def read_caption(entry: Entry, config: IngestConfig) -> str:
    """Return the caption in a sidecar. Raises Reject if it is too long or not text."""
    if entry.nbytes > config.caption_bytes:
        raise Reject(
            f"caption of {entry.nbytes} bytes",
            f"Keep it under caption_bytes={config.caption_bytes}.",
        )
    try:
        text = entry.read(config.caption_bytes).decode("utf-8")
        if entry.name.endswith(".json"):
            text = json.loads(text)["caption"]
        if not isinstance(text, str):
            raise TypeError("the caption is not text")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise Reject(f"caption unreadable: {error}", "Store UTF-8 text.") from error
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def split_of(name: str, config: IngestConfig) -> str:
    """Return the split of a source; ``by_source`` decides by a hash of its name."""
    if config.split != "by_source":
        return config.split
    value = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
    return "val_real" if value < config.val_fraction else "train"


def find_sources(config: IngestConfig, notes: Notes) -> list[MediaFile]:
    """Pair the files of an input with their captions."""
    entries = find_entries(Path(config.input).expanduser(), notes)
    unique = {entry.name: entry for entry in entries}
    stems = {stem(e.name): e for e in unique.values() if not e.name.endswith(SIDECARS)}
    captions: dict[str, str] = {}
    for entry in unique.values():
        if entry.name.endswith(SIDECARS) and stem(entry.name) in stems:
            try:
                captions[stem(entry.name)] = read_caption(entry, config)
            except Reject as error:
                notes.reject(entry.name, error)
    return [
        MediaFile(
            name=entry.name,
            split=split_of(entry.name, config),
            path=entry.path.absolute(),
            licence=config.licence,
            caption=captions.get(stem(entry.name), ""),
            offset=entry.offset,
            nbytes=entry.nbytes,
            stamp=entry.path.stat().st_mtime_ns,
        )
        for entry in unique.values()
        if not (entry.name.endswith(SIDECARS) and stem(entry.name) in stems)
    ]


def stem(name: str) -> str:
    """Return a name without its last suffix."""
    return str(PurePosixPath(name).with_suffix(""))


def ingest(config: IngestConfig, console: Console) -> dict[str, Any]:
    """Ingest ``config.input`` into ``config.output`` and return the manifest."""
    check(config)
    notes = Notes()
    sources: list[Source] = [*find_sources(config, notes)]
    if not sources:
        raise ValueError(f"input={config.input}: holds no files. Give videos or images.")
    with Progress("ingest", console) as progress:
        return build_dataset(Path(config.output), sources, config, notes, progress.update)


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    console = Console()
    if not arguments or {"-h", "--help", "help"} & set(arguments):
        print(f"{__doc__}\nKeys and defaults:\n{help_text(IngestConfig)}")
        return 0
    try:
        config = parse(IngestConfig, arguments)
        if not config.input:
            raise ValueError("input=(missing): say what to read. Use input=FOLDER.")
        manifest = ingest(config, console)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_report(manifest, console)
    console.print(f"dataset: {config.output}", highlight=False)
    return 0


def help_text(schema: type[Any]) -> str:
    """Return a schema's keys with their meaning and default values."""
    defaults = schema()
    lines = (schema.__doc__ or "").strip().split("\n\n", 1)[-1]
    values = "\n".join(
        f"    {f.name}={getattr(defaults, f.name)}"
        for f in dataclasses.fields(schema)
        if not dataclasses.is_dataclass(getattr(defaults, f.name))
    )
    return f"    {lines.strip()}\n\nDefaults:\n{values}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
