"""``codec.json`` of a perceptual encoder; torch-free."""

import json
from pathlib import Path
from typing import Any

from trainer.codec.files import CARD, write_card

KIND = "perceptual"


def read_perceptual_card(folder: Path) -> dict[str, Any]:
    """Return an encoder's card. Raises ValueError where it is missing or another network's."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"loss.perceptual_path={folder}: holds no perceptual encoder ({error}). Train one: "
            "kinescale train experiment=perceptual_tiny. Or use loss.perceptual=0."
        ) from error
    if card.get("kind") != KIND or not {"network", "digest"} <= set(card):
        raise ValueError(
            f"loss.perceptual_path={folder}: holds another network. Use weights/perceptual."
        )
    return card


def write_perceptual_card(folder: Path, card: dict[str, Any]) -> None:
    """Write an encoder's card."""
    write_card(folder, {"kind": KIND} | card)
