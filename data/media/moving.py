"""Pictures shown in turn as a film: animated WebP, PNG, GIF and AVIF, pages of a TIFF."""

from collections.abc import Iterator
from fractions import Fraction
from typing import IO, Any

import av
import numpy as np

from data.decode.pictures import is_transparent, open_picture, pictures_in_turn

MICROSECOND = Fraction(1, 1_000_000)


class MovingPicture:
    """The frames of an animated picture: over white, each at its own time.

    Used where a film's container is; iterating again reads the file again.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        image = self.open()
        self.format = str(image.format)
        self.is_transparent = is_transparent(image)

    def open(self) -> Any:
        """Return Pillow's image of the file, at its first picture."""
        self.stream.seek(0)
        return open_picture(self.stream)

    def __iter__(self) -> Iterator[tuple[av.VideoFrame, None]]:
        """Yield frames with their times, each without a packet."""
        for seconds, picture in pictures_in_turn(self.open()):
            frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
            frame.pts, frame.time_base = round(seconds / MICROSECOND), MICROSECOND
            yield frame, None

    def __enter__(self) -> "MovingPicture":
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the stream to who opened it."""
