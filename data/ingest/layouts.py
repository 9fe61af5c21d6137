"""The layouts in which people keep captions of many clips in one file, as one table.

A layout is the names of its columns, compared without case, spaces, hyphens and underscores. The
first whose columns a file has is taken. Another layout is another line of ``LAYOUTS``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from data.keys import guess

# Columns of words, the dense ones first; whatever a layout's own are, these count after them.
CAPTIONS = (
    *("densecaption", "longcaption", "longprompt", "caption", "text", "prompt", "cap", "captions"),
    *("prompts", "description", "videocaption"),
)
SHORTS = ("shortcaption", "shortprompt", "briefcaption")
LICENCES = ("licence", "license")
# Where in a film the clip lies: one column of [start, end], or of many such, or two columns.
STAMPS = ("timestamp", "timestamps")
STARTS = ("start", "starttime", "starttimestamp", "startseconds", "startsec")
ENDS = ("end", "endtime", "endtimestamp", "endseconds", "endsec")


@dataclass(frozen=True)
class Layout:
    """A way to lay out captions: the columns that name a clip, and those of its words.

    path: columns with the path or file name of a clip, or its URL.
    name: columns with its name without a suffix, looked for where no path column is there.
    caption: its own columns of words, before ``CAPTIONS``.
    """

    title: str
    path: tuple[str, ...] = ()
    name: tuple[str, ...] = ()
    caption: tuple[str, ...] = ()


LAYOUTS = (
    Layout("Hugging Face VideoFolder", path=("filename", "videofilename", "imagefilename")),
    Layout("Open-Sora", path=("path",), caption=("text",)),
    Layout("Open-Sora-Plan", path=("path",), caption=("cap",)),
    Layout("DiffSynth", path=("video",), caption=("prompt",)),
    Layout("OpenVid", path=("video",), caption=("caption",)),
    Layout("finetrainers", path=("videofile", "file", "imagefile")),
    Layout("musubi", path=("videopath", "imagepath", "filepath", "clippath")),
    Layout("DiffSynth, pictures", path=("image",), caption=("prompt",)),
    Layout("Panda-70M, Koala-36M", name=("videoid", "clipid"), caption=("caption",)),
    Layout("InternVid", name=("youtubeid",), caption=("caption",)),
    Layout("WebVid", name=("videoid",), caption=("name",)),
    Layout("list of URLs", path=("url", "videourl", "contenturl", "videolink")),
)
# Two text files whose lines belong together (finetrainers, diffusers), and two folders whose file
# names do (cosmos).
WORD_LISTS = ("prompts.txt", "prompt.txt", "captions.txt", "caption.txt")
FILM_LISTS = ("videos.txt", "video.txt", "images.txt", "image.txt")
WORD_FOLDERS = ("metas", "captions", "prompts")
FILM_FOLDERS = ("videos", "video", "clips", "images")


@dataclass(frozen=True)
class Columns:
    """Which columns of a file hold what; empty where none does."""

    title: str
    path: str
    caption: str
    name: str = ""
    short: str = ""
    licence: str = ""
    stamps: str = ""
    start: str = ""
    end: str = ""

    @property
    def used(self) -> set[str]:
        """Columns that say no more once they are read."""
        return {self.path, self.caption, self.short, self.licence} - {""}


def plain(column: str) -> str:
    """Return a column's name without what tells apart ``videoID`` and ``video_id``."""
    return re.sub(r"[\s_-]+", "", str(column)).lower()


def first(names: Sequence[str], columns: dict[str, str]) -> str:
    """Return the first column of some names, or nothing."""
    return next((columns[name] for name in names if name in columns), "")


def columns_of(found: Sequence[str], path_column: str, caption_column: str) -> Columns | None:
    """Return what the columns of a file hold, None where no layout has them.

    A column that the user names goes before any layout. Raises ValueError if it is not there.
    """
    for key, asked in (("path_column", path_column), ("caption_column", caption_column)):
        if asked and asked not in found:
            raise ValueError(
                f"{key}={asked}: the file has no such column. {guess(asked, found)}"
                f"Its columns: {', '.join(found)}."
            )
    columns = {plain(column): column for column in reversed(found)}
    more = {
        "short": first(SHORTS, columns),
        "licence": first(LICENCES, columns),
        "stamps": first(STAMPS, columns),
    }
    if first(STARTS, columns) and first(ENDS, columns):
        more |= {"start": first(STARTS, columns), "end": first(ENDS, columns)}
    asked_for = Layout("columns as named", path=(plain(path_column),) if path_column else ())
    for own in (True, False):  # a layout's own words go before those that any may have
        for layout in (asked_for,) if path_column else LAYOUTS:
            path, name = first(layout.path, columns), first(layout.name, columns)
            words = layout.caption if own else CAPTIONS
            caption = caption_column or first(words, columns)
            if (path or name) and caption:
                return Columns(layout.title, path, caption, "" if path else name, **more)
    return None
