"""A webhook and a mail server of their own making on 127.0.0.1."""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Webhook(ThreadingHTTPServer):
    """Keeps what is posted. mode: ok, 500, or drip (a byte of an answer now and then, for ever)."""

    daemon_threads = True

    def __init__(self, mode: str) -> None:
        super().__init__(("127.0.0.1", 0), _Hook)
        self.mode, self.over = mode, threading.Event()
        self.posted: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook/secret-part"


class _Hook(BaseHTTPRequestHandler):
    server: Webhook

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        while self.server.mode == "drip" and not self.server.over.wait(0.1):
            self.wfile.write(b"H")
        self.server.posted.append(json.loads(body))
        self.send_response(500 if self.server.mode == "500" else 200)
        self.end_headers()


class MailServer(socketserver.ThreadingTCPServer):
    """Takes mails as RFC 5321 has it, without TLS; ``login`` is what a client logged in with."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.mails: list[str] = []
        self.login = ""

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Session(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self._say("220 here")
        while line := self.rfile.readline().decode().strip():
            word = line.split()[0].upper()
            if word == "EHLO":
                self._say("250-here\r\n250 AUTH PLAIN")
            elif word == "AUTH":
                self.server.login = line.split()[-1]
                self._say("235 welcome")
            elif word == "DATA":
                self._say("354 go on")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.mails.append(b"".join(lines).decode())
                self._say("250 taken")
            elif word == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 ok")

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@contextmanager
def hook(mode: str = "ok") -> Iterator[Webhook]:
    """Run a webhook until the block ends."""
    server = Webhook(mode)
    with _running(server):
        try:
            yield server
        finally:
            server.over.set()


@contextmanager
def mail_server() -> Iterator[MailServer]:
    """Run a mail server until the block ends."""
    server = MailServer()
    with _running(server):
        yield server


@contextmanager
def _running(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
