"""Find the film that a table names among the files of an input, whatever it calls it."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

# Of several files of one name these are the film; others are its thumbnail, sound, subtitles.
VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v", ".ts", ".mpg", ".flv", ".wmv")


class Ambiguous(ValueError):
    """A table's name may mean several films, or several names the one ``film``."""

    remedy = "Give paths that tell them apart."

    def __init__(self, reason: str, film: str = "") -> None:
        super().__init__(reason)
        self.film = film


class Names:
    """The films of an input, by path and by name."""

    def __init__(self, films: Iterable[str]) -> None:
        self._films = set(films)
        self._by_file: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._folders: set[str] = set()
        self._claimed: dict[str, str] = {}
        for film in sorted(self._films):
            path = PurePosixPath(film)
            self._by_file[path.name].append(film)
            self._by_stem[path.stem].append(film)
            self._folders.update(map(str, path.parents))

    def holds(self, called: str) -> bool:
        """Say whether some film has this path, file name or name."""
        path = PurePosixPath(called)
        return called in self._films or path.name in self._by_file or called in self._by_stem

    def under(self, folder: str) -> bool:
        """Say whether a film lies in or below a folder."""
        return folder in self._folders

    def find(self, called: str, folder: str, is_path: bool) -> str | None:
        """Return the film that a table for ``folder`` means, None where none lies here.

        A path is one from the folder, from the input, or the end of one that only one film has. Of
        a path of another machine the first folders are passed over, of a URL all but the file (of
        YouTube's, its id). Raises Ambiguous.
        """
        if not is_path:
            return self._one(self._by_stem.get(called, []), called, folder)
        if "://" in called:
            called = file_of_url(called)
        called = called.replace("\\", "/")
        path = PurePosixPath(*(part for part in PurePosixPath(called).parts if part != "."))
        for base in (PurePosixPath(folder), PurePosixPath()):
            if str(base / path) in self._films:
                return str(base / path)
        if path.is_absolute():
            return self._tail(path, folder)
        alike = [f for f in self._by_file.get(path.name, []) if f.endswith(f"/{path}")]
        alike = alike or self._by_stem.get(str(path), [])
        return self._one(alike, called, folder)

    def _one(self, alike: list[str], called: str, folder: str) -> str | None:
        near = [film for film in alike if folder == "." or film.startswith(f"{folder}/")]
        alike = near or alike
        alike = [film for film in alike if film.lower().endswith(VIDEO_SUFFIXES)] or alike
        if len(alike) > 1:
            raise Ambiguous(f"may mean {alike[0]} or {alike[1]}")
        return alike[0] if alike else None

    def _tail(self, path: PurePosixPath, folder: str) -> str | None:
        """Return the film at the longest end of an absolute path that one has."""
        parts = path.parts[1:]
        for start in range(len(parts)):
            for base in (PurePosixPath(folder), PurePosixPath()):
                film = str(base.joinpath(*parts[start:]))
                if film not in self._films:
                    continue
                other = self._claimed.setdefault(film, str(path))
                if other != str(path):
                    raise Ambiguous(f"and {other} end alike: both may mean {film}", film)
                return film
        return None


def file_of_url(url: str) -> str:
    """Return the name of the file that a URL gives: its last part, or the id of YouTube's film."""
    parts = urlsplit(url)
    last = unquote(PurePosixPath(parts.path).name)
    if "youtu" in parts.netloc:
        return parse_qs(parts.query).get("v", [last])[0]
    return last
