"""Look into a media file: what really decodes, at what size, when, and which way up.

Everything that a hostile or broken file can make PyAV or Pillow raise becomes
:class:`data.media.reject.Reject`.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from math import inf, nan
from typing import IO, Any

import av
import numpy as np
from PIL import Image

from data.config import IngestConfig
from data.dataset.tokens import Cell, cell_of, tokens
from data.decode.decoders import CONTAINERS, is_mirrored
from data.decode.pictures import (
    PAGES_PER_SECOND,
    PICTURE_FAILURES,
    is_transparent,
    num_pictures,
    open_picture,
    shown_picture,
)
from data.media.h264 import is_plain
from data.media.moving import MovingPicture
from data.media.prepare import prepared
from data.media.reject import Reject, rejecting
from data.media.remux import stamp_of, stamps_conform
from data.media.sound import sound_of

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif", ".apng"),
    *(".avif", ".heic", ".heif", ".jp2", ".j2k", ".jpx"),
)
# Fastest film of even frames, and the rate to which uneven ones are brought at most: two stamps a
# microsecond apart would otherwise fill the memory with copies.
MAX_FPS, MAX_UNEVEN_FPS = 100_000.0, 1000.0
# Frame intervals that differ by more than this share of the median make a rate "variable".
RATE_TOLERANCE = 0.5
# Where nothing is shown for so long, and for ten frames' time, a shot ends: nobody means a still.
HOLE_SECONDS = 2.0


@dataclass(frozen=True)
class Facts:
    """What a file holds, after its pixel aspect ratio and rotation are applied.

    num_frames: frames at the constant rate, as its packets promise; decoding has the last word.
    stored_height, stored_width: the decoder's pixels, before pixel aspect and rotation.
    rotation: quarter turns counter-clockwise to apply, in degrees.
    is_mirrored: whether pictures are put upside down before they are turned.
    is_constant: whether the file's own frame rate is constant, so that each frame is kept once.
    header_frames: what the header claims (0: nothing).
    remuxable: whether its packets could be stored as they are (see data/media/remux.py).
    hole_seconds: a longer time without a frame is a hole, which no clip spans.
    sound: codec, channels, rate and seconds of its sound, None without one.
    done: what is done to, or assumed of, all of its frames, as ``original`` says it.
    """

    height: int
    width: int
    stored_height: int
    stored_width: int
    rotation: int
    fps: float
    num_frames: int
    is_constant: bool
    header_frames: int
    codec: str
    remuxable: bool = False
    hole_seconds: float = inf
    is_mirrored: bool = False
    sound: dict[str, Any] | None = None
    done: dict[str, str] = field(default_factory=dict)


def open_video(stream: IO[bytes]) -> Any:
    """Open self-contained media with PyAV."""
    return av.open(stream, options={"format_whitelist": CONTAINERS}, metadata_errors="replace")


def decoded(container: Any) -> Iterator[tuple[av.VideoFrame, Any]]:
    """Decode the first video stream on one thread: whole frames, each with its packet.

    The packet is None where frames do not come out in the order of packets.
    """
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    transparent = alpha_context(stream)
    waiting: deque[Any] = deque(maxlen=64)
    for packet in container.demux(stream):
        if packet.size:
            waiting.append(packet)
        for frame in transparent.decode(packet) if transparent else packet.decode():
            if frame.is_corrupt:
                raise Reject("holds damaged frames", "Get the file again.")
            mine = waiting.popleft() if waiting else None
            yield frame, (mine if mine is not None and mine.pts == frame.pts else None)


def alpha_context(stream: Any) -> Any:
    """Return a decoder that reads the alpha of VP8 and VP9 where a film has it, which FFmpeg's own
    do not; None where the usual one is right."""
    if stream.metadata.get("alpha_mode") != "1" or stream.codec_context.name not in ("vp8", "vp9"):
        return None
    name = "libvpx-vp9" if stream.codec_context.name == "vp9" else "libvpx"
    if name not in av.codecs_available:
        return None
    context: Any = av.CodecContext.create(name, "r")
    context.extradata, context.thread_count = stream.codec_context.extradata, 1
    return context


def check_size(height: int, width: int, config: IngestConfig) -> None:
    """Reject frames that are too small to be a picture or too large to be handled."""
    if min(height, width) < config.min_side:
        raise Reject(
            f"too small: {width}x{height} pixels",
            f"Sides need min_side={config.min_side} pixels.",
            *("side", min(height, width), config.min_side),
        )
    if height * width > config.max_pixels:
        raise Reject(
            f"too large: {width}x{height} pixels",
            f"Scale it below max_pixels={config.max_pixels}.",
            *("pixels", height * width, config.max_pixels),
        )


def probe_video(stream: IO[bytes], config: IngestConfig, turn: int = 0) -> Facts:
    """Read a video's packets and its first frame; ``turn`` adds quarter turns (degrees).

    Raises Reject if it does not open, its first frame does not decode, or its size is unusable.
    """
    with rejecting("opening"), open_video(stream) as container:
        if not container.streams.video:
            raise Reject("holds no video", "Give a file with a video stream.")
        track = container.streams.video[0]
        check_size(track.codec_context.height, track.codec_context.width, config)
        aspect = track.sample_aspect_ratio or Fraction(1)
        if not Fraction(1, 4) <= aspect <= 4:
            raise Reject(f"has a pixel aspect ratio of {aspect}", "Set it right in the file.")
        rate, codec = float(track.average_rate or track.guessed_rate or 0), track.codec_context.name
        header_frames, sound = int(track.frames), sound_of(container)
        with rejecting("reading"):
            tick = float(track.time_base)
            stamps = [stamp_of(p, tick) for p in container.demux(track) if p.size]
            streamlike = stamps_conform(stamps, track)
    times = sorted(nan if s.seconds is None else s.seconds for s in stamps if not s.is_left_out)
    stream.seek(0)
    with rejecting("decoding"), open_video(stream) as container:
        frame, _ = next(decoded(container), (None, None))
        if frame is None:
            raise Reject("no frame decodes", "Damaged or truncated: get it again.")
        check_size(frame.height, frame.width, config)
        rotation = (round(frame.rotation / 90) * 90 + turn) % 360
        mirrored = is_mirrored(frame)
        is_interlaced = frame.interlaced_frame
        first = next(prepared([(frame, None)], config))
        plain = is_plain(first.frame) and not is_interlaced
    fps, timeline = constant_rate(times, rate)
    shown = (frame.height, max(1, round(frame.width * aspect)))
    if rotation % 180:
        shown = shown[::-1]
    is_constant = timeline == tuple(range(len(times)))
    upright = rotation == 0 and not mirrored and shown == (frame.height, frame.width)
    return Facts(
        height=shown[0],
        width=shown[1],
        stored_height=frame.height,
        stored_width=frame.width,
        rotation=rotation,
        fps=fps,
        num_frames=len(timeline),
        is_constant=is_constant,
        header_frames=header_frames,
        codec=codec,
        remuxable=streamlike and plain and is_constant and upright,
        hole_seconds=hole_of(np.diff(times)),
        is_mirrored=mirrored,
        sound=sound,
    )


def moving_picture(stream: IO[bytes], config: IngestConfig) -> MovingPicture | None:
    """Return what a file shows where it is several pictures in turn, None for a still.

    A file with too few for a clip counts as a still. Raises Reject where it is damaged.
    """
    with rejecting("reading the picture"):
        image = open_picture(stream)
        check_size(image.height, image.width, config)
        return MovingPicture(stream) if num_pictures(image) > config.cell[0] else None


def probe_moving(film: MovingPicture, config: IngestConfig) -> Facts:
    """Read all frames of an animated picture. Raises Reject if one of them is damaged."""
    times: list[float] = []
    height = width = 0
    with rejecting("reading the picture"):
        for frame, _ in film:
            times.append(frame.time)
            height, width = frame.height, frame.width
    check_size(height, width, config)
    fps, timeline = constant_rate(times, 0)
    done = {"alpha": "over white"} if film.is_transparent else {}
    if film.format == "TIFF":
        done["rate"] = f"{PAGES_PER_SECOND:g} pages a second, which say no times"
    return Facts(
        *(height, width, height, width, 0, fps, len(timeline)),
        is_constant=timeline == tuple(range(len(times))),
        header_frames=0,
        codec=film.format.lower(),
        hole_seconds=hole_of(np.diff(times)),
        done=done,
    )


def is_picture(name: str, stream: IO[bytes]) -> bool:
    """Say whether a file is read by Pillow: by its suffix, or else by its bytes."""
    if name.lower().endswith(IMAGE_SUFFIXES):
        return True
    try:
        open_picture(stream)
    except (*PICTURE_FAILURES, ValueError, MemoryError):
        return False
    finally:
        stream.seek(0)
    return True


def constant_rate(times: list[float], rate: float) -> tuple[float, tuple[int, ...]]:
    """Return (frames per second, frame to show at each tick) of a constant-rate copy.

    ``times`` are seconds in display order (nan: unknown); ``rate`` is the file's average, 0 if
    unknown. Files of constant rate keep each frame once; others show the newest frame at each tick.
    After a hole the film goes on as if it had not been there.
    """
    at = np.array(times)
    count = len(at)
    gaps = np.diff(at)
    if count < 3 or not np.isfinite(at).all() or (gaps <= 0).any():
        return (rate if 0 < rate <= MAX_UNEVEN_FPS else 25.0), tuple(range(count))
    median = float(np.median(gaps))
    holes = gaps > hole_of(gaps)
    at[1:] -= np.cumsum(np.where(holes, gaps - median, 0.0))
    gaps = np.where(holes, median, gaps)
    if np.abs(gaps - median).max() <= RATE_TOLERANCE * median:
        return min(MAX_FPS, float((count - 1) / (at[-1] - at[0]))), tuple(range(count))
    fps = min(MAX_UNEVEN_FPS, 1 / median)
    ticks = np.arange(int((at[-1] - at[0]) * fps + 1e-6) + 1) / fps + at[0]
    shown = np.searchsorted(at, ticks + 1e-6, side="right") - 1
    return fps, tuple(shown.tolist())


def hole_of(gaps: np.ndarray) -> float:
    """Return how many seconds between two frames are a hole, given all of them (nan: unknown)."""
    known = gaps[np.isfinite(gaps)]
    return max(HOLE_SECONDS, 10 * float(np.median(known))) if len(known) else inf


def read_image(stream: IO[bytes], config: IngestConfig) -> tuple[Image.Image, dict[str, str]]:
    """Read a still picture as :func:`data.decode.pictures.shown_picture` shows it.

    Returns (picture, what was done to it). Raises Reject if it is damaged or of unusable size.
    """
    with rejecting("reading the picture"):
        stream.seek(0)
        picture: Image.Image = open_picture(stream)
        check_size(picture.height, picture.width, config)
        picture.load()
        done = {"alpha": "over white"} if is_transparent(picture) else {}
        try:
            picture = shown_picture(picture)
        except ValueError as error:
            raise Reject(str(error), "Convert it to 8 bits a channel.") from error
    return picture, done


def fit_size(num_frames: int, height: int, width: int, config: IngestConfig) -> tuple[int, int]:
    """Return the (height, width) a clip is stored at: its own if within ``token_cap``.

    Otherwise the largest size of the same shape that fits, passing over sizes whose last row and
    column of tokens would be mostly padding. Video sides are even, as yuv420p needs.
    """
    size = fit_cells(
        (num_frames, height, width),
        cell_of(config),
        config.token_cap,
        config.max_edge_padding,
        config.min_side,
    )
    if size is None:
        raise Reject(
            f"{width}x{height} cannot fit token_cap={config.token_cap}", "Raise token_cap."
        )
    return size


@lru_cache(maxsize=256)  # a film asks again for each of its clips
def fit_cells(
    shape: tuple[int, int, int], cell: Cell, token_cap: int, max_edge_padding: float, min_side: int
) -> tuple[int, int] | None:
    """Return the size for a clip of shape (F, H, W), None where every size has too many tokens."""
    num_frames, height, width = shape
    step = 1 if num_frames == 1 else 2

    def near(value: float) -> int:
        return max(step, round(value / step) * step)

    own = near(height), near(width)
    if tokens(num_frames, *own, cell) <= token_cap:
        return own
    scales = {h / height for h in range(step, height, step)}
    scales |= {w / width for w in range(step, width, step)}
    best: tuple[int, int] | None = None
    for scale in sorted(scales, reverse=True):
        size = near(height * scale), near(width * scale)
        if tokens(num_frames, *size, cell) > token_cap:
            continue
        best = best or size
        if size[0] * size[1] < 0.8 * best[0] * best[1]:
            break
        covered = -(-size[0] // cell[1]) * cell[1] * -(-size[1] // cell[2]) * cell[2]
        if size[0] * size[1] >= (1 - max_edge_padding) * covered:
            return size
    return None if best is None or min(best) < min(min_side, height, width) else best
