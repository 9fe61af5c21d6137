"""Members of foreign tars become samples: which of them belong together, and which one is shown.

Members belong to one sample where their names agree but for the last suffix, wherever in the tar
they lie. Beyond that, what says or shows something of a clip under a longer name is its own
(``a.mp4`` with ``a.caption.txt`` or ``a.thumb.jpg``), so is a text of its name in a folder of
captions (``videos/a.mp4`` with ``metas/a.json``), and a text whose name is shorter (``a.video.mp4``
with ``a.txt``) where it can be of one clip only.
"""

import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from data.dataset.shards import TAR_FAILURES
from data.dataset.tar_writer import TRUTH_EXTENSION
from data.dataset.tars import open_tar
from data.ingest.layouts import FILM_FOLDERS, WORD_FOLDERS
from data.media.reject import printable

MEDIA_OF_EXTENSION = {
    **dict.fromkeys(("mp4", "webm", "mkv", "mov", "avi", "m4v"), "video"),
    **dict.fromkeys(("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "ppm"), "image"),
    "safetensors": "latent",
}
TEXTS = ("txt", "text", "caption")
Refuse = Callable[[str, str], None]


@dataclass(frozen=True)
class Member:
    """Where a tar member's bytes lie."""

    shard: Path
    name: str
    offset: int
    nbytes: int

    def read(self) -> bytes:
        """Return the member's bytes."""
        with open(self.shard, "rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.nbytes)


@dataclass
class Group:
    """The members of one sample by what their names add to its key: mp4, json, thumb.jpg."""

    key: str
    members: dict[str, Member] = field(default_factory=dict)

    def of_media(self, media: str) -> list[str]:
        """Return the suffixes of its members of one medium."""
        return [name for name in self.members if media_of(name) == media]

    @property
    def has_payload(self) -> bool:
        """Whether any member could be shown."""
        return any(media_of(name) for name in self.members)

    def payload(self, is_latent: bool) -> tuple[str, Member]:
        """Return (medium, member) of what is shown; a picture beside a film is its thumbnail.

        ``is_latent``: the sample's JSON says so; a safetensors may hold anything else. Raises
        ValueError where there is no such member, or several.
        """
        for media in ("latent",) if is_latent else ("video", "image", "latent"):
            found = self.of_media(media)
            if len(found) > 1:
                raise ValueError(f"payloads {found}: exactly one is needed. Keep one")
            if found:
                return media, self.members[found[0]]
        held = ", ".join(sorted(self.members))
        raise ValueError(f"payloads []: no film, picture or latent among its members ({held})")

    def texts(self) -> Iterator[Member]:
        """Yield the members that hold words, the plainest name first."""
        named = [name for name in self.members if last_suffix(name) in TEXTS]
        yield from (self.members[name] for name in sorted(named, key=lambda n: (len(n), n)))

    def tables(self) -> Iterator[Member]:
        """Yield the members that hold JSON, the plainest name first."""
        named = [n for n in self.members if last_suffix(n) == "json" and n != TRUTH_EXTENSION]
        yield from (self.members[name] for name in sorted(named, key=lambda n: (len(n), n)))


def last_suffix(name: str) -> str:
    """Return what follows the last dot, in small letters."""
    return name.rpartition(".")[2].lower()


def media_of(name: str) -> str:
    """Return the medium of a member by its suffix, or nothing."""
    return MEDIA_OF_EXTENSION.get(last_suffix(name), "")


def split_name(name: str) -> tuple[str, str]:
    """Return (key, suffix) of a member's name; no suffix where it belongs to no sample."""
    path = PurePosixPath(name)  # ./a.mp4 is a.mp4
    if path.name.endswith(f".{TRUTH_EXTENSION}"):
        return str(path)[: -len(TRUTH_EXTENSION) - 1], TRUTH_EXTENSION
    stem, dot, suffix = path.name.rpartition(".")
    if not (stem and dot and suffix):
        return "", ""
    return str(path.with_name(stem)), suffix.lower()


def grouped(found: Iterable[Member], refuse: Refuse) -> list[Group]:
    """Return the samples that members make, in the order of their first ones.

    ``refuse`` hears of members that belong to none, and of those that are there twice.
    """
    groups: dict[str, Group] = {}
    for member in found:
        where = f"{member.shard.name}/{member.name}"
        key, suffix = split_name(member.name)
        if not suffix:
            refuse(where, "no extension, so that it belongs to no sample")
            continue
        group = groups.setdefault(key, Group(key))
        if suffix in group.members:
            refuse(where, f"duplicate member: its sample has a {suffix} already")
            continue
        group.members[suffix] = member
    join_longer(groups)
    join_shorter(groups)
    return list(groups.values())


def join_longer(groups: dict[str, Group]) -> None:
    """Give what shows no film itself to the clip whose name it begins with."""
    for key, group in list(groups.items()):
        if group.of_media("video"):
            continue
        for owner, suffix in owners(key):
            theirs = groups.get(owner)
            if theirs is None or not theirs.has_payload:
                continue
            if group.has_payload and not theirs.of_media("video"):
                continue
            for name, member in group.members.items():
                theirs.members.setdefault(f"{suffix}{name}", member)
            del groups[key]
            break


def owners(key: str) -> Iterator[tuple[str, str]]:
    """Yield (key, start of suffixes) of the clips that members of this key may be of."""
    path = PurePosixPath(key)
    stem, dot, _ = path.name.rpartition(".")
    while stem and dot:
        yield str(path.with_name(stem)), f"{path.name[len(stem) + 1 :]}."
        stem, dot, _ = stem.rpartition(".")
    if path.parent.name in WORD_FOLDERS:
        for folder in FILM_FOLDERS:
            yield str(path.parent.with_name(folder) / path.name), ""
        yield str(path.parent.parent / path.name), ""


def join_shorter(groups: dict[str, Group]) -> None:
    """Give texts to the one clip whose name begins with theirs."""
    claims: dict[str, list[Group]] = defaultdict(list)
    for key, group in groups.items():
        if group.has_payload:
            for owner, _ in owners(key):
                claims[owner].append(group)
    for key, group in list(groups.items()):
        if not group.has_payload and len(claims[key]) == 1:
            for name, member in group.members.items():
                claims[key][0].members.setdefault(name, member)
            del groups[key]


def members(shard: Path, refuse: Refuse) -> Iterator[Member]:
    """Yield the safe, complete regular files of a tar; ``refuse`` hears of the others."""
    try:
        if not shard.is_file():  # a pipe of that name would be waited for, for ever
            raise OSError("no plain file")
        if printable(shard.name) != shard.name:
            raise OSError("its name is not UTF-8")
        end = shard.stat().st_size
        with open_tar(shard) as tar:
            for entry in tar:
                reason = reason_to_refuse(entry, end)
                if reason:
                    refuse(f"{shard.name}/{entry.name}", reason)
                elif entry.isreg():
                    yield Member(shard, entry.name, entry.offset_data, entry.size)
                tar.members = []  # type: ignore[attr-defined]  # a tar of millions would stay in memory
    except TAR_FAILURES as error:
        refuse(shard.name, f"damaged tar: {error}")


def reason_to_refuse(entry: tarfile.TarInfo, end: int) -> str:
    """Return why a tar member is refused, or an empty text."""
    path = PurePosixPath(entry.name)
    if printable(entry.name) != entry.name:
        return "name is not UTF-8"
    if path.is_absolute() or entry.name.startswith("\\"):
        return "absolute name"
    if ".." in path.parts or "\\" in entry.name:
        return "name leaves its folder"
    if entry.issym() or entry.islnk():
        return "link"
    if entry.isdir():
        return ""
    if not entry.isreg() or entry.issparse():
        return "neither a plain file nor a folder"
    if entry.offset_data + entry.size > end:
        return "truncated"
    return ""
