"""Tables of captions and scores find their samples by key, split and payload."""

import json

import pytest

from data.derive.join import join_table
from tests.data.conftest import info_of

SHAPE = (5, 32, 48)
DIGESTS = {"train": "a" * 64, "val": "b" * 64}


def infos():
    """Give three samples of two splits; one key is in both."""
    made = {"train": ["a", "b"], "val": ["a"]}
    old = {"scores": {"motion": 1.0}}
    return {
        split: [info_of(key, "video", SHAPE, **old, sha256=DIGESTS[split]) for key in keys]
        for split, keys in made.items()
    }


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_row_is_of_its_split_or_of_every_split_and_the_last_counts(tmp_path):
    path = write(
        tmp_path / "t.jsonl",
        {"key": "a", "caption": "first", "quality": 1},
        {"key": "a", "caption": "anywhere", "quality": 2, "tokens_in": 9},
        {"split": "val", "key": "a", "caption": "only in val", "short_caption": "val"},
    )
    joined, counts = join_table(infos(), path)
    train, other = joined["train"]
    assert (train.caption, train.scores) == ("anywhere", {"motion": 1.0, "quality": 2})
    assert (joined["val"][0].caption, joined["val"][0].short_caption) == ("only in val", "val")
    assert other == infos()["train"][1]
    assert counts == {"joined": 2, "without": 1, "of no sample": 0}


def test_the_journal_of_captions_is_a_table_and_stale_or_failed_lines_do_not_count(tmp_path):
    rows = [
        {
            "split": "train",
            "key": "a",
            "sha256": DIGESTS["train"],
            "caption": "new",
            "logprob": -0.5,
        },
        {"split": "train", "key": "b", "sha256": "other", "caption": "of another payload"},
        {"split": "val", "key": "a", "sha256": DIGESTS["val"], "error": "no answer"},
    ]
    write(tmp_path / "captions.jsonl", *rows[:1])
    write(tmp_path / "captions-0-of-2.jsonl", *rows[1:])
    joined, counts = join_table(infos(), tmp_path)
    train, other = joined["train"]
    assert (train.caption, train.scores["caption_logprob"]) == ("new", -0.5)
    assert other.caption == infos()["train"][1].caption
    assert joined["val"] == infos()["val"]
    assert counts == {"joined": 1, "without": 2, "stale": 1, "of no sample": 0}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.jsonl", '{"key": "zz", "caption": "x"}\n', "none of its 1 rows has the key of a"),
        ("t.jsonl", '{"name": "a"}\n', "a row has no key"),
        ("t.jsonl", "", "holds no rows"),
        ("t.txt", "a", "is no table"),
    ],
)
def test_what_is_no_table_of_these_samples_is_refused_in_words(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"captions=.*{message}"):
        join_table(infos(), tmp_path / name)
