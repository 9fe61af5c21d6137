"""Read the attributes back out of a caption of a simulated world, by rules and a lexicon.

The worlds put every fact into their captions as a phrase of a closed vocabulary (data/worlds). The
lexicon collects those phrases from truths; the rules say in which surroundings a phrase means which
attribute ("red" before "floor", "red" in an object's name). What is not said is not found, and
what cannot be read counts as not said.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Stated = dict[str, list[str]]  # attribute -> phrases, in the order of the caption

# Where a phrase {} must stand to mean the attribute. Earlier attributes are read first, and what
# they read is gone for the later ones.
_RULES: dict[str, list[str]] = {
    "style": ["{}"],
    "camera": ["camera {}", r"\bit {}", "view {}", "player {}"],
    "sky": ["{} sky"],
    "wall": ["{} walls", "walls are {}"],
    "floor": ["{} floor", "floor is {}", "ground is {}"],
    "light": ["{} light", "light is {}", "it is {}", "time is {}"],
    "place": ["in an? {}"],
}
_AROUND = [r"with (?P<found>[^.;]*?) around", r"near by lie (?P<found>[^.;]*)"]
ATTRIBUTES = (
    "objects",
    "kinds",
    "colours",
    "actions",
    "places",
    "events",
    "floor",
    "wall",
    "sky",
    "around",
    "light",
    "camera",
    "style",
    "place",
)
# Only the game's captions always say what kind of place it is.
_PLACED_STYLES = ("computer game",)


@dataclass(frozen=True)
class Name:
    """An object's name and its parts; colour and size may be empty."""

    text: str
    kind: str
    colour: str
    size: str


class Lexicon:
    """The phrases of some truths, ready to read captions."""

    def __init__(self, phrases: dict[str, set[str]], names: set[Name]) -> None:
        self._phrases = phrases
        sizes, colours, kinds = ({getattr(n, k) for n in names} for k in ("size", "colour", "kind"))
        parts = f"(?:(?P<size>{_any(sizes)}) )?(?:(?P<colour>{_any(colours)}) )?"
        self._name = f"{parts}(?P<kind>{_any(kinds)})"
        plain = re.sub(r"\?P<\w+>", "?:", self._name)
        self._mention = re.compile(rf"\b(?:an?|another) (?P<found>{self._name})\b")
        self._rules = {
            attribute: re.compile("|".join(_fill(rule, phrases, attribute) for rule in rules))
            for attribute, rules in _RULES.items()
        }
        # "hits the large red ball" stands for a hit of any object.
        named = re.compile(rf"\b{plain}\b")
        events = {named.sub("\0", text) for text in phrases.get("events", set())}
        patterns = [re.escape(text).replace("\0", plain) for text in sorted(events, key=_longest)]
        self._events = re.compile(rf"\b(?P<found>{'|'.join(patterns) or NOTHING})\b")
        self._lists = {
            name: re.compile(rf"\b(?P<found>{_any(phrases.get(name, set()))})\b")
            for name in ("actions", "places", "around")
        }

    @classmethod
    def of(cls, truths: Iterable[dict[str, Any]]) -> "Lexicon":
        """Collect the phrases of truths as ``data.dataset.shards.read_truth`` returns them."""
        phrases: dict[str, set[str]] = {}
        names: set[Name] = set()
        for truth in truths:
            for attribute, value in truth["attributes"].items():
                items = value if isinstance(value, list) else [value]
                phrases.setdefault(attribute, set()).update(item.lower() for item in items if item)
            for track in truth["objects"]:
                kind, colour, size = (track[key].lower() for key in ("kind", "colour", "size"))
                text = " ".join(word for word in (size, colour, kind) if word)
                names.add(Name(text, kind, colour, size))
        return cls(phrases, names)

    def read(self, caption: str) -> Stated:
        """Return what a caption states; attributes that it does not state have empty lists."""
        text = " ".join(caption.lower().split())
        stated: Stated = {name: [] for name in ATTRIBUTES}
        for attribute, rule in self._rules.items():
            if attribute == "place" and stated["style"][:1] not in [[s] for s in _PLACED_STYLES]:
                continue
            found, text = _take(rule, text)
            stated[attribute] = found if attribute == "camera" else found[:1]
        for around in _AROUND:
            match = re.search(around, text)
            if match:
                stated["around"], _ = _take(self._lists["around"], match["found"])
                text = _blank(text, match)
        stated["events"], text = _take(self._events, text)
        for match in self._mention.finditer(text):
            stated["objects"].append(match["found"])
            stated["kinds"].append(match["kind"])
            if match["colour"]:
                stated["colours"].append(match["colour"])
            text = _blank(text, match)
        for attribute in ("actions", "places"):
            stated[attribute], text = _take(self._lists[attribute], text)
        return stated


NOTHING = "(?!)"  # a pattern that never matches


def _longest(text: str) -> tuple[int, str]:
    return -len(text), text


def _any(texts: Iterable[str]) -> str:
    """Return a pattern of alternatives, the longest first."""
    return "|".join(re.escape(text) for text in sorted(texts, key=_longest) if text) or NOTHING


def _fill(rule: str, phrases: dict[str, set[str]], attribute: str) -> str:
    # Every rule has a group of its own, since one pattern cannot use a name twice.
    return r"\b" + rule.replace("{}", f"({_any(phrases.get(attribute, set()))})") + r"\b"


def _take(rule: re.Pattern[str], text: str) -> tuple[list[str], str]:
    """Return the phrases that a pattern finds, in order, and the text without them."""
    found = []
    for match in rule.finditer(text):
        groups = match.groupdict()
        found.append(groups["found"] if groups else next(g for g in match.groups() if g))
        text = _blank(text, match)
    return found, text


def _blank(text: str, match: re.Match[str]) -> str:
    """Replace what was found by as many marks that match nothing."""
    return text[: match.start()] + "#" * (match.end() - match.start()) + text[match.end() :]


def parts_of(truth: dict[str, Any]) -> Stated:
    """Return the objects of a truth that can be seen, with their kinds and colours."""
    names = {}
    for track in truth["objects"]:
        words = [track[key].lower() for key in ("size", "colour", "kind")]
        names[" ".join(word for word in words if word)] = (words[2], words[1])
    seen = [name.lower() for name in truth["attributes"].get("objects", [])]
    return {
        "objects": seen,
        "kinds": [names[name][0] for name in seen],
        "colours": [names[name][1] for name in seen if names[name][1]],
    }
