"""Build a dataset out of final parts: what is there is kept, and assembly copies no payload.

Consecutive sources of a split make a part: about ``shard_bytes`` of work. Whoever builds a part
drafts its sources one by one, in children that can be killed (data/engine/drafts.py), and seals the
drafts into shards (data/dataset/part.py). Near-duplicates are known only when all parts are there:
they stay in their shards, and the index leaves them out.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from data.config import IngestConfig
from data.dataset.part import (
    SHARD,
    PartName,
    PartWriter,
    Piece,
    find_pieces,
    index_pieces,
    is_whole,
    part_id,
    read_piece,
)
from data.dataset.sample import SampleInfo
from data.dataset.shards import MANIFEST_NAME, WRITING_NAME, read_manifest
from data.engine.drafts import (
    Draft,
    build_draft,
    digest_of,
    drop_draft,
    finish_dead,
    is_whole_draft,
    last_pulse,
    payloads_of,
    read_draft,
    source_ids,
)
from data.engine.duplicates import drop_duplicates
from data.engine.engines import Work, carry_out, in_children
from data.engine.settings import BUILDERS, STAYING, share_of
from data.engine.source import Notes, Source
from data.files import local_folder
from data.show.report import summarise
from data.words import counted

DRAFTS = ".parts"
BYTES_A_SECOND = 1.5e6  # of work: the rule of thumb of a source's weight
Report = Callable[[float, float, str], None]


@dataclass(frozen=True)
class Part:
    """Some sources of one split; ``ids`` are digests of all that decides their samples."""

    root: Path
    name: PartName
    sources: tuple[Source, ...]
    ids: tuple[str, ...]
    config: IngestConfig

    @property
    def weight(self) -> float:
        """Expected work."""
        return sum(source.weight for source in self.sources)

    @property
    def drafts(self) -> list[Draft]:
        """Its sources on their way."""
        folder = self.root / DRAFTS
        pairs = zip(self.sources, self.ids, strict=True)
        return [Draft(folder, source, id, self.config) for source, id in pairs]

    def is_whole(self) -> bool:
        """Say whether it is there and its shards hold what they did."""
        piece = read_piece(self.name.piece(self.root))
        return piece is not None and is_whole(piece, by_digest=True)


def plan_parts(
    root: Path, sources: Sequence[tuple[Source, str]], config: IngestConfig, first: int
) -> list[Part]:
    """Group sources, each with its id, into parts numbered from ``first`` on."""
    groups: list[list[tuple[Source, str]]] = []
    growing: dict[str, tuple[list[tuple[Source, str]], float]] = {}
    for source, id in sources:
        if source.split not in growing:
            growing[source.split] = [], 0.0
            groups.append(growing[source.split][0])
        group, weight = growing.pop(source.split)
        group.append((source, id))
        if weight + source.weight < config.shard_bytes / BYTES_A_SECOND:
            growing[source.split] = group, weight + source.weight
    parts = []
    for number, group in enumerate(groups, first):
        ids = tuple(id for _, id in group)
        name = PartName(group[0][0].split, number, part_id(ids))
        parts.append(Part(root, name, tuple(source for source, _ in group), ids, config))
    return parts


def build_parts(
    parts: Sequence[Part], num_workers: int, on_wait: Callable[[], None]
) -> Iterator[tuple[float, int]]:
    """Build parts with children of this process; yield work done and samples made, as it goes."""
    waiting: dict[str, int] = {}  # sources that a part lacks
    part_of: dict[str, Part] = {}
    missing: list[Draft] = []
    for part in parts:
        if part.is_whole():  # built by a node that died before its batch ended
            yield part.weight, 0
            continue
        (part.root / DRAFTS).mkdir(parents=True, exist_ok=True)
        lacking = [draft for draft in part.drafts if not is_whole_draft(draft)]
        part_of |= {draft.id: part for draft in lacking}
        waiting[part.name.id] = len(lacking)
        missing += lacking
        if not lacking:
            seal(part)
        yield part.weight - sum(draft.source.weight for draft in lacking), 0
    if not missing:
        return
    config = missing[0].config
    built = in_children(
        *(build_draft, finish_dead, last_pulse, missing, config, num_workers, on_wait)
    )
    for draft, count in built:
        part = part_of[draft.id]
        waiting[part.name.id] -= 1
        if not waiting[part.name.id]:
            seal(part)
        yield draft.source.weight, count


def seal(part: Part) -> None:
    """Turn the drafts of a part into its shards and its piece of the index; remove them.

    Raises ValueError if a draft's payloads are not those that its lines say.
    """
    notes = Notes()
    made_of = part.name, part.ids
    try:
        with PartWriter(part.root, *made_of, part.config.shard_bytes) as writer:
            for draft in part.drafts:
                said, lines = read_draft(draft)
                notes.add(said)
                name_scenes(lines, said.films)
                for line, payload in zip(lines, payloads_of(draft, lines), strict=True):
                    what = line["meta"], payload, line["extension"], line["truth"]
                    more = {"fingerprint": line["fingerprint"], "file": draft.source.name}
                    writer.write(*what, **more)
            writer.said["notes"] = notes.to_json()
    except FileNotFoundError:
        if not part.is_whole():  # else another process sealed it meanwhile
            raise
    for draft in part.drafts:
        drop_draft(draft)


def name_scenes(lines: list[dict[str, Any]], films: list[dict[str, Any]]) -> None:
    """Tell each clip of a film the number of its scene, known only once the film had ended."""
    scenes = films[0]["scenes"] if films else []
    for line in lines:
        original = line["meta"]["original"]
        if "shot" in original and original["shot"] < len(scenes):
            original["scene"] = scenes[original["shot"]]


def build_dataset(
    root: Path,
    sources: Sequence[Source],
    config: IngestConfig,
    notes: Notes,
    on_progress: Report = lambda done, total, text: None,
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Build (or find finished) the dataset of these sources and return its manifest.

    ``notes`` carries what was already left out; ``extra`` goes into the manifest;
    ``on_progress(done, total, text)`` is called at least twice a second. Parts that are there are
    kept, those of a finished dataset of fewer sources, too. With a ``share`` its parts are built
    and {} is returned. Raises ValueError if no source gave a sample, and where the folder holds a
    dataset of other sources or settings.
    """
    local_folder("dataset", root)
    root = root.absolute()
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        raise ValueError("source=(repeated): names must be unique. Rename one of the inputs.")
    cut = {k: v for k, v in asdict(config).items() if k not in BUILDERS}
    digest = digest_of([cut, [repr(source) for source in sources], notes.to_json()])
    manifest = read_manifest(root) if (root / MANIFEST_NAME).is_file() else {}
    if manifest.get("digest") == digest and not config.overwrite:
        shutil.rmtree(root / DRAFTS, ignore_errors=True)
        return manifest
    ids = source_ids(sources, config)
    kept = pieces_to_keep(root, manifest, set(ids), config)
    covered = {id for piece in kept for id in piece.made_of}
    fresh = [pair for pair in zip(sources, ids, strict=True) if pair[1] not in covered]
    first = 1 + max((piece.number for piece in kept), default=-1)
    parts = plan_parts(root, fresh, config, first)
    if share := share_of(config.share):
        run_parts(parts[share[0] :: share[1]], config, on_progress)
        return {}
    run_parts(parts, config, on_progress)
    paths = [*(piece.path for piece in kept), *(part.name.piece(root) for part in parts)]
    about = {"digest": digest, "staying": staying(config), **(extra or {})}
    assemble(root, paths, config, notes, about)
    shutil.rmtree(root / DRAFTS, ignore_errors=True)
    return read_manifest(root)


def staying(config: IngestConfig) -> list[Any]:
    """Return the settings that say which samples of parts the index holds."""
    return [getattr(config, name) for name in STAYING]


def pieces_to_keep(
    root: Path, manifest: dict[str, Any], ids: set[str], config: IngestConfig
) -> list[Piece]:
    """Return the heads of the parts of a dataset that are made of given sources alone.

    Raises ValueError where another dataset is there and may not be replaced, or a part is damaged.
    """
    if not manifest:
        refuse_foreign(root)
        return []
    pieces, damaged = find_pieces(root, manifest)
    kept = [piece for piece in pieces if ids.issuperset(piece.made_of)]
    if config.overwrite:
        return kept
    same = "parts" in manifest and manifest.get("staying") == staying(config)
    if not same or len(kept) < len(pieces):
        raise ValueError(
            f"output={root}: holds a dataset made from other inputs or settings. "
            "Choose another folder, or say overwrite=true to replace it."
        )
    if damaged:
        raise ValueError(
            f"part={damaged[0]}: it or one of its shards is missing or was changed. "
            "Restore it, or say overwrite=true to build it again."
        )
    return kept


def refuse_foreign(root: Path) -> None:
    """Raise ValueError where shards lie that no build of parts, whole or not, has left."""
    for path in root.glob("*/*.tar"):
        if not SHARD.fullmatch(path.name) and not (path.parent / WRITING_NAME).exists():
            raise ValueError(
                f"output={root}: {path} already is there and was not made here. "
                "Choose another folder, or delete that one."
            )


def assemble(
    root: Path, paths: list[Path], config: IngestConfig, notes: Notes, about: dict[str, Any]
) -> None:
    """Write indexes and manifest of finished parts, by the paths of their pieces.

    Raises ValueError if they hold no sample, or one is damaged.
    """
    pieces = []
    sources: dict[str, tuple[str, list[dict[str, Any]]]] = {}
    for path in paths:
        piece = read_piece(path)
        if piece is None or not is_whole(piece, by_digest=False):
            raise ValueError(f"part={path}: was damaged meanwhile. Run the same command again.")
        pieces.append(piece)
        notes.add(Notes(**piece.said["notes"]))
        for info, more in zip(piece.infos, piece.extra, strict=True):
            line = {"meta": info.to_json(), "fingerprint": more["fingerprint"]}
            sources.setdefault(more["file"], (piece.split, []))[1].append(line)
    if not any(piece.infos for piece in pieces):
        raise ValueError(
            f"input=({counted(len(paths), 'part')}): none gave a clip. {reasons(notes)} "
            "Give files that PyAV or Pillow can read."
        )
    alike = drop_duplicates(sources, config, notes)
    scores = {
        (split, line["meta"]["key"]): line["meta"].get("scores", {})
        for split, lines in sources.values()
        for line in lines
    }
    infos: dict[str, list[SampleInfo]] = {}
    for piece in pieces:
        for info in piece.infos:
            place = piece.split, info.key
            if place not in alike:
                infos.setdefault(piece.split, []).append(replace(info, scores=scores[place]))
    metas = {split: [info.to_json() for info in members] for split, members in infos.items()}
    account = summarise(metas, notes.rejects, notes.warnings, config, notes.films)
    left_out: dict[str, list[str]] = {}
    for split, key in sorted(alike):
        left_out.setdefault(split, []).append(key)
    index_pieces(root, pieces, infos, {**about, "left_out": left_out, **account}, True)


def reasons(notes: Notes, most: int = 3) -> str:
    """Quote the first reasons for which inputs were left out."""
    return " ".join(f"{r['file']}: {r['reason']}." for r in notes.rejects[:most])


def run_parts(parts: list[Part], config: IngestConfig, on_progress: Report) -> None:
    """Build the parts that are not there yet or not whole, by the engine of the settings."""
    total = sum(part.weight for part in parts)
    done, clips = 0.0, 0

    def report() -> None:
        on_progress(done, total, counted(clips, "clip"))

    missing = []
    with ThreadPoolExecutor(config.num_workers) as threads:
        for part, whole in zip(parts, threads.map(Part.is_whole, parts), strict=True):
            if whole:
                done += part.weight
            else:
                missing.append(part)
            report()
    if not missing:
        return
    folders = (missing[0].root,)
    for weight, count in carry_out(Work(build_parts, folders), missing, config, report):
        done, clips = done + weight, clips + count
        report()
