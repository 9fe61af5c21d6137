"""Sizes of clips in tokens."""

from data.config import IngestConfig

Cell = tuple[int, int, int]


def grid(num_frames: int, height: int, width: int, cell: Cell) -> tuple[int, int, int]:
    """Return the token grid (f, h, w) of a clip; the first frame stands alone in time."""
    return 1 + -(-(num_frames - 1) // cell[0]), -(-height // cell[1]), -(-width // cell[2])


def tokens(num_frames: int, height: int, width: int, cell: Cell) -> int:
    """Count video tokens: (1 + ceil((F - 1) / cell_f)) * ceil(H / cell_h) * ceil(W / cell_w)."""
    f, h, w = grid(num_frames, height, width, cell)
    return f * h * w


def cell_of(config: IngestConfig) -> Cell:
    """Return the token cell as the tuple that packing wants."""
    frames, height, width = config.cell
    return frames, height, width


def shape_name(height: int, width: int) -> str:
    """Say in a word how a frame is shaped: landscape, portrait or square."""
    ratio = width / height
    if ratio > 1.1:
        return "landscape"
    return "portrait" if ratio < 1 / 1.1 else "square"
