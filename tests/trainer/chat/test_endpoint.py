"""A client for endpoints that misbehave: patient, bounded, honest about cost, silent about keys."""

import base64
import gzip
import io
import json
import logging
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.dataset.shards import ShardWriter, read_index, read_manifest, write_manifest
from tests.data.conftest import encode, meta, paint, png
from tests.trainer.caption_server import GOOD, ChatServer, Handler, serve
from trainer.captioner.caption import main
from trainer.captioner.remote import parse_answer
from trainer.chat.endpoint import AskError, Endpoint, EndpointConfig
from trainer.chat.http import ANSWER_BYTES, Pace, retry_after

KEY = "sk-very-secret-0123456789"
VARIABLE = "TEST_CAPTION_KEY"
QUESTION = [{"role": "user", "content": "what is it?"}]


class Clock:
    """Time that passes only by sleeping, so that waits are exact and cost nothing."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, []
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds
            self.slept.append(seconds)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)


def open_endpoint(chat: ChatServer, clock: Clock | None = None, **more: object) -> Endpoint:
    settings = {"timeout_seconds": 5.0, "key_env": VARIABLE, "requests_per_minute": 6e6} | more
    config = EndpointConfig(endpoint=chat.url, model="eye-1", **settings)
    clock = clock or Clock()
    return Endpoint(config, Pace(config.requests_per_minute, clock, clock.sleep))


def refuse(status: int, **headers: str):
    body = json.dumps({"error": {"message": f"no, and your key is {KEY}"}})
    return lambda handler, number: handler.send(status, body, **headers)


def drop(handler: Handler, number: int) -> None:
    handler.drop()


def malformed(handler: Handler, number: int) -> None:
    handler.send(200, '{"choices": [{"mess')


def no_choice(handler: Handler, number: int) -> None:
    handler.send(200, '{"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": -3}}')


def chatter(handler: Handler, number: int) -> None:
    handler.say("Sure! Here is your caption: a ramp.", (30, 9))


def huge(handler: Handler, number: int) -> None:
    handler.say("x" * (ANSWER_BYTES + 1))


def bomb(handler: Handler, number: int) -> None:
    packed = gzip.compress(b" " * 10_000_000)
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.send_header("Content-Length", str(len(packed)))
    handler.end_headers()
    handler.wfile.write(packed)


def deep(handler: Handler, number: int) -> None:
    handler.send(200, "[" * 100_000)


BAD = {
    "500": refuse(500),
    "429": refuse(429),
    "drop": drop,
    "malformed": malformed,
    "no choice": no_choice,
    "chatter": chatter,
    "huge": huge,
    "bomb": bomb,
    "deep": deep,
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_question_survives_every_kind_of_bad_answer(bad) -> None:
    with serve(script=[bad, bad]) as chat:
        endpoint = open_endpoint(chat)
        answer = endpoint.ask(QUESTION, parse_answer, "clip")
        endpoint.close()
    assert answer.value == (GOOD["dense"], GOOD["short"])
    assert answer.attempts == len(chat.requests) == 3
    assert chat.requests[0]["path"] == "/v1/chat/completions"
    assert chat.headers[0]["authorization"] == f"Bearer {KEY}"


def test_tokens_of_failed_attempts_are_counted() -> None:
    with serve(script=[chatter, no_choice]) as chat:
        endpoint = open_endpoint(chat, price_in=10.0, price_out=100.0)
        answer = endpoint.ask(QUESTION, parse_answer, "clip")
        endpoint.close()
    assert (answer.tokens_in, answer.tokens_out) == (30 + 7 + 100, 9 + 0 + 20)
    assert endpoint.cost() == pytest.approx((137 * 10 + 29 * 100) / 1e6)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_attempts_end_with_the_reason_and_without_the_key(bad) -> None:
    with serve(otherwise=bad) as chat:
        endpoint = open_endpoint(chat, attempts=2)
        with pytest.raises(AskError) as caught:
            endpoint.ask(QUESTION, parse_answer, "clip")
        endpoint.close()
    assert caught.value.attempts == len(chat.requests) == 2
    assert len(caught.value.reason) > 5
    assert KEY not in str(caught.value)


def test_an_answer_that_trickles_is_given_up() -> None:
    with serve(script=[lambda handler, number: handler.trickle(20.0)]) as chat:
        endpoint = open_endpoint(chat, timeout_seconds=0.3)
        answer = endpoint.ask(QUESTION, parse_answer, "clip")
        endpoint.close()
    assert answer.attempts == 2


def test_retry_after_is_obeyed_by_all_and_waits_double_otherwise() -> None:
    clock = Clock()
    script = [refuse(429, Retry_After="17"), refuse(500), refuse(503), drop]
    with serve(script=script) as chat:
        endpoint = open_endpoint(chat, clock)
        endpoint.ask(QUESTION, parse_answer, "clip")
        endpoint.close()
    waits = [seconds for seconds in clock.slept if seconds > 1e-3]
    assert waits[0] == pytest.approx(17)
    assert [2 <= waits[1] * 2 <= 4, 4 <= waits[2] * 2 <= 8, 8 <= waits[3] * 2 <= 16] == [True] * 3
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after("99999999") == 600.0
    assert retry_after("-5") == 0.0
    assert [retry_after(text) for text in ("", "soon", "nan")] == [None] * 3


def test_requests_keep_the_pace() -> None:
    clock = Clock()
    pace = Pace(30.0, clock, clock.sleep)
    turns = []
    for _ in range(5):
        pace.wait()
        turns.append(clock.now)
    assert turns == pytest.approx([0, 2, 4, 6, 8])
    clock.now += 100
    pace.wait()
    assert clock.now == pytest.approx(108)  # an idle time is not made up for by a burst


@pytest.mark.parametrize("status", [401, 403, 404, 302])
def test_what_no_retry_can_mend_stops_the_run(status: int) -> None:
    redirect = {"Location": "http://127.0.0.1:9/steal"} if status == 302 else {}
    with serve(otherwise=refuse(status, **redirect)) as chat:
        endpoint = open_endpoint(chat)
        with pytest.raises(ValueError, match=r"endpoint=.*model=eye-1.*Correct") as caught:
            endpoint.ask(QUESTION, parse_answer, "clip")
        endpoint.close()
    assert len(chat.requests) == 1
    assert KEY not in str(caught.value)


def test_a_refused_question_costs_one_attempt() -> None:
    with serve(otherwise=refuse(400)) as chat:
        endpoint = open_endpoint(chat)
        with pytest.raises(AskError, match="HTTP 400"):
            endpoint.ask(QUESTION, parse_answer, "clip")
        endpoint.close()
    assert len(chat.requests) == 1


DENSE = "A red ball rolls over the green floor."


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no json", "Expecting value"),
        ('["a", "b"]', "no JSON object"),
        (json.dumps({"dense": DENSE}), "short is no text"),
        (json.dumps({"dense": DENSE, "short": 7}), "short is no text"),
        (json.dumps({"dense": "short", "short": "a ball"}), "dense has 5 characters"),
        (json.dumps({"dense": "x" * 2001, "short": "a ball"}), "dense has 2001 characters"),
        (json.dumps({"dense": DENSE, "short": "y" * 201}), "short has 201 characters"),
        (json.dumps({"dense": DENSE + "\x1b[2J", "short": "a ball"}), "control characters"),
        (json.dumps({"dense": DENSE, "short": "a \u202ellab"}), "control characters"),
        (json.dumps({"dense": DENSE, "short": "a b\x00ll"}), "control characters"),
        ("{" + " " * 8000 + "}", "8002 characters"),
    ],
)
def test_hostile_and_oversized_answers_are_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_answer(text)


def test_harmless_wrapping_is_taken_off() -> None:
    body = json.dumps({"dense": f"  {DENSE}\n\tIt  stops.", "short": "a ball\n", "extra": 1})
    for text in (body, f"```json\n{body}\n```", f"\n```\n{body}\n```\n"):
        assert parse_answer(text) == (f"{DENSE} It stops.", "a ball")


OLD = "an old caption of the ramp"


def write_clips(root: Path, num_frames: int) -> Path:
    """Write five clips (or images, which need no decoder process) and a still."""
    with ShardWriter(root, "train", 10**6) as writer:
        for i in range(5):
            shape, frames = (num_frames, 32, 48), paint(num_frames, 32, 48, seed=i)
            if num_frames > 1:
                writer.write(meta(f"clip-{i}", "video", shape, caption=OLD), encode(frames), "mp4")
            else:
                writer.write(meta(f"clip-{i}", "image", shape, caption=OLD), png(frames), "png")
    with ShardWriter(root, "val", 10**6) as writer:
        writer.write(meta("still", "image", (1, 40, 24)), png(paint(1, 40, 24)), "png")
    write_manifest(root, {"name": "painted"})
    return root


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of five clips and an image."""
    return write_clips(tmp_path_factory.mktemp("clips"), 9)


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of six images."""
    return write_clips(tmp_path_factory.mktemp("stills"), 1)


def arguments(clips: Path, out: Path, chat: ChatServer, *more: str) -> list[str]:
    fixed = [f"root={clips}", f"out={out}", f"endpoint={chat.url}", "model=eye-1"]
    paced = [f"key_env={VARIABLE}", "requests_per_minute=6e6", "price_in=1", "price_out=2"]
    return [*fixed, *paced, *more]


def by_picture(handler: Handler, number: int) -> None:
    """Answer with something that depends on the picture that was sent."""
    content = handler.chat.requests[number]["messages"][0]["content"]
    payload = base64.b64decode(content[1]["image_url"]["url"].split(",")[1])
    level = int(np.asarray(Image.open(io.BytesIO(payload))).mean())
    dense = f"A ramp whose first frame has the mean level {level}, seen by a still camera."
    handler.say({"dense": dense, "short": f"a ramp of {len(content) - 1} frames"})


@pytest.mark.heavy
def test_a_data_set_is_captioned_from_its_frames(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(otherwise=by_picture) as chat:
        assert main(arguments(clips, tmp_path, chat, "frames=4", "concurrency=3")) == 0
    shown = capsys.readouterr().out
    assert "6 written, 0 failed" in shown
    assert "tokens: 600 in, 120 out; cost 0.0008" in shown
    infos = read_index(tmp_path, "train")
    for i, info in enumerate(infos):
        level = paint(9, 32, 48, seed=i)[0].mean()
        told = int(info.caption.split("level ")[1].split(",")[0])
        assert abs(told - level) < 4  # H.264 and JPEG move the mean a little
        assert info.short_caption == OLD
        assert not info.scores
    assert read_index(tmp_path, "val")[0].short_caption == "a gradient, still"
    content = chat.requests[0]["messages"][0]["content"]
    assert len(content) == 1 + 4
    assert chat.requests[0]["response_format"] == {"type": "json_object"}
    assert chat.most_under_way <= 3
    about = read_manifest(tmp_path)["recaptioned"]
    assert about["model"] == "eye-1"
    assert about["tokens_in"] == 600


@pytest.mark.heavy
def test_a_stopped_run_asks_only_for_what_is_missing(
    stills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = [by_picture, by_picture, refuse(400), by_picture, refuse(400)]
    with serve(script=script, otherwise=by_picture) as chat:
        run = arguments(stills, tmp_path, chat, "concurrency=1")
        assert main(run) == 1
        shown = capsys.readouterr().out
        assert "4 written, 2 failed" in shown
        assert "HTTP 400" in shown
        assert not (tmp_path / "manifest.json").exists()
        assert len(chat.requests) == 6
        with (tmp_path / "captions.jsonl").open("a") as journal:
            journal.write('{"split": "train", "key": "cut sho')  # a crash in the middle of a line
        assert main(run) == 0
        assert len(chat.requests) == 8
        assert main(run) == 0
        assert len(chat.requests) == 8
    lines = (tmp_path / "captions.jsonl").read_text().splitlines()
    errors = [line for line in lines if '"error": "HTTP 400' in line]
    assert len(errors) == 2  # what failed once stays in the journal
    assert "tokens: 600 in" in capsys.readouterr().out


@pytest.mark.heavy
def test_another_prompt_or_model_is_another_question(stills: Path, tmp_path: Path) -> None:
    with serve(otherwise=by_picture) as chat:
        assert main(arguments(stills, tmp_path, chat)) == 0
        assert main([*arguments(stills, tmp_path, chat), "model=eye-2"]) == 0
        assert len(chat.requests) == 12
        assert main(arguments(stills, tmp_path, chat, "frames=2")) == 0
        assert len(chat.requests) == 18
    assert read_index(tmp_path, "train")[0].caption.startswith("A ramp whose")


def test_clips_that_fail_may_keep_their_captions(stills: Path, tmp_path: Path) -> None:
    with serve(script=[refuse(400)], otherwise=by_picture) as chat:
        run = arguments(stills, tmp_path, chat, "concurrency=1", "on_error=keep")
        assert main(run) == 0
    assert read_index(tmp_path, "train")[0].caption == OLD
    about = read_manifest(tmp_path)["recaptioned"]
    assert about["captions_left"] == 1
    ((split, key, reason),) = about["failed"]
    assert (split, key) == ("train", "clip-0")
    assert reason.startswith("HTTP 400")


@pytest.mark.heavy
def test_spending_stops_at_the_limit_also_over_several_sittings(
    stills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(otherwise=by_picture) as chat:
        run = arguments(stills, tmp_path, chat, "concurrency=1", "max_cost=0.0002")
        assert main(run) == 2  # each costs 0.00014, and one or two are under way when it is noticed
        assert "max_cost=0.0002: " in capsys.readouterr().err
        paid = len(chat.requests)
        assert 2 <= paid <= 5
        assert main(run) == 2
        assert len(chat.requests) == paid
        assert main([*run[:-1], "max_cost=1"]) == 0
    assert len(chat.requests) == 6


@pytest.mark.heavy
def test_the_key_reaches_no_file_no_output_and_no_log(
    stills: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    script = [refuse(500), refuse(400), drop, lambda h, n: h.say(f"your key is {KEY}")]
    with serve(script=script) as chat:
        run = arguments(stills, tmp_path / "a", chat, "attempts=1", "concurrency=1")
        run.append("on_error=keep")
        assert main(run) == 0
    with serve(otherwise=refuse(401)) as chat:
        assert main(arguments(stills, tmp_path / "b", chat)) == 2
    printed = capfd.readouterr()
    assert "[key]" in printed.err + printed.out
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 4
    haystack = [
        printed.out,
        printed.err,
        caplog.text,
        *(p.read_bytes().decode("latin-1") for p in files),
    ]
    assert not any(KEY in text for text in haystack)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["key_env=NOT_SET_ANYWHERE"], "key_env=NOT_SET_ANYWHERE: is not set"),
        (["model="], "model=: must name a model"),
        (["endpoint=ftp://x/v1"], "endpoint=ftp://x/v1: must be an http(s) address"),
        (["endpoint=http://me:pw@x/v1"], "without user, password"),
        (["weights=w"], "exactly one must be given"),
        (["max_cost=1", "price_in=0", "price_out=0"], "must come with prices"),
        (["frames=0"], "frames=0"),
        (["attempts=0"], "attempts=0: must be at least 1"),
        (["colour=red"], "colour"),
        (["out="], "out=(missing)"),
        (["root=nowhere"], "root=nowhere: holds no split"),
    ],
)
def test_bad_settings_are_named(
    stills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    with serve() as chat:
        assert main([*arguments(stills, tmp_path / "out", chat), *more]) == 2
        assert not chat.requests
    assert message in capsys.readouterr().err
