"""Index webdataset shards that other tools wrote, so that they can be captioned, encoded, trained.

usage: kinescale index root=SHARDS out=DATASET [split=by_source] [key=value ...]
       kinescale index ROOT SPLIT [--check] [key=value ...]

The first form reads all ``*.tar`` in and below the folder SHARDS and writes DATASET: an index, a
manifest and links to the tars, which stay where they are. The second writes the same beside the
tars of the folder ROOT/SPLIT; it also makes the index of a data set of this project anew.
``--check`` reads every payload again and verifies it.

Captions lie in each sample's JSON or text, or in tars of the same names in another folder
(``captions=FOLDER``; ``metas``, ``captions`` and ``prompts`` beside the tars are found). Sizes and
lengths are measured by decoding; clips whose length is not 1 + k * 4 are cut in time.

Nothing is unpacked to disk and nothing is unpickled. Members that could only be there to escape a
folder (absolute names, ``..``, links, devices) are refused, and so is each sample that cannot be
read or whose members hold a wrong type; every refusal is listed with its reason in
``refused.jsonl`` beside the index. Compressed tars are refused, too: payloads are read in place.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt
from typing_extensions import Doc

from data.command_line import parse
from data.config import Count, IngestConfig, Share
from data.dataset.sample import SampleInfo
from data.dataset.shards import (
    INDEX_NAME,
    MANIFEST_NAME,
    read_index,
    read_manifest,
    read_payload,
    write_index,
    write_manifest,
)
from data.decode.pool import DecoderPool
from data.derive.foreign import Described, Rules, describe, legal_key
from data.derive.members import Group, grouped, members
from data.files import local_folder, write_text
from data.ingest.ingest import split_of
from data.ingest.inputs import COMPRESSED_TARS
from data.ingest.layouts import WORD_FOLDERS
from data.media.reject import printable
from data.notices import doing
from data.shell import command
from data.show.report import summarise
from data.words import counted

REFUSED_NAME = "refused.jsonl"
MAKER = "data.derive.index"


@dataclass
class IndexConfig:
    """What ``kinescale index`` makes."""

    root: Annotated[str, Doc("Folder of shards, in it or in folders below it.")] = ""
    out: Annotated[
        str, Doc("Dataset folder to write: an index and links; empty writes beside the shards.")
    ] = ""
    split: Annotated[
        str,
        Doc(
            "A split name for every clip, or by_source: val_fraction of the sources go whole to "
            "val_real, the rest to train."
        ),
    ] = "train"
    val_fraction: Annotated[Share, Doc("Share of sources held out by by_source.")] = 0.1
    captions: Annotated[
        str,
        Doc("Folder of tars of the same names that hold the words; none looks for no such folder."),
    ] = ""
    licence: Annotated[str, Doc("For samples whose JSON names none.")] = "unknown"
    max_frames: Annotated[
        int, Ge(0), Doc("Clips are cut in time to so many first frames; 0 keeps them whole.")
    ] = 0
    step: Annotated[
        Count, Doc("Clips are cut to 1 + k * step frames: what one latent frame stands for.")
    ] = 4
    num_workers: Annotated[Count, Doc("Child processes that decode.")] = 2
    timeout_seconds: Annotated[float, Gt(0), Doc("Time one clip may take.")] = 60.0

    @property
    def rules(self) -> Rules:
        """How samples are indexed."""
        return Rules(self.licence, self.max_frames, self.step)


@dataclass
class IndexReport:
    """Samples that were indexed, notes on some of them, and (name, reason) of all refused."""

    infos: list[SampleInfo] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def refuse(self, name: str, reason: str) -> None:
        """List something that is refused; both may quote a name of any bytes."""
        self.refused.append((printable(name)[:200], printable(reason)))

    def warnings(self) -> list[str]:
        """Return a line for each kind of note, with the first of its samples."""
        return [
            f"{counted(len(said), 'sample')}: {kind} (the first: {said[0]})"
            for kind, said in self.notes.items()
        ]

    def text(self) -> str:
        """Return counts, counts per reason, and notes."""
        lines = [
            f"indexed  {counted(len(self.infos), 'sample')}",
            f"refused  {len(self.refused):,}",
        ]
        reasons = Counter(reason.split(":")[0] for _, reason in self.refused)
        lines += [f"  {count:>6,}  {reason}" for reason, count in reasons.most_common()]
        return "\n".join([*lines, *self.warnings()])


def index_shards(root: Path | str, split: str, config: IndexConfig | None = None) -> IndexReport:
    """Write index and manifest beside the tars of ROOT/SPLIT.

    Raises ValueError if there are no tars or nothing in them could be indexed.
    """
    config = config or IndexConfig()
    folder = Path(root) / split
    shards = {shard.name: shard for shard in sorted(folder.glob("*.tar"))}
    report = IndexReport()
    read_shards(folder, shards, config, report)
    leave_out_again(Path(root), split, report)
    write_refused(folder, report)
    refuse_nothing(report, folder)
    write_index(folder, report.infos)
    describe_dataset(Path(root), {split: report.infos}, report)
    return report


def leave_out_again(root: Path, split: str, report: IndexReport) -> None:
    """Refuse the near-duplicates that lie in shards of this project and are in no index."""
    manifest = read_manifest(root) if (root / MANIFEST_NAME).is_file() else {}
    gone = set(manifest.get("left_out", {}).get(split, []))
    for info in report.infos:
        if info.key in gone:
            report.refuse(info.key, "nearly repeats another sample: see rejects in the manifest")
    report.infos = [info for info in report.infos if info.key not in gone]


def index_into(config: IndexConfig) -> IndexReport:
    """Write the data set ``config.out`` of the shards in and below ``config.root``.

    Raises ValueError as :func:`index_shards` does, and where ``out`` holds anything else.
    """
    root, out = Path(config.root).expanduser(), local_folder("out", config.out)
    if not root.is_dir():
        raise ValueError(f"root={config.root}: is no folder. Give the folder of the shards.")
    made_here = (out / MANIFEST_NAME).is_file() and read_manifest(out).get("maker") == MAKER
    if out.exists() and any(out.iterdir()) and not made_here:
        raise ValueError(f"out={out}: holds something else. Give another folder, or delete it.")
    if out.resolve() == root.resolve() or root.resolve() in out.resolve().parents:
        raise ValueError(f"out={out}: must not lie in root={root}. Give another folder.")
    words = caption_folder(root, config)
    found = sorted(p for p in root.rglob("*.tar") if words not in p.parents)
    shards = {"_".join(shard.relative_to(root).parts): shard for shard in found}
    report = IndexReport()
    read_shards(root, shards, config, report)
    refuse_nothing(report, None)
    splits: dict[str, list[SampleInfo]] = defaultdict(list)
    chosen = IngestConfig(split=config.split, val_fraction=config.val_fraction)
    for info in report.infos:
        splits[split_of(info.source, chosen)].append(info)
    (out / MANIFEST_NAME).unlink(missing_ok=True)  # without it nothing counts as whole
    for split, infos in splits.items():
        folder = out / split
        folder.mkdir(parents=True, exist_ok=True)
        for stale in (one for one in folder.iterdir() if one.is_symlink()):
            stale.unlink()
        for name in sorted({info.shard for info in infos}):
            (folder / name).symlink_to(shards[name].resolve())
        write_index(folder, infos)
    write_refused(out, report)
    describe_dataset(out, splits, report)
    return report


def refuse_nothing(report: IndexReport, folder: Path | None) -> None:
    """Raise ValueError where not one sample could be indexed."""
    if report.infos:
        return
    name, reason = report.refused[0] if report.refused else ("", "they are empty")
    where = f" Read {folder / REFUSED_NAME}, or" if folder else ""
    raise ValueError(
        f"shards={len(report.refused)} entries: none can be used; {name}: {reason}."
        f"{where or ' Or'} ingest the files instead."
    )


def read_shards(
    folder: Path, shards: dict[str, Path], config: IndexConfig, report: IndexReport
) -> None:
    """Add the samples of named tars to the report. Raises ValueError if there are none."""
    packed = [p for p in sorted(folder.rglob("*")) if p.name.lower().endswith(COMPRESSED_TARS)]
    for shard in packed:
        remedy = f"payloads are read in place. Decompress it first (gunzip -k {shard.name})"
        report.refuse(shard.name, f"compressed tar: {remedy}")
    if not shards:
        remedy = f"{packed[0].name} is compressed: gunzip -k it." if packed else "Give another."
        raise ValueError(f"split={folder.name}: {folder} holds no *.tar. {remedy}")
    words = caption_folder(folder, config)
    taken: set[str] = set()
    with (
        DecoderPool(config.num_workers, config.timeout_seconds) as pool,
        ThreadPoolExecutor(config.num_workers) as threads,
    ):
        for count, (name, shard) in enumerate(shards.items()):
            with doing(f"reading shard {count + 1} of {len(shards)}, {name}"):
                groups = grouped(all_members(folder, shard, words, report), report.refuse)

                def one(group: Group) -> Described | Exception:
                    try:
                        return describe(group, config.rules, pool)
                    except (ValueError, OSError, RecursionError) as error:  # a DecodeError is one
                        return error

                for group, found in zip(groups, threads.map(one, groups), strict=True):
                    if isinstance(found, Exception):
                        report.refuse(f"{shard.name}/{group.key}", str(found))
                    else:
                        add(found, group, name, taken, report)


def all_members(
    folder: Path, shard: Path, words: Path | None, report: IndexReport
) -> Iterator[Any]:
    """Yield the members of a tar, and the words in the one of its name in another folder."""
    yield from members(shard, report.refuse)
    beside = words / shard.name if words else None
    if beside is not None and os.path.lexists(beside):
        for member in members(beside, report.refuse):
            if member.name.endswith((".json", ".txt")):
                yield member


def caption_folder(folder: Path, config: IndexConfig) -> Path | None:
    """Return the folder of tars that hold the words, if there is one.

    Raises ValueError where the one that the user names is none.
    """
    if config.captions == "none":
        return None
    if config.captions:
        found = Path(config.captions).expanduser()
        if not found.is_dir():
            raise ValueError(f"captions={found}: is no folder. Give the one of the tars of words.")
        return found
    near = [base / name for base in (folder, folder.parent) for name in WORD_FOLDERS]
    return next((one for one in near if any(one.glob("*.tar"))), None)


def add(found: Described, group: Group, shard: str, taken: set[str], report: IndexReport) -> None:
    """Add a sample under a key that no other one has: counts restart in each shard."""
    info = replace(found.info, shard=shard)
    if info.key in taken:
        info = replace(info, key=legal_key(group.key, f"{shard}/"))
    taken.add(info.key)
    report.infos.append(info)
    for kind, said in found.notes.items():
        report.notes[kind].append(f"{group.key}, {said}")


def describe_dataset(root: Path, splits: dict[str, list[SampleInfo]], report: IndexReport) -> None:
    """Write the manifest; what another command said in it stays, with the new digests."""
    before = read_manifest(root) if (root / MANIFEST_NAME).is_file() else {"maker": MAKER}
    kept = {k: v for k, v in before.items() if k not in ("shards", "indexes")}
    if before.get("maker") == MAKER:
        rejects = [
            {"file": name, "reason": reason, "remedy": "Mend it, or do without."}
            for name, reason in report.refused
        ]
        metas = {split: [info.to_json() for info in infos] for split, infos in splits.items()}
        account = summarise(metas, rejects, report.warnings(), IngestConfig(), [])
        account["splits"] = before.get("splits", {}) | account["splits"]
        kept |= account
    write_manifest(root, kept)


def write_refused(folder: Path, report: IndexReport) -> None:
    """Write the refusals beside the index, one a line."""
    lines = [json.dumps({"name": n, "reason": r}) + "\n" for n, r in report.refused]
    write_text(folder / REFUSED_NAME, "".join(lines))


@command(__doc__, keys=IndexConfig, doing="reading the shards")
def main(arguments: list[str]) -> int:
    """Index shards and print what was found and refused."""
    words = [word for word in arguments if "=" not in word and word != "--check"]
    config = parse(IndexConfig, [word for word in arguments if "=" in word])
    wrong = [word for word in words if word.startswith("-")]
    if wrong or len(words) not in (0, 2) or bool(words) == bool(config.out and config.root):
        raise ValueError(
            f"index={' '.join(arguments)}: must be root=SHARDS out=DATASET, or ROOT SPLIT. "
            "See kinescale index --help."
        )
    if words:
        report = index_shards(words[0], words[1], config)
        root, splits = Path(words[0]), [words[1]]
    else:
        report, root = index_into(config), Path(config.out)
        splits = sorted(path.parent.name for path in root.glob(f"*/{INDEX_NAME}"))
    if "--check" in arguments:
        check_all(root, splits)
    print(report.text())
    for split in splits:
        print(f"wrote {root / split / INDEX_NAME}")
    return 0


def check_all(root: Path, splits: list[str]) -> None:
    """Read and verify every payload. Raises ValueError at the first that is not what it was."""
    for split in splits:
        for info in read_index(root, split):
            read_payload(root, split, info)


if __name__ == "__main__":
    main.run()
