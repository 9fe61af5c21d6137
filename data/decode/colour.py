"""Which matrix turns a film's pixels into RGB, where the film does not say."""

from typing import Any

# ITU-T H.273: matrix coefficients, and the transfers of HDR.
BT709, UNSAID, BT601, BT2020 = 1, 2, 6, 9
PQ, HLG = 16, 18
TRANSFERS = {PQ: "smpte2084", HLG: "arib-std-b67"}
# Players take films that say nothing for BT.709 from here on, and for BT.601 below (as mpv does).
HD_WIDTH, SD_HEIGHT = 1280, 576


def is_hd(height: int, width: int) -> bool:
    """Say whether a film of this size that names no matrix is taken for BT.709."""
    return width >= HD_WIDTH or height > SD_HEIGHT


def matrix_of(frame: Any) -> int:
    """Return the matrix of a decoded frame, chosen by its transfer and size where it says none."""
    if frame.colorspace != UNSAID or frame.format.is_rgb:
        return int(frame.colorspace)
    if frame.color_trc in TRANSFERS:
        return BT2020
    return BT709 if is_hd(frame.height, frame.width) else UNSAID  # which readers take for BT.601


def with_matrix(frame: Any) -> Any:
    """Return a decoded frame that names its matrix, where it is not the one that readers assume."""
    matrix = matrix_of(frame)
    if matrix != frame.colorspace:
        frame.colorspace = matrix
    return frame
