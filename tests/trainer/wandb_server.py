"""A W&B server of its own making on 127.0.0.1, as far as runs with histories need one."""

import gzip
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0" * 40


class Server(ThreadingHTTPServer):
    """Holds the history of every run; ``mode`` says how it behaves, and may change at any time.

    mode: ok, 500, 401, hang, or slow (two seconds an answer). fail_after: requests until mode 500.
    """

    daemon_threads = True

    def __init__(self, mode: str = "ok", fail_after: int | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.mode, self.fail_after, self.count = mode, fail_after, 0
        self.history: dict[str, list[str]] = {}
        self.alerts: list[dict[str, Any]] = []
        self.lock, self.over = threading.Lock(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of every run."""
        return {run: [json.loads(line) for line in lines] for run, lines in self.history.items()}


@contextmanager
def serving(mode: str = "ok", fail_after: int | None = None):
    """Run a server until the block ends."""
    server = Server(mode, fail_after)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    """Answers what wandb asks of runs, in the server's present mode."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_PUT(self) -> None:
        self._body()
        self._answer(200, {})

    def do_GET(self) -> None:
        self._answer(200, {})

    def do_POST(self) -> None:
        body = self._body()
        server = self.server
        with server.lock:
            server.count += 1
            if server.fail_after is not None and server.count > server.fail_after:
                server.mode = "500"
        if server.mode == "hang":
            server.over.wait(600)
        if server.mode == "slow":
            time.sleep(2)
        if server.mode == "500":
            self._answer(500, {"error": "boom"})
        elif server.mode == "401":
            self._answer(401, {"errors": [{"message": "user is not logged in"}]})
        elif "otel" in self.path:  # wandb's own statistics
            self._answer(404, {})
        elif "file_stream" in self.path:
            self._take(json.loads(body))
        else:
            asked = json.loads(body or b"{}")
            self._answer(
                200, {"data": self._data(asked.get("query", ""), asked.get("variables") or {})}
            )

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _answer(self, code: int, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _take(self, sent: dict[str, Any]) -> None:
        history = (sent.get("files") or {}).get("wandb-history.jsonl")
        if history:
            with self.server.lock:
                lines = self.server.history.setdefault(self.path.split("/")[-2], [])
                lines[history["offset"] :] = history["content"]
        self._answer(200, {"exitcode": None, "limits": {}})

    def _data(self, query: str, asked: dict[str, Any]) -> dict[str, Any]:
        user = {"id": "1", "entity": "lab", "username": "me", "name": "me", "flags": "{}"}
        user |= {"teams": {"edges": []}, "email": "", "admin": False}
        user |= {"defaultEntity": {"name": "lab"}}
        project = {"id": "1", "name": "tests", "entity": {"id": "1", "name": "lab"}}
        known = self.server.history
        if "upsertBucket" in query:
            name = asked.get("name") or "run"
            new = name not in known
            known.setdefault(name, [])
            bucket = {"id": "1", "name": name, "displayName": name, "description": ""}
            bucket |= {"config": asked.get("config"), "sweepName": None, "project": project}
            bucket |= {"historyLineCount": 0, "summaryMetrics": None}
            return {"upsertBucket": {"bucket": bucket, "inserted": new}}
        if "createRunFiles" in query:
            files = [
                {"name": f, "uploadUrl": f"{self.server.url}/up"} for f in asked.get("files", [])
            ]
            return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}
        if "notifyScriptableRunAlert" in query:
            self.server.alerts.append(asked)
            return {"notifyScriptableRunAlert": {"success": True}}
        if "serverInfo" in query:
            info = {"cliVersionInfo": {"max_cli_version": "9.9.9"}, "features": []}
            return {"serverInfo": info | {"latestLocalVersionInfo": None}, "viewer": user}
        if "viewer" in query:
            return {"viewer": user}
        if "RunResumeStatus" in query and asked.get("name") in known:
            return {"model": project | {"bucket": self._resumable(asked["name"])}}
        return {"model": {"bucket": None}, "project": {"run": None}}

    def _resumable(self, name: str) -> dict[str, Any]:
        lines = self.server.history[name]
        found = {"id": "1", "name": name, "displayName": name, "summaryMetrics": "{}"}
        found |= {"logLineCount": 0, "historyLineCount": len(lines), "eventsLineCount": 0}
        found |= {"historyTail": json.dumps(lines[-1:]), "eventsTail": "[]", "config": "{}"}
        return found | {"tags": [], "wandbConfig": json.dumps({"t": 1}), "sweepName": None}
