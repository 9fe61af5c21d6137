"""Somebody is told that a run diverged, stalled or failed, and no run waits for it."""

import base64
import json
import subprocess
import sys
import time
from email import message_from_string
from pathlib import Path

import pytest

from trainer.log_config import AlertConfig, LogConfig
from trainer.mirror.alerts import check_alerts, deliver, variables_of
from trainer.mirror.child import Followers, tasks_of
from trainer.mirror.ending import Alert, ending_of
from trainer.run.attempt import mark_stopped

from .receivers import hook, mail_server
from .runs import make_run, wait_until, write

ALERT = Alert("stalled", "run-1", "rank 3 on n7 hangs, HF_TOKEN=planted-key-1")
HOOK = "KINESCALE_WEBHOOK"


@pytest.mark.heavy
def test_a_webhook_and_a_mail_say_what_happened_without_keys() -> None:
    with hook() as web, mail_server() as mail:
        config = AlertConfig(HOOK, "me@lab.org", mail.place)
        environment = {HOOK: web.url, "KINESCALE_SMTP_PASSWORD": "password-1"}
        assert deliver(ALERT, config, environment) == []
        (posted,) = web.posted
        (sent,) = mail.mails
        assert base64.b64decode(mail.login) == b"\0me@lab.org\0password-1"
    assert posted["text"] == posted["content"]
    assert posted["text"] == "run-1: stalled\nrank 3 on n7 hangs, HF_TOKEN=***"
    assert (posted["what"], posted["of"]) == ("stalled", "run-1")
    message = message_from_string(sent)
    assert (message["To"], message["Subject"]) == ("me@lab.org", "run-1: stalled")
    assert message.get_payload().strip() == "rank 3 on n7 hangs, HF_TOKEN=***"


def test_who_cannot_be_told_is_a_line_and_the_other_is_told() -> None:
    with mail_server() as mail, hook("500") as web:
        config = AlertConfig(HOOK, "me@lab.org", mail.place)
        for environment, why in (
            ({HOOK: web.url}, "HTTPError: HTTP Error 500"),
            ({HOOK: "http://127.0.0.1:9/secret-part"}, "URLError"),
            ({HOOK: "file:///etc/passwd"}, "is not set, or holds no http"),
            ({HOOK: "http://[secret-part"}, "ValueError"),
            ({}, "is not set"),
        ):
            (line,) = deliver(ALERT, config, environment)
            assert line.startswith('alerts: "run-1: stalled" did not reach the webhook: ')
            assert why in line
            assert "secret-part" not in line
        assert len(mail.mails) == 5
        (line,) = deliver(ALERT, AlertConfig(mail="me@lab.org", smtp="127.0.0.1:9"), {})
        assert "did not reach the mail: ConnectionRefusedError" in line


def test_before_a_run_it_is_told_what_its_alerts_lack_and_none_is_sent() -> None:
    with mail_server() as mail:
        config = AlertConfig(HOOK, "me@lab.org", mail.place)
        good = list(check_alerts(config, {HOOK: "https://chat.lab.org/secret-part"}))
        assert [(check.name, check.verdict.value) for check in good] == [
            (f"log.alerts.webhook={HOOK}", "good"), (f"log.alerts.smtp={mail.place}", "good"),
        ]  # fmt: skip
        assert "secret-part" not in "".join(check.line() for check in good)
        for environment in ({}, {HOOK: "file:///secret-part"}):
            unset = next(check_alerts(config, environment))
            assert unset.verdict.value == "warning"
            assert unset.line().endswith(
                f"Use export {HOOK}=ADDRESS in the shell that starts the run."
            )
            assert "secret-part" not in unset.line()
        user = {HOOK: "https://x", "KINESCALE_SMTP_USER": "me"}
        assert "the password is not" in list(check_alerts(config, user))[-1].found
        assert (
            len(list(check_alerts(config, user | {"KINESCALE_SMTP_PASSWORD": "password-1"}))) == 2
        )
        assert mail.mails == []
    (closed,) = check_alerts(AlertConfig(mail="me@lab.org", smtp="127.0.0.1:9"), {})
    assert closed.verdict.value == "warning"
    assert "no mail is sent from here: " in closed.found
    assert list(check_alerts(AlertConfig(), {})) == []


def test_a_job_needs_the_variables_that_its_alerts_read() -> None:
    environment = {"KINESCALE_SMTP_PASSWORD": "password-1", "KINESCALE_SMTP_USER": ""}
    assert variables_of(AlertConfig(HOOK), environment) == [HOOK]
    assert variables_of(AlertConfig(mail="me@lab.org"), environment) == ["KINESCALE_SMTP_PASSWORD"]
    assert variables_of(AlertConfig(), environment) == []


@pytest.mark.heavy
def test_an_answer_that_never_ends_takes_no_longer_than_it_may() -> None:
    with hook("drip") as web:
        started = time.monotonic()
        (line,) = deliver(ALERT, AlertConfig(HOOK), {HOOK: web.url}, seconds=1.0)
        assert time.monotonic() - started < 3
    assert "no answer in 1 s" in line


def test_a_password_is_not_sent_in_the_clear_to_another_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with mail_server() as mail:
        monkeypatch.setattr("trainer.mirror.alerts._HERE", ())  # as if it were elsewhere
        config = AlertConfig(mail="me@lab.org", smtp=mail.place)
        (line,) = deliver(ALERT, config, {"KINESCALE_SMTP_PASSWORD": "password-1"})
        assert "offers no STARTTLS" in line
        assert (mail.login, mail.mails) == ("", [])


def test_only_an_end_that_somebody_should_know_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "attempts").mkdir(parents=True)
    (folder / "attempts/000002").touch()
    write(folder / "metrics.jsonl", 0, range(1, 8), 1.0)
    failed = ending_of(folder, 2)
    assert failed is not None
    assert (failed.title, failed.text.split(".")[0]) == (
        "run: failed", "attempt 2 ended without a result after step 7",
    )  # fmt: skip
    (folder / "stalled.json").write_text('{"summary": "rank 1 on n2 hangs"}')
    assert ending_of(folder, 2) == Alert("stalled", "run", "rank 1 on n2 hangs")
    assert ending_of(folder, 1) is None  # a newer attempt took over
    mark_stopped(folder, 1, 7)
    assert ending_of(folder, 2) is not None  # an earlier attempt's mark
    mark_stopped(folder, 2, 7)
    assert ending_of(folder, 2) is None
    (folder / "result.json").write_text('{"status": "diverged", "reason": "nan"}')
    assert ending_of(folder, 2) == Alert("diverged", "run", "nan")
    (folder / "result.json").write_text('{"status": "finished"}')
    assert ending_of(folder, 2) is None


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (AlertConfig(webhook="https://chat.lab.org/hook/planted"), "name of an environment"),
        (AlertConfig(webhook="ADDRESS"), "named like a key"),
        (AlertConfig(mail="a@b\nBcc: c@d"), "must be one address"),
        (AlertConfig(smtp="localhost"), "must be HOST:PORT"),
    ],
)
def test_whom_no_alert_would_reach_is_refused(config: AlertConfig, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        LogConfig(alerts=config).check()
    assert "planted" not in str(caught.value)


SCRIPT = """
import os, sys, time
from pathlib import Path
from trainer.log_config import AlertConfig, LogConfig, WandbMode
from trainer.mirror.child import Followers, tasks_of
config = LogConfig(wandb=WandbMode.disabled, alerts=AlertConfig("KINESCALE_WEBHOOK"))
followers = Followers(Path(sys.argv[1]), list(tasks_of(config)), 1)
print("started", flush=True)
time.sleep(600)
"""


@pytest.mark.heavy
def test_a_run_that_is_killed_is_told_of(
    latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alerts = f"log.alerts.webhook={HOOK}"
    folder = make_run(latents, tmp_path / "run", alerts)
    with hook() as web:
        monkeypatch.setenv(HOOK, web.url)
        words = [sys.executable, "-c", SCRIPT, str(folder)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "started\n"
                # The watchdog's report is told at once: who wrote it may be gone in a moment.
                (folder / "stalled.json").write_text(json.dumps({"summary": "rank 0 hangs"}))
                wait_until(lambda: web.posted)
                assert web.posted[0]["text"] == "run: stalled\nrank 0 hangs"
                (folder / "stalled.json").unlink()
            finally:
                process.kill()
        wait_until(lambda: len(web.posted) == 2)
    assert web.posted[1]["what"] == "failed"
    written = [p.read_text() for p in folder.rglob("*") if p.is_file()]
    assert not any("secret-part" in text for text in written)


@pytest.mark.heavy
def test_a_webhook_that_fails_is_a_line_of_the_run(
    latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_run(latents, tmp_path / "run", "log.wandb=disabled")
    config = LogConfig(alerts=AlertConfig(HOOK))
    (alerts,) = [task for task in tasks_of(config) if task.word == "alerts"]
    assert f"log.alerts.webhook={HOOK}: is not set here" in caplog.text
    with hook("drip") as web:
        monkeypatch.setenv(HOOK, web.url)
        frozen = folder / "config.yaml"
        frozen.write_text(frozen.read_text().replace("webhook: ''", f"webhook: {HOOK}"))
        started = time.monotonic()
        assert not Followers(folder, [alerts], 1).finish()
        assert time.monotonic() - started < 2 * alerts.seconds
    assert "alerts: the mirror" in caplog.text
    assert "alerts.log" in caplog.text
