"""How quickly the page of a study opens: first paint and loaded page in headless Chromium.

usage: python -m benchmarks.page_speed [--study docs/studies/cpu_isoflop] [--runs 500] [--tries 5]

The study's rows are repeated under other names until there are so many runs, and its page is built
from them. A local server holds one picture back, so that the page is still open when the browser
tells what it measured (first contentful paint; the document parsed and its scripts run), each time
with a fresh profile. Printed: build time, bytes, and the median and the worst of the tries.
"""

import argparse
import csv
import json
import re
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sweeps.report.pages.isoflop import build_report

HELD_SECONDS = 3.0
PROBE = """<img src="/held" alt="" hidden><script>
setTimeout(() => {
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  const page = performance.getEntriesByType("navigation")[0];
  document.title = "PROBE" + JSON.stringify(
    {paint: paint ? paint.startTime : null, ready: page.domContentLoadedEventEnd});
}, 2000);
</script></body>"""
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--window-size=1300,900", "--dump-dom",
]  # fmt: skip


class Handler(SimpleHTTPRequestHandler):
    """Serve a folder; one address answers late."""

    def do_GET(self) -> None:
        """Answer a request."""
        if self.path == "/held":
            time.sleep(HELD_SECONDS)
            self.send_error(404)
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port."""
    handler = partial(Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def grown(study: Path, runs: int, root: Path) -> Path:
    """Copy a study with its rows repeated until there are so many."""
    copy = root / "study"
    shutil.copytree(study, copy, ignore=shutil.ignore_patterns("report"))
    with (copy / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    more = [{**rows[i % len(rows)], "name": f"{rows[i % len(rows)]['name']}-{i}"}
            for i in range(len(rows), runs)]  # fmt: skip
    with (copy / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([*rows, *more])
    return copy


def opened(url: str, browser: str) -> dict[str, float]:
    """Open a page once; return milliseconds since the request."""
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [browser, *FLAGS, f"--user-data-dir={profile}", url],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    found = re.search(r"<title>PROBE(.*?)</title>", done.stdout)
    if found is None:
        raise RuntimeError(f"the browser told nothing: {done.stderr[-500:]}")
    told = json.loads(found[1])
    return {key: float(value) for key, value in told.items() if value is not None}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--study", type=Path, default=Path("docs/studies/cpu_isoflop"))
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--tries", type=int, default=5)
    arguments = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        raise SystemExit("chromium: is not installed. Run: make setup-system")
    with tempfile.TemporaryDirectory() as folder:
        study = grown(arguments.study, arguments.runs, Path(folder))
        begun = time.perf_counter()
        page = build_report(study)
        built = time.perf_counter() - begun
        text = page.read_text(encoding="utf-8")
        probed = text.replace("</body>", PROBE).replace("img-src data:", "img-src data: 'self'")
        (page.parent / "probe.html").write_text(probed, encoding="utf-8")
        with served(page.parent) as address:
            found = [opened(f"{address}/probe.html", browser) for _ in range(arguments.tries)]
    print(f"{arguments.runs} runs: built in {built:.1f} s, {len(text.encode()) / 1e6:.2f} MB")
    for key, name in (("paint", "first contentful paint"), ("ready", "document ready")):
        values = [told[key] for told in found if key in told]
        if values:
            print(f"{name:<24}{statistics.median(values):6.0f} ms, at most {max(values):.0f} ms")


if __name__ == "__main__":
    main()
