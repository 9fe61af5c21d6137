"""A playground that listens while a test asks it, and a browser that looks at its page."""

import json
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as Call
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route

from trainer.playground.desk import Desk, Rung
from trainer.playground.server import PAGE, build_app, listen

# The frame has loaded once the page in it has said what it found, so a browser that writes what it
# sees on load writes that.
FRAME = """<!doctype html><title></title><body style="margin: 0"><img src="/hold" alt="" hidden>
<iframe src="/" style="width: {width}px; height: {height}px; border: 0; display: block"></iframe>"""


class Served:
    """A playground's address, what its page was told to do, and what that found."""

    def __init__(self, desk: Desk, script: str = "") -> None:
        self.desk = desk
        self.found: dict[str, Any] | None = None
        self._said = threading.Event()
        page = PAGE.read_text(encoding="utf-8").replace("</head>", f"{script}</head>", 1)
        routes = [
            Route("/frame", self._frame),
            Route("/hold", self._hold),
            Route("/probe", self._probe, methods=["POST"]),
            Mount("/", build_app(desk, page, ["127.0.0.1"])),
        ]
        self.app = Starlette(routes=routes)
        self.address = ""

    async def _frame(self, call: Call) -> Response:
        width, height = (int(call.query_params[key]) for key in ("width", "height"))
        return HTMLResponse(FRAME.format(width=width, height=height))

    def _hold(self, call: Call) -> Response:
        self._said.wait(240)
        return Response(status_code=204)

    async def _probe(self, call: Call) -> Response:
        self.found = json.loads(await call.body())
        self._said.set()
        return Response(status_code=204)

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Ask the server; return its status and what it says. bytes are sent as they are."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        call = urllib.request.Request(f"{self.address}/{path}", data, headers)
        try:
            with urllib.request.urlopen(call, timeout=120) as answer:
                status, content = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                status, content = error.code, error.read()
        try:
            return status, json.loads(content)
        except ValueError:
            return status, content

    def draw(self, request: dict[str, Any], rungs: list[str]) -> dict[str, Any]:
        """Draw a request to its end; return the ticket."""
        status, said = self.ask("draw", {"request": request, "rungs": rungs})
        assert status == 200, said
        return self.end_of(said["id"])

    def end_of(self, name: str) -> dict[str, Any]:
        """Return a ticket once it is over."""
        ticket = self.ask(f"tickets/{name}")[1]
        while not ticket["over"]:
            ticket = self.ask(f"tickets/{name}?seen={ticket['version']}")[1]
        return ticket

    def browse(self, folder: Path, width: int, height: int = 900, *more: str) -> dict[str, Any]:
        """Open the page at a width in headless Chromium; return what its script found."""
        browser = shutil.which("chromium") or shutil.which("chromium-browser")
        if browser is None:
            pytest.skip("headless Chromium is not installed (make setup-system)")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                 "--single-process", "--no-zygote", "--disable-extensions", "--disable-sync",
                 "--disable-background-networking", "--disable-component-update",
                 "--hide-scrollbars", "--enable-logging=stderr",
                 f"--window-size={max(width, 500)},{height}",
                 f"--user-data-dir={folder / 'profile'}"]  # fmt: skip
        where = f"{self.address}/frame?width={width}&height={height}"
        result = subprocess.run(
            [browser, *flags, *(more or ["--dump-dom"]), where],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert self.found is not None, result.stderr[-2000:]
        assert "CONSOLE" not in result.stderr, result.stderr[-2000:]
        return self.found


@contextmanager
def serving(rungs: list[Rung], out: Path, script: str = "") -> Iterator[Served]:
    """Serve a playground while the context lasts."""
    desk, listener = Desk(rungs, out), listen("127.0.0.1", 0)
    served = Served(desk, script)
    served.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(served.app, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield served
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        desk.close()
