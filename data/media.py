"""A media file as a source of samples: probed, cut, scaled, captioned, encoded."""

import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from data.config import IngestConfig
from data.h264 import encode_h264, encode_png
from data.parts import Notes, Sample
from data.probe import (
    IMAGE_SUFFIXES,
    Facts,
    Reject,
    Window,
    fit_size,
    probe_video,
    read_frames,
    read_image,
)
from data.worlds.clip import shape_name

RESAMPLE_BOX = 4  # Pillow's Image.Resampling.BOX, area averaging


@dataclass(frozen=True)
class MediaFile:
    """One video or image to ingest.

    name: what samples say as their source, and what messages call it.
    path: the file, or the tar that holds it from ``offset``.
    caption: words for its clips; empty means plain facts about the file.
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

    @property
    def weight(self) -> float:
        """Expected work: seconds, by a rule of thumb."""
        return 0.1 + self.nbytes / 1.5e6

    def open(self) -> IO[bytes]:
        """Open the file, or the tar member, for reading."""
        window = Window(self.path, self.offset, self.nbytes)
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
            if facts.header_frames and facts.num_frames < 0.95 * facts.header_frames:
                notes.warnings.append(
                    f"{self.name}: the header says {facts.header_frames} frames, "
                    f"{facts.num_frames} decode"
                )
            stream.seek(0)
            yield from video_samples(self, stream, facts, config)


def cut(num_frames: int, config: IngestConfig, most: int) -> list[tuple[int, int]]:
    """Return (first frame, number of frames) of consecutive clips, at most ``most`` of them.

    Lengths follow ``clip_frames`` in turn; the last clip takes the longest 1 + k * cell[0] that is
    left (two latent frames at least). Beyond ``most`` clips, an even choice over the film stays.
    Raises Reject if the film is too short for one clip.
    """
    step = config.cell[0]
    lengths = cycle(config.clip_frames or [config.max_frames])
    clips: list[tuple[int, int]] = []
    start = 0
    while True:
        left = (num_frames - start - 1) // step * step + 1
        length = min(next(lengths), left)
        if num_frames - start < 1 + step:
            break
        clips.append((start, length))
        start += length
    if not clips:
        raise Reject(
            f"too few frames: {num_frames}", f"A clip needs {1 + step} frames that decode."
        )
    if len(clips) > most:
        clips = [clips[i] for i in np.linspace(0, len(clips) - 1, most).round().astype(int)]
    return clips


def video_samples(
    file: MediaFile, stream: IO[bytes], facts: Facts, config: IngestConfig
) -> Iterator[Sample]:
    """Yield the clips of a probed video."""
    spans = cut(facts.num_frames, config, file.max_clips or config.max_clips_per_source)
    sizes = [fit_size(length, facts.height, facts.width, config) for _, length in spans]
    wanted = [
        ([facts.timeline[i] for i in range(start, start + length)], size)
        for (start, length), size in zip(spans, sizes, strict=True)
    ]
    arrays = read_frames(stream, facts, wanted)
    for (start, length), (height, width), frames in zip(spans, sizes, arrays, strict=True):
        original = {
            "num_frames": facts.num_frames,
            "height": facts.height,
            "width": facts.width,
            "start_seconds": round(start / facts.fps, 6),
            "scale": round(height / facts.height, 6),
            "stored_height": facts.stored_height,
            "stored_width": facts.stored_width,
            "rotation": facts.rotation,
            "codec": facts.codec,
        }
        plain = (
            f"A {shape_name(height, width)} video clip of {length / facts.fps:.1f} seconds "
            f"from the file {Path(file.name).name}."
        )
        meta = {
            "key": f"{key_of(file.name)}-{start:06d}",
            "media": "video",
            "num_frames": length,
            "height": height,
            "width": width,
            "fps": facts.fps,
            "duration_seconds": length / facts.fps,
            **described(file, plain),
            "original": original,
        }
        yield Sample(meta, encode_h264(frames, facts.fps, config.crf, config.preset), "mp4")


def picture_sample(file: MediaFile, stream: IO[bytes], config: IngestConfig) -> Sample:
    """Return the one-frame sample of an image file."""
    picture, full_height, full_width = read_image(stream, config)
    height, width = fit_size(1, full_height, full_width, config)
    if (height, width) != (full_height, full_width):
        picture = picture.resize((width, height), RESAMPLE_BOX)
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
    }
    return Sample(meta, encode_png(np.asarray(picture)), "png")


def described(file: MediaFile, plain: str) -> dict[str, Any]:
    """Return the metadata that tells what a sample shows and where it is from."""
    return {
        "caption": file.caption or plain,
        "source": file.name,
        "licence": file.licence,
        "rendered": False,
    }


def key_of(name: str) -> str:
    """Return a unique, shard-safe key for a source name of any characters."""
    words = re.sub(r"[^A-Za-z0-9]+", "_", Path(name).stem)[:40].strip("_")
    return f"{words or 'file'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
