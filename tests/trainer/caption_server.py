"""A real HTTP server that speaks enough of the chat protocol, and misbehaves on demand."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behave = Callable[["Handler", int], None]
GOOD = {
    "dense": "A grey ramp brightens from left to right while it stands still.",
    "short": "a ramp",
}


@dataclass
class ChatServer:
    """What a test sees: the address, every request's JSON and headers, and what to do with each.

    script: what to do with the first requests, one each; ``otherwise`` with the rest.
    """

    url: str = ""
    script: list[Behave] = field(default_factory=list)
    otherwise: Behave = lambda handler, number: handler.say(GOOD)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    under_way: int = 0
    most_under_way: int = 0


class Handler(BaseHTTPRequestHandler):
    """One request."""

    chat: ChatServer

    def do_POST(self) -> None:
        """Note the request, then do what the script says."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        chat = self.chat
        with chat.lock:
            number = len(chat.requests)
            chat.requests.append(json.loads(body) | {"path": self.path})
            chat.headers.append({k.lower(): v for k, v in self.headers.items()})
            chat.under_way += 1
            chat.most_under_way = max(chat.most_under_way, chat.under_way)
        try:
            act = chat.script[number] if number < len(chat.script) else chat.otherwise
            act(self, number)
        finally:
            with chat.lock:
                chat.under_way -= 1

    def say(self, content: Any, tokens: tuple[int, int] = (100, 20)) -> None:
        """Answer with a chat completion; a dict is sent as JSON text."""
        text = content if isinstance(content, str) else json.dumps(content)
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
        self.send(200, json.dumps({"choices": [{"message": message}], "usage": usage}))

    def send(self, status: int, text: str, **headers: str) -> None:
        """Answer with a status and a body."""
        payload = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(payload)

    def drop(self) -> None:
        """Hang up without an answer."""
        self.close_connection = True
        self.connection.close()

    def trickle(self, seconds: float) -> None:
        """Answer so slowly that no single read ever times out."""
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.05)
        except OSError:
            pass  # the client has given up, as it should

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@contextmanager
def serve(**settings: Any) -> Iterator[ChatServer]:
    """Run a server on a free port of this machine for a while."""
    chat = ChatServer(**settings)
    handler = type("BoundHandler", (Handler,), {"chat": chat})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    chat.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield chat
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
