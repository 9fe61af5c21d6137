"""Clips inside an answer: a PNG whose frames lie one below another, as text."""

from base64 import b64decode, b64encode
from io import BytesIO

import numpy as np
from PIL import Image

from data.decode.pictures import open_picture
from data.worlds.tiny.state import Frames


def packed(frames: Frames) -> str:
    """Return frames (F, H, W, 3) as the base64 text of a PNG of F * H rows."""
    file = BytesIO()
    Image.fromarray(frames.reshape(-1, *frames.shape[2:])).save(file, "PNG", optimize=True)
    return b64encode(file.getvalue()).decode("ascii")


def unpacked(text: str, num_frames: int) -> Frames:
    """Return the frames (F, H, W, 3) of a text.

    Raises ValueError for a text that is no picture of so many frames.
    """
    try:
        with open_picture(BytesIO(b64decode(text, validate=True))) as picture:
            rows = np.asarray(picture.convert("RGB"))
        return rows.reshape(num_frames, -1, *rows.shape[1:])
    except (OSError, ValueError) as error:
        raise ValueError(
            f"shown: holds no picture of {num_frames} frames ({error}). Draw the clips again."
        ) from None
