"""What a key is, by its name and by itself, and that a masked text has none."""

from pathlib import Path

import pytest

from data.secrets import (
    is_secret_name,
    masked,
    masked_in,
    refuse_secrets,
    secrets_of,
    texts_in,
)
from data.shell import command

VALUE = "planted-0123456789abcdef"
# A text with a key, and the same text as it may be shown.
MASKED = {
    "s3://me:planted@bucket/set": "s3://***@bucket/set",
    "https://planted@host/a.git": "https://***@host/a.git",
    "simplecache::https://me:plan@ted@host/a": "simplecache::https://***@host/a",
    "https://host/a?token=planted&page=2": "https://host/a?token=***&page=2",
    "https://host/a?page=2&apiKey=planted#x": "https://host/a?page=2&apiKey=***#x",
    "https://b/k?X-Amz-Credential=planted&X-Amz-Date=1&X-Amz-Signature=planted": (
        "https://b/k?X-Amz-Credential=***&X-Amz-Date=1&X-Amz-Signature=***"
    ),
    "https://b/k?se=2026&sig=planted": "https://b/k?se=2026&sig=***",
    "tell https://hooks.slack.com/services/T0/B0/planted.": "tell https://hooks.slack.com/***",
    "https://discord.com/api/webhooks/12/planted": "https://discord.com/api/webhooks/***",
    "HF_TOKEN=planted0 python": "HF_TOKEN=*** python",
    "note: hf_planted" + 30 * "x": "note: ***",
    "key: AKIAPLANTED123456789": "key: ***",
}
HARMLESS = [
    "https://host:8443/v1?page=2&max_tokens=100",
    "abfs://container@account.dfs.core.windows.net/set",
    "s3://bucket/clips@2x/a",
    "TOKENIZERS_PARALLELISM=false-enough",
    "MAX_TOKENS=131072000",
    "WANDB_API_KEY=$WANDB_API_KEY_OF_LAB",
    "skeleton-key_of-a-very-long-run-name-with-many-words",
]


@pytest.mark.parametrize("name", [
    "HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "DB_PASS", "OPENAIKEY",
    "GOOGLE_CREDENTIALS", "SLACK_WEBHOOK_URL", "hf_token",
])  # fmt: skip
def test_a_name_with_such_a_word_is_a_keys(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["TOKENIZERS_PARALLELISM", "KEYBOARD", "MAX_TOKENS", "PASSENGERS", "COMPASS", "PATH"]
)
def test_a_name_that_only_resembles_one_is_not(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize("text", MASKED, ids=MASKED.values())
def test_what_shows_itself_as_a_key_is_masked_once_and_refused(text: str) -> None:
    assert masked(text, {}) == MASKED[text]
    assert masked(MASKED[text], {}) == MASKED[text]
    with pytest.raises(ValueError, match=r"data\.root: holds a key .*environment") as error:
        refuse_secrets({"data.root": text}, {})
    assert "planted" not in str(error.value).lower()


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_resembles_a_key_stays(text: str) -> None:
    assert masked(text, {}) == text
    refuse_secrets({"data.root": text}, {"TOKENIZERS_PARALLELISM": "false-enough"})


def test_the_value_of_a_variable_is_masked_by_its_name(tmp_path: Path) -> None:
    environ = {"A_KEY": VALUE, "LONG_KEY": VALUE + "-and-more", "KEY_FILE": str(tmp_path)}
    assert masked(f"a {VALUE}-and-more {VALUE}", environ) == "a <LONG_KEY> <A_KEY>"
    assert secrets_of(environ) == {name: environ[name] for name in ("A_KEY", "LONG_KEY")}
    assert masked_in({"x": [VALUE, 1], "y": None}, environ) == {"x": ["<A_KEY>", 1], "y": None}


def test_a_variable_that_is_too_long_for_a_path_is_a_key_too() -> None:
    assert secrets_of({"SSH_KEY": 5000 * "x"})


def test_the_value_of_a_variable_is_refused_by_its_name() -> None:
    config = {"log": {"tags": ["a", VALUE]}, "seed": 0}
    assert texts_in(config) == {"log.tags[0]": "a", "log.tags[1]": VALUE}
    with pytest.raises(ValueError, match=r"log\.tags\[1\]: holds the value of \$HF_TOKEN") as error:
        refuse_secrets(texts_in(config), {"HF_TOKEN": VALUE})
    assert VALUE not in str(error.value)


def test_an_error_that_repeats_a_key_is_printed_masked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", VALUE)

    @command("doc")
    def main(words: list[str]) -> int:
        raise ValueError(f"root=https://me:planted@host/, {words[0]}: must be a folder.")

    assert main([VALUE]) == 2
    assert capsys.readouterr().err == (
        "error: root=https://***@host/, <HF_TOKEN>: must be a folder.\n"
    )
