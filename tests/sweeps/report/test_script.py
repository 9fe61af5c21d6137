"""What the page's script computes: CSV cells, names of files, the order of rows, SVG colours.

Runs the real page.js in node, over the few properties of a document that these functions touch.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

import sweeps.report.pages

SCRIPT = Path(sweeps.report.pages.__file__).parent / "page.js"
PREPARE = """
const assert = require("assert"), vm = require("vm");
const noted = { querySelectorAll: () => [], getElementById: () => null, addEventListener() {} };
noted.createElementNS = () => ({ setAttribute() {} });
const page = vm.createContext({
  document: noted, matchMedia: () => ({ matches: false }), addEventListener() {},
  COLORS: { "--ink": "#111" },
});
vm.runInContext(require("fs").readFileSync(process.argv[1], "utf8"), page);
const cell = (text, value) =>
  ({ textContent: text, dataset: value === undefined ? {} : { value: String(value) } });
"""
CSV = """
const csv = (...a) => page.csvCell(cell(...a));
assert.equal(csv('=cmd|"x"!A1'), `"'=cmd|""x""!A1"`);
for (const text of ["@a", "+a", "-a", "=1+1"]) assert.equal(csv(text), "'" + text);
for (const text of ["-1.5", "+2e3", "a=b", ""]) assert.equal(csv(text), text);
assert.equal(csv("3\u00d710\u00b9\u00b9", 3e11), "300000000000");
assert.equal(csv("\u2013"), "");
assert.equal(csv("[1, 2]"), '"[1, 2]"');
const lines = [[cell("a"), cell("b, c")], [cell("x", 1), cell("y")]];
const table = { rows: lines.map((cells) => ({ cells })) };
assert.equal(page.csvOf(table), 'a,"b, c"\\n1,y\\n');
assert.equal(page.slug("The frontier, with 90 % intervals"), "the-frontier-with-90-intervals");
assert.equal(page.slug("\u00d7"), "table");
"""
SORT = """
const head = {
  state: {}, getAttribute(k) { return this.state[k] ?? null; },
  setAttribute(k, v) { this.state[k] = v; }, removeAttribute(k) { delete this.state[k]; },
};
const rows = [cell("", 3), cell("none"), cell("", -1), cell("", 2)].map((c) => ({ cells: [c] }));
const body = { rows, append(...sorted) { this.rows = sorted; } };
const table = { tHead: { rows: [{ cells: [head] }] }, tBodies: [body] };
const order = () => body.rows.map((row) => row.cells[0].dataset.value ?? "-").join(" ");
page.sortBy(table, 0);
assert.deepEqual([order(), head.state["aria-sort"]], ["-1 2 3 -", "ascending"]);
page.sortBy(table, 0);
assert.deepEqual([order(), head.state["aria-sort"]], ["3 2 -1 -", "descending"]);
"""
SVG = """
const copy = { setAttribute() {}, prepend() {} };
copy.outerHTML = '<svg a="var(--ink)" b="var(--other)">';
const svg = { viewBox: { baseVal: { width: 8, height: 4 } }, cloneNode: () => copy };
assert.equal(page.svgOf(svg), '<svg a="#111" b="var(--other)">');
"""


@pytest.mark.parametrize("check", [CSV, SORT, SVG], ids=["csv", "sort", "svg"])
def test_the_script_computes_what_is_saved_and_shown(check: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    command = [node, "-e", PREPARE + check, str(SCRIPT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
