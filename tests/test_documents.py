"""The documents are true where a machine can tell: links, paths, lengths, decimals."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from sweeps.kinds.compose import compose_any
from trainer.config import RunKind
from trainer.kinds import compose_any as compose_run_of_any_kind

ROOT = Path(__file__).parents[1]
ROOMS = ("models", "data", "trainer", "launch", "sweeps", "tests", "benchmarks", "examples")
README_LINES = 150

PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(
            page
            for folder in (*ROOMS, "docs", "containers")
            for page in (ROOT / folder).rglob("*.md")
        ),
    ]
)
# The log and the studies say what was true on their day.
HISTORY = {p for p in PAGES if p.name == "log.md" or ROOT / "docs/studies" in p.parents}
PRESENT = [page for page in PAGES if page not in HISTORY]
ROOM_PAGES = [ROOT / room / "README.md" for room in ("data", "data/worlds", "trainer", "launch")]

FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(rf"(?:{'|'.join(ROOMS)}|docs)/[\w./-]*\w\.(?:py|yaml|md|html|css)\b")
BARE_DECIMAL = re.compile(r"(?<![0-9A-Za-z_.)\]])\.\d")


def name_of(page):
    return str(page.relative_to(ROOT))


def without_fences(page):
    """Return a page's text, with blank lines in the place of its code blocks."""
    text = page.read_text(encoding="utf-8")
    return FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)


def prose(page):
    """Return a page's text without code and without the targets of links."""
    return LINK.sub("]", CODE.sub("``", without_fences(page)))


@cache
def anchors(page):
    """Return what a link may name after # in a page: its headings as they are shortened."""
    headings = re.findall(r"^#+ (.*)$", without_fences(page), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in kept}


def dead_links(page):
    """Return the relative links of a page whose file or heading is not there."""
    dead = []
    for target in LINK.findall(CODE.sub("``", without_fences(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            dead.append(target)
    return dead


def missing_files(page):
    """Return the files that code of a page names and that are not there.

    NAME and SITE stand for what a reader chooses.
    """
    text = page.read_text(encoding="utf-8")
    named = {path for code in CODE.findall(without_fences(page)) for path in FILE.findall(code)}
    named |= {path for block in FENCE.findall(text) for path in FILE.findall(block)}
    real = {path for path in named if not re.search(r"\b(NAME|SITE)\b", path)}
    return sorted(p for p in real if not (ROOT / p).exists())


def commands(name):
    """Yield the words after ``kinescale name`` in the code blocks of all pages, once each.

    Left out is what a reader completes: NAME and SITE, and the study that a tutorial writes.
    """
    seen = set()
    for page in PRESENT:
        for block in FENCE.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True) if line.startswith("kinescale ") else []
                open_end = re.search(r"\b(NAME|SITE|HASH|mine)\b", " ".join(words[2:]))
                if words[1:2] == [name] and not open_end and tuple(words) not in seen:
                    seen.add(tuple(words))
                    yield words[2:]


def local_files(page):
    """Yield (folder, name) of every Python file that code of a room's page names.

    They lie beside the page, but for a table whose head says "file of `x/`".
    """
    folder = page.parent
    for line in without_fences(page).splitlines():
        if head := re.match(r"\| file of `([\w/]+)/`", line):
            folder = page.parent / head[1]
        elif not line.startswith("|"):
            folder = page.parent
        for code in CODE.findall(line):
            if re.fullmatch(r"`[\w/*]+\.py`", code):
                yield folder, code.strip("`")


def test_the_readme_fits_on_a_page():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= README_LINES


@pytest.mark.parametrize("page", PRESENT, ids=name_of)
def test_every_relative_link_leads_somewhere(page):
    assert dead_links(page) == []


@pytest.mark.parametrize("page", PRESENT, ids=name_of)
def test_every_file_that_a_page_names_exists(page):
    assert missing_files(page) == []


@pytest.mark.parametrize("page", ROOM_PAGES, ids=name_of)
def test_every_file_that_a_room_lists_exists(page):
    listed = list(local_files(page))
    assert len(listed) > 5
    places = [(folder / name, ROOT / name) for folder, name in listed]
    assert [path for path, also in places if not path.exists() and not also.exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_decimal_has_its_leading_zero(page):
    lines = prose(page).splitlines()
    bare = [f"{n}: {line}" for n, line in enumerate(lines, 1) if BARE_DECIMAL.search(line)]
    assert bare == []


def test_every_decision_has_a_date_a_status_and_a_row_in_the_index():
    folder = ROOT / "docs/decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    for page in sorted(folder.glob("[0-9]*.md")):
        text = page.read_text(encoding="utf-8")
        date = re.search(r"^Date: (\d{4}-\d\d-\d\d)$", text, re.MULTILINE)
        status = re.search(r"^Status: (.+)$", text, re.MULTILINE)
        assert date, page.name
        assert status, page.name
        row = next(line for line in index.splitlines() if f"({page.name})" in line)
        assert date[1] in row
        assert status[1] in row


@pytest.mark.heavy
def test_every_command_that_trains_composes():
    kinds = [
        compose_run_of_any_kind([word for word in words if word != "--cfg"]).kind
        for words in commands("train")
    ]
    assert len(kinds) >= 4
    assert set(kinds) == set(RunKind)


@pytest.mark.heavy
def test_every_command_that_plans_or_runs_a_study_composes():
    found = [*commands("run"), *commands("plan-study")]
    assert len(found) >= 2
    for words in found:
        compose_any([word for word in words if not word.startswith("machine=")])
