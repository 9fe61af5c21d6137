"""A media file as a source of samples: probed, cut, scaled, captioned, encoded."""

import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from data.config import IngestConfig
from data.dataset.tokens import shape_name
from data.engine.source import Notes, Sample
from data.media.film import Account, Shown, Tick, clips_of, read_ticks, reject_short, stored_size
from data.media.filters import check_scores, clip_scores, picture_scores
from data.media.fingerprint import fingerprint
from data.media.h264 import Scaler, encode_pictures, encode_png, turned
from data.media.probe import IMAGE_SUFFIXES, Facts, fit_size, open_video, probe_video, read_image
from data.media.reject import Reject, Window, rejecting, unreadable
from data.media.remux import is_one_group, remux, shows

RESAMPLE_BOX = 4  # Pillow's Image.Resampling.BOX, area averaging


@dataclass(frozen=True)
class MediaFile:
    """One video or image to ingest.

    name: unique; what messages call it.
    path: the file, or the tar that holds it from ``offset``.
    caption, short_caption: words for its clips; an empty caption means plain facts about the file.
    source: what samples say as their source; empty means ``name``.
    turn: quarter turns counter-clockwise to apply, in degrees, for footage without an upright.
    max_clips: overrides ``max_clips_per_source`` where given.
    stamp: time of the file's last change in ns, so that a changed file is another input.
    """

    name: str
    split: str
    path: Path = field(repr=False)  # moving a dataset does not change what it holds
    licence: str = "unknown"
    caption: str = ""
    offset: int = 0
    nbytes: int = 0
    turn: int = 0
    max_clips: int = 0
    stamp: int = 0
    short_caption: str = ""
    source: str = ""

    @property
    def weight(self) -> float:
        """Expected work: seconds, by a rule of thumb."""
        return 0.1 + self.nbytes / 1.5e6

    def open(self) -> IO[bytes]:
        """Open the file, or the tar member, for reading. Raises Reject if the system refuses."""
        try:
            window = Window(self.path, self.offset, self.nbytes)
        except OSError as error:
            raise unreadable(error) from error
        return cast(IO[bytes], io.BufferedReader(window, 1 << 18))

    def samples(self, config: IngestConfig, notes: Notes) -> Iterator[Sample]:
        """Yield the file's clips (MP4) or its picture (PNG). Raises Reject."""
        if self.nbytes == 0:
            raise Reject("is empty (0 bytes)", "Get the file again.")
        if self.nbytes > config.max_file_bytes:
            raise Reject(
                f"too large: {self.nbytes} bytes",
                f"Cut it, or raise max_file_bytes={config.max_file_bytes}.",
            )
        with self.open() as stream:
            if self.name.lower().endswith(IMAGE_SUFFIXES):
                yield picture_sample(self, stream, config)
                return
            facts = probe_video(stream, config, self.turn)
            stream.seek(0)
            account = Account(self.name, self.licence, facts.fps)
            with rejecting("opening"):
                container = open_video(stream)
            try:
                with container:  # open to the end: copied packets refer to it
                    yield from video_samples(self, container, facts, config, notes, account)
            finally:
                notes.films.append(account.to_json())
        if facts.header_frames and account.num_frames < 0.95 * facts.header_frames:
            notes.warnings.append(
                f"{self.name}: the header says {facts.header_frames} frames, "
                f"{account.num_frames} decode"
            )


def video_samples(
    file: MediaFile,
    container: Any,
    facts: Facts,
    config: IngestConfig,
    notes: Notes,
    account: Account,
) -> Iterator[Sample]:
    """Yield the clips of a probed video that pass the filters; fill in ``account``."""
    scaler = Scaler()
    ticks = read_ticks(container, facts, config, scaler)
    most = file.max_clips or config.max_clips_per_source
    found = 0
    for shown in clips_of(ticks, config, facts.num_frames, most, account):
        found += 1
        greys = np.stack([cv2.cvtColor(tick.look, cv2.COLOR_BGR2GRAY) for tick in shown.ticks])
        length = len(shown.ticks)
        scores = clip_scores(greys, luma(shown.ticks[length // 2].frame), length / facts.fps)
        try:
            check_scores(scores, config)
            flat = stored_size(length, facts, config)
        except Reject as error:
            notes.reject(f"{file.name} at frame {shown.start}", error)
            account.dropped[error.filter or "size"] += length
            continue
        size = flat[::-1] if facts.rotation % 180 else flat
        payload = copied(shown, facts, size, config)
        account.remuxed_clips += payload is not None
        if payload is None:
            frames = (turned(at_size(t, flat, scaler), facts.rotation) for t in shown.ticks)
            payload = encode_pictures(frames, length, size, facts.fps, config.crf, config.preset)
        account.used += length
        meta = clip_meta(file, facts, shown, size) | {"scores": scores}
        yield Sample(meta, payload, "mp4", fingerprint=fingerprint(greys))
    if not found:
        reject_short(account.num_frames, config)


def at_size(tick: Tick, size: tuple[int, int], scaler: Scaler) -> av.VideoFrame:
    """Return a tick's frame at (height, width), from the decoded one if that is another size."""
    if (tick.scaled.height, tick.scaled.width) == size:
        return tick.scaled
    return scaler.scaled(tick.frame, *size)


def copied(shown: Shown, facts: Facts, size: tuple[int, int], config: IngestConfig) -> bytes | None:
    """Return a clip's own packets as an MP4, or None where it must be encoded."""
    packets = [tick.packet for tick in shown.ticks]
    fits = config.remux and facts.remuxable and size == (facts.stored_height, facts.stored_width)
    if not fits or not is_one_group(packets):
        return None
    payload = remux(packets, packets[0].stream, facts.fps)
    return payload if shows(payload, [tick.frame for tick in shown.ticks]) else None


def clip_meta(file: MediaFile, facts: Facts, shown: Shown, size: tuple[int, int]) -> dict[str, Any]:
    """Return the metadata of a clip, without scores."""
    (height, width), length = size, len(shown.ticks)
    plain = (
        f"A {shape_name(height, width)} video clip of {length / facts.fps:.1f} seconds "
        f"from the file {Path(file.name).name}."
    )
    return {
        "key": f"{key_of(file.name)}-{shown.start:06d}",
        "media": "video",
        "num_frames": length,
        "height": height,
        "width": width,
        "fps": facts.fps,
        "duration_seconds": length / facts.fps,
        **described(file, plain),
        "shots": shown.cuts,
        "original": {
            "num_frames": facts.num_frames,
            "height": facts.height,
            "width": facts.width,
            "start_seconds": round(shown.start / facts.fps, 6),
            "start_frame": shown.start,
            "shot": shown.shot,
            "scale": round(height / facts.height, 6),
            "stored_height": facts.stored_height,
            "stored_width": facts.stored_width,
            "rotation": facts.rotation,
            "codec": facts.codec,
        },
    }


def luma(frame: av.VideoFrame) -> UInt8[np.ndarray, "H W"]:
    """Return a decoded frame in grey, unreduced; a view of it where it is 8-bit planar YUV."""
    if not frame.format.name.startswith(("yuv4", "yuvj4")) or frame.format.components[0].bits != 8:
        return frame.to_ndarray(format="gray")
    plane = frame.planes[0]
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:, : frame.width]


def picture_sample(file: MediaFile, stream: IO[bytes], config: IngestConfig) -> Sample:
    """Return the one-frame sample of an image file."""
    picture, full_height, full_width = read_image(stream, config)
    height, width = fit_size(1, full_height, full_width, config)
    if (height, width) != (full_height, full_width):
        picture = picture.resize((width, height), RESAMPLE_BOX)
    image = np.asarray(picture)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scores = picture_scores(grey)
    check_scores(scores, config)
    meta = {
        "key": key_of(file.name),
        "media": "image",
        "num_frames": 1,
        "height": height,
        "width": width,
        "fps": 0.0,
        "duration_seconds": 0.0,
        **described(
            file, f"A {shape_name(height, width)} image from the file {Path(file.name).name}."
        ),
        "original": {
            "num_frames": 1,
            "height": full_height,
            "width": full_width,
            "start_seconds": 0.0,
            "scale": round(height / full_height, 6),
        },
        "scores": scores,
    }
    return Sample(meta, encode_png(image), "png", fingerprint=fingerprint(grey[None]))


def described(file: MediaFile, plain: str) -> dict[str, Any]:
    """Return the metadata that tells what a sample shows and where it is from."""
    return {
        "caption": file.caption or plain,
        "short_caption": file.short_caption,
        "source": file.source or file.name,
        "licence": file.licence,
        "rendered": False,
    }


def key_of(name: str) -> str:
    """Return a unique, shard-safe key for a source name of any characters."""
    words = re.sub(r"[^A-Za-z0-9]+", "_", Path(name).stem)[:40].strip("_")
    return f"{words or 'file'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
