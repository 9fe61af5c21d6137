"""Look into a media file: what really decodes, at what size, when, and which way up.

Everything that a hostile or broken file can make PyAV or Pillow raise becomes :class:`Reject`.
"""

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ENOSPC
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, Literal

import av
import av.error
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from data.config import IngestConfig
from data.pack import tokens
from data.report import cell_of

# Only self-contained containers: playlist formats (hls, concat, dash) name other files to open.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,ogg,gif,flv,asf,"
    "m4v,h264,hevc,ivf,yuv4mpegpipe,apng"
)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
MAX_FPS = 240.0
# Frame intervals that differ by more than this share of the median make a rate "variable".
RATE_TOLERANCE = 0.5


class Reject(ValueError):
    """An input, or a part of one, that is left out: why, and what its owner can do."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}. {remedy}")
        self.reason, self.remedy = reason, remedy


@contextmanager
def rejecting(action: str) -> Iterator[None]:
    """Turn what broken media raise into :class:`Reject`; a full disk stays an OSError."""
    try:
        yield
    except Reject:
        raise
    except MemoryError as error:
        raise Reject(f"{action} needs too much memory", "Scale the file down first.") from error
    except Image.DecompressionBombError as error:
        raise Reject(f"too large: {error}", "Scale it below max_pixels.") from error
    except (
        av.error.FFmpegError,
        ValueError,
        ArithmeticError,
        LookupError,
        AttributeError,
        RuntimeError,
        TypeError,
        OSError,
        EOFError,
        SyntaxError,
        struct.error,
    ) as error:
        if isinstance(error, OSError) and error.errno == ENOSPC:
            raise
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        words = str(words).split("\n")[0][:120]
        raise Reject(
            f"{action} failed: {words}", "Damaged, truncated or no media: get it again."
        ) from error


class Window(io.RawIOBase):
    """A read-only view of a part of a file: a tar member, without unpacking it."""

    def __init__(self, path: Path, offset: int, nbytes: int) -> None:
        self.stream = open(path, "rb")  # noqa: SIM115 - closed by close()
        self.offset, self.nbytes, self.position = offset, nbytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        origin = (0, self.position, self.nbytes)[whence]
        self.position = max(0, origin + offset)
        return self.position

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self.nbytes - self.position))
        self.stream.seek(self.offset + self.position)
        data = self.stream.read(count)
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

    def close(self) -> None:
        self.stream.close()
        super().close()


@dataclass(frozen=True)
class Facts:
    """What a file really holds, after its pixel aspect ratio and rotation are applied.

    timeline: for each tick of a constant frame rate, the number of the decoded frame to show; it
        is 0, 1, 2, ... where the file's own rate is constant.
    stored_height, stored_width: the decoder's pixels, before pixel aspect and rotation.
    rotation: quarter turns counter-clockwise to apply, in degrees.
    header_frames: what the header claims (0: nothing).
    """

    media: Literal["video", "image"]
    height: int
    width: int
    stored_height: int
    stored_width: int
    rotation: int
    fps: float
    timeline: tuple[int, ...]
    header_frames: int
    codec: str

    @property
    def num_frames(self) -> int:
        """Frames at the constant rate."""
        return len(self.timeline)


def open_video(stream: IO[bytes]) -> Any:
    """Open self-contained media with PyAV."""
    return av.open(stream, options={"format_whitelist": CONTAINERS}, metadata_errors="replace")


def decoded(container: Any) -> Iterator[av.VideoFrame]:
    """Decode the first video stream on one thread, whole frames only."""
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    for frame in container.decode(stream):
        if frame.is_corrupt:
            raise Reject("holds damaged frames", "Get the file again.")
        yield frame


def check_size(height: int, width: int, config: IngestConfig) -> None:
    """Reject frames that are too small to be a picture or too large to be handled."""
    if min(height, width) < config.min_side:
        raise Reject(
            f"too small: {width}x{height} pixels", f"Sides need min_side={config.min_side} pixels."
        )
    if height * width > config.max_pixels:
        raise Reject(
            f"too large: {width}x{height} pixels", f"Scale it below max_pixels={config.max_pixels}."
        )


def probe_video(stream: IO[bytes], config: IngestConfig, turn: int = 0) -> Facts:
    """Decode a video once, keeping only times; ``turn`` adds quarter turns (degrees).

    Raises Reject if it does not open, does not decode to the end, or has an unusable size.
    """
    with rejecting("opening"), open_video(stream) as container:
        if not container.streams.video:
            raise Reject("holds no video", "Give a file with a video stream.")
        track = container.streams.video[0]
        check_size(track.codec_context.height, track.codec_context.width, config)
        aspect = track.sample_aspect_ratio or Fraction(1)
        if not Fraction(1, 4) <= aspect <= 4:
            raise Reject(f"has a pixel aspect ratio of {aspect}", "Set it right in the file.")
        rate, codec = track.average_rate or track.guessed_rate, track.codec_context.name
        header_frames = int(track.frames)
    stream.seek(0)
    times: list[float] = []
    with rejecting("decoding"), open_video(stream) as container:
        for index, frame in enumerate(decoded(container)):
            if index == 0:
                height, width = frame.height, frame.width
                rotation = (round(frame.rotation / 90) * 90 + turn) % 360
            elif (frame.height, frame.width) != (height, width):
                raise Reject("changes its frame size midway", "Split it where the size changes.")
            times.append(frame.time if frame.time is not None else float("nan"))
    if not times:
        raise Reject("no frame decodes", "Damaged or truncated: get it again.")
    check_size(height, width, config)
    fps, timeline = constant_rate(times, float(rate or 0))
    shown = (height, max(1, round(width * aspect)))
    if rotation % 180:
        shown = shown[::-1]
    return Facts(
        media="video",
        height=shown[0],
        width=shown[1],
        stored_height=height,
        stored_width=width,
        rotation=rotation,
        fps=fps,
        timeline=timeline,
        header_frames=header_frames,
        codec=codec,
    )


def constant_rate(times: list[float], rate: float) -> tuple[float, tuple[int, ...]]:
    """Return (frames per second, frame to show at each tick) of a constant-rate copy.

    ``times`` are seconds in display order (nan: unknown); ``rate`` is the file's average, 0 if
    unknown. Files of constant rate keep each frame once; others show the newest frame at each tick.
    """
    at = np.array(times)
    count = len(at)
    gaps = np.diff(at)
    if count < 3 or not np.isfinite(at).all() or (gaps <= 0).any():
        return (rate if 0 < rate <= MAX_FPS else 25.0), tuple(range(count))
    median = float(np.median(gaps))
    if np.abs(gaps - median).max() <= RATE_TOLERANCE * median:
        return min(MAX_FPS, float((count - 1) / (at[-1] - at[0]))), tuple(range(count))
    fps = min(MAX_FPS, 1 / median)
    ticks = np.arange(int((at[-1] - at[0]) * fps + 1e-6) + 1) / fps + at[0]
    shown = np.searchsorted(at, ticks + 1e-6, side="right") - 1
    return fps, tuple(shown.tolist())


def read_frames(
    stream: IO[bytes], facts: Facts, wanted: list[tuple[list[int], tuple[int, int]]]
) -> Iterator[UInt8[np.ndarray, "F H W 3"]]:
    """Decode once and yield one RGB array per wanted clip, in order.

    ``wanted`` lists (ascending frame numbers, (height, width) to scale to), clips in file order and
    not overlapping. Frames are scaled as they are decoded, so memory stays that of one clip.
    """
    with rejecting("decoding"), open_video(stream) as container:
        frames = enumerate(decoded(container))
        number = -1
        held: av.VideoFrame | None = None
        for numbers, (height, width) in wanted:
            flat = (width, height) if facts.rotation % 180 else (height, width)
            images: list[np.ndarray] = []
            last = -1
            for target in numbers:
                while number < target:
                    following = next(frames, None)
                    if following is None:
                        raise Reject("decodes differently each time", "Get the file again.")
                    number, held = following
                assert held is not None  # numbers start at 0, so a frame was read
                if target != last:
                    same = flat == (held.height, held.width)
                    way = None if same else "AREA" if flat[0] < held.height else "BICUBIC"
                    scaled = held.reformat(flat[1], flat[0], "rgb24", interpolation=way)
                    image = np.rot90(scaled.to_ndarray(), facts.rotation // 90)
                    last = target
                images.append(image)
            yield np.stack(images)


def read_image(stream: IO[bytes], config: IngestConfig) -> tuple[Image.Image, int, int]:
    """Read a still picture as RGB, upright; transparent parts become white.

    Returns (picture, height, width). Raises Reject if it is damaged or has an unusable size.
    """
    with rejecting("reading the picture"), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # check_size decides
        picture: Image.Image = Image.open(stream)
        check_size(picture.height, picture.width, config)
        picture.load()
        picture = ImageOps.exif_transpose(picture)
        if picture.mode in ("I", "F", "I;16"):
            raise Reject(f"has pixels of type {picture.mode}", "Convert it to 8 bits a channel.")
        if picture.mode in ("RGBA", "LA", "PA", "P"):
            ground = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(ground, picture.convert("RGBA"))
        picture = picture.convert("RGB")
    return picture, picture.height, picture.width


def fit_size(num_frames: int, height: int, width: int, config: IngestConfig) -> tuple[int, int]:
    """Return the (height, width) a clip is stored at: its own if within ``token_cap``.

    Otherwise the largest size of the same shape that fits, passing over sizes whose last row and
    column of tokens would be mostly padding. Video sides are even, as yuv420p needs.
    """
    step = 1 if num_frames == 1 else 2
    cell = cell_of(config)

    def near(value: float) -> int:
        return max(step, round(value / step) * step)

    own = near(height), near(width)
    if tokens(num_frames, *own, cell) <= config.token_cap:
        return own
    scales = {h / height for h in range(step, height, step)}
    scales |= {w / width for w in range(step, width, step)}
    best: tuple[int, int] | None = None
    for scale in sorted(scales, reverse=True):
        size = near(height * scale), near(width * scale)
        if tokens(num_frames, *size, cell) > config.token_cap:
            continue
        best = best or size
        if size[0] * size[1] < 0.8 * best[0] * best[1]:
            break
        covered = -(-size[0] // cell[1]) * cell[1] * -(-size[1] // cell[2]) * cell[2]
        if size[0] * size[1] >= (1 - config.max_edge_padding) * covered:
            return size
    if best is None or min(best) < min(config.min_side, height, width):
        raise Reject(
            f"{width}x{height} cannot fit token_cap={config.token_cap}", "Raise token_cap."
        )
    return best
