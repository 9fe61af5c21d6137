"""A captioner on disk: ``model.safetensors`` (fp16) and ``captioner.json`` with all the rest."""

import dataclasses
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from data.bounds import check_bounds
from data.files import write_bytes, write_text
from models.captioner.model import Captioner
from models.captioner.vocabulary import Vocabulary
from models.config import CaptionerConfig

FORMAT = 1
TENSORS, ABOUT = "model.safetensors", "captioner.json"


@dataclass(frozen=True)
class TrainedCaptioner:
    """A captioner ready to write, with what is known of its making.

    about: JSON values: what it was trained on, by which command, its measured confidence.
    sha256: digest of the weights, the vocabulary and the shape: what its captions depend on.
    """

    model: Captioner
    vocabulary: Vocabulary
    about: dict[str, Any]
    sha256: str


def save_captioner(
    folder: Path, model: Captioner, vocabulary: Vocabulary, about: dict[str, Any]
) -> str:
    """Write a captioner into a folder; return its digest. Half precision costs no words."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().half() for name, value in model.state_dict().items()}
    payload = save(tensors)
    parts = {"captioner": asdict(model.config), "pieces": list(vocabulary.pieces)}
    digest = _digest(payload, parts)
    write_bytes(folder / TENSORS, payload)
    content = {"format": FORMAT, "sha256": digest, "about": about, **parts}
    text = json.dumps(content, indent=1, ensure_ascii=False)
    write_text(folder / ABOUT, text + "\n")
    return digest


def load_captioner(
    folder: Path, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> TrainedCaptioner:
    """Load a captioner onto a device (the CPU); check its digest. Raises ValueError, remedied."""
    remedy = "Give a folder that a captioner's training wrote, or train one again."
    try:
        content = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        payload = (folder / TENSORS).read_bytes()
    except FileNotFoundError as error:
        name = Path(error.filename).name
        raise ValueError(f"weights={folder}: has no {name}. {remedy}") from error
    except ValueError as error:
        raise ValueError(f"weights={folder}: {ABOUT} is no JSON. {remedy}") from error
    try:
        parts = {"captioner": content["captioner"], "pieces": content["pieces"]}
        if content["format"] != FORMAT or content["sha256"] != _digest(payload, parts):
            raise ValueError(f"weights={folder}: is damaged (checksum differs). {remedy}")
        known = {f.name for f in dataclasses.fields(CaptionerConfig)}
        if set(parts["captioner"]) != known:
            raise ValueError(f"weights={folder}: was made by another version. {remedy}")
        config = CaptionerConfig(**parts["captioner"])
        check_bounds(config, "captioner.")
        model = Captioner(config, _num_pieces(parts["pieces"]))
        model.load_state_dict({name: value.float() for name, value in load(payload).items()})
    except (KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"weights={folder}: does not fit together ({error}). {remedy}") from error
    model.eval().requires_grad_(False).to(device or torch.device("cpu"), dtype)
    vocabulary = Vocabulary(parts["pieces"])
    return TrainedCaptioner(model, vocabulary, content.get("about", {}), content["sha256"])


def _num_pieces(pieces: list[str]) -> int:
    return len(Vocabulary(pieces))


def _digest(payload: bytes, parts: dict[str, Any]) -> str:
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(payload + text.encode()).hexdigest()


def draw_captioner(config: CaptionerConfig, vocabulary: Vocabulary, seed: int) -> Captioner:
    """Build a captioner with weights drawn from a seed."""
    model = Captioner(config, len(vocabulary))
    model.reset_parameters(torch.Generator().manual_seed(seed))
    return model
