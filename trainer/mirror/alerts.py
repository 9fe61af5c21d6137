"""Tell a webhook and a mail address what somebody should know, in limited time.

The webhook's address is a key: a config holds the name of its environment variable alone, and no
message holds its value. A webhook gets ``text`` (Slack, Mattermost), the same as ``content``
(Discord), and ``what``, ``of``.
"""

import json
import os
import smtplib
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from email.message import EmailMessage
from pathlib import Path
from threading import Thread

from data.checks import Check, Verdict, judge
from data.reading import read_object
from data.secrets import masked
from trainer.log_config import AlertConfig
from trainer.mirror.ending import Alert, ending_of, stalled
from trainer.mirror.follow import Broken

SECONDS = 10.0  # that all of an alert may take
_ANSWER_SECONDS = 5.0
_REACH_SECONDS = 3.0
_HERE = ("localhost", "127.0.0.1", "::1")
USER, PASSWORD = "KINESCALE_SMTP_USER", "KINESCALE_SMTP_PASSWORD"


class AlertFollower:
    """Follow a run and tell of a stall at once, and of how the attempt ended.

    Broken says who could not be told.
    """

    def __init__(self, folder: Path, attempt: int) -> None:
        self._folder, self._attempt, self._config = folder, attempt, alerts_in(folder)
        self._told = ""

    def catch_up(self) -> int:
        """Tell of a stall: who reports one ends the run, and its node may go with it."""
        return self._tell(stalled(self._folder))

    def finish(self) -> None:
        """Tell how the attempt ended, if that is news."""
        self._tell(ending_of(self._folder, self._attempt))

    def _tell(self, alert: Alert | None) -> int:
        if alert is None or alert.what == self._told:
            return 0
        self._told = alert.what
        if problems := deliver(alert, self._config, os.environ):
            raise Broken("; ".join(problems))
        return 1


def alerts_in(folder: Path) -> AlertConfig:
    """Return whom a frozen run alerts."""
    said = read_object(folder / "config.yaml").values.get("log") or {}
    found = said.get("alerts") or {}
    keys = (field.name for field in fields(AlertConfig))
    return AlertConfig(**{key: str(found[key]) for key in keys if found.get(key)})


def variables_of(config: AlertConfig, environ: Mapping[str, str]) -> list[str]:
    """Return the environment variables that alerts of a run read: a job needs them, too."""
    login = [name for name in (USER, PASSWORD) if config.mail and environ.get(name)]
    return [config.webhook] * bool(config.webhook) + login


def check_alerts(config: AlertConfig, environ: Mapping[str, str]) -> Iterator[Check]:
    """Look whether alerts would arrive, and send none; training does not depend on it.

    Of the mail server it is asked whether it answers, for at most 3 s.
    """
    if name := config.webhook:
        yield judge(
            f"log.alerts.webhook={name}", _is_address(environ.get(name, "")),
            "holds an address" if _is_address(environ.get(name, "")) else
            "is not set in this shell, or holds no http(s) address: no alert is posted",
            f"Use export {name}=ADDRESS in the shell that starts the run.", Verdict.warning,
        )  # fmt: skip
    if config.mail:
        why = _unreachable(config.smtp)
        yield judge(
            f"log.alerts.smtp={config.smtp}", not why,
            f"no mail is sent from here: {why}" if why else "answers",
            "Name a mail server that takes mails from where the run is.", Verdict.warning,
        )  # fmt: skip
        if environ.get(USER) and not environ.get(PASSWORD):
            found = "is set and the password is not: mails are sent without logging in"
            yield Check(USER, Verdict.warning, found, f"Set {PASSWORD}.")


def _is_address(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _unreachable(place: str) -> str:
    """Return why no mail server can be spoken to at HOST:PORT, '' where one can."""
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_REACH_SECONDS):
            return ""
    except OSError as error:
        return " ".join(str(error).split())


def deliver(
    alert: Alert, config: AlertConfig, environ: Mapping[str, str], seconds: float = SECONDS
) -> list[str]:
    """Send an alert to all that are configured, at once; return a line for each that failed.

    Never raises and never takes longer than ``seconds``, whatever the other side does.
    """
    ways: dict[str, Callable[[], None]] = {}
    if config.webhook:
        ways["webhook"] = lambda: _post(alert, environ.get(config.webhook, ""), environ)
    if config.mail:
        ways["mail"] = lambda: _mail(alert, config, environ)
    failed = dict.fromkeys(ways, f"no answer in {seconds:g} s")
    threads = [
        Thread(target=_attempt, args=(name, way, failed), daemon=True) for name, way in ways.items()
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:  # a socket's own limit starts anew with each byte
        thread.join(max(deadline - time.monotonic(), 0.0))
    shown = masked(alert.title, environ)
    return [
        masked(f'alerts: "{shown}" did not reach the {name}: {why}', environ)
        for name, why in list(failed.items())
    ]


def _attempt(name: str, way: Callable[[], None], failed: dict[str, str]) -> None:
    try:
        way()
    except Exception as error:  # noqa: BLE001  a library's own errors, too, are one line
        failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    else:
        failed.pop(name)


def _post(alert: Alert, address: str, environ: Mapping[str, str]) -> None:
    if not _is_address(address):
        raise ValueError("its environment variable is not set, or holds no http(s) address")
    text = masked(f"{alert.title}\n{alert.text}", environ)
    said = {"text": text, "content": text, "what": alert.what, "of": alert.of}
    request = urllib.request.Request(
        address, json.dumps(said).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS):
        pass


def _mail(alert: Alert, config: AlertConfig, environ: Mapping[str, str]) -> None:
    message = EmailMessage()
    message["From"] = message["To"] = config.mail
    message["Subject"] = masked(" ".join(alert.title.split()), environ)
    message.set_content(masked(alert.text, environ) + "\n")
    host, _, port = config.smtp.rpartition(":")
    password = environ.get(PASSWORD, "")
    with smtplib.SMTP(host, int(port), timeout=_ANSWER_SECONDS) as server:
        server.ehlo()
        safe = host in _HERE
        if not safe and server.has_extn("starttls"):
            server.starttls(context=ssl.create_default_context())
            server.ehlo()
            safe = True
        if password:
            if not safe:
                raise ValueError("the server offers no STARTTLS; a password is not sent without")
            server.login(environ.get(USER) or config.mail, password)
        server.send_message(message)
