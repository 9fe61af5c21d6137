"""A media file as a source of samples: probed, cut, scaled, captioned, encoded."""

import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, cast

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from data.config import IngestConfig, Sound
from data.dataset.tokens import shape_name
from data.engine.source import Notes, Sample
from data.ingest.checksums import check_digest
from data.media.copies import looks_of
from data.media.film import (
    Account,
    Shown,
    Tick,
    clips_of,
    read_ticks,
    reject_short,
    stored_size,
    with_own_length,
)
from data.media.filters import check_scores, clip_scores, picture_scores
from data.media.fingerprint import fingerprint
from data.media.h264 import Scaler, encode_pictures, encode_png, turned
from data.media.probe import (
    Facts,
    fit_size,
    is_picture,
    moving_picture,
    open_video,
    probe_moving,
    probe_video,
    read_image,
)
from data.media.reject import Reject, Window, rejecting, unreadable
from data.media.remux import is_one_group, remux, shows
from data.media.sound import STORED, SoundTrack, with_sound

RESAMPLE_BOX = 4  # Pillow's Image.Resampling.BOX, area averaging
SAME_SECONDS = (
    0.5  # lengths that differ by less are the same: stamps are rounded, cuts at key frames
)
# What ``original`` says of every sample by measurement; what tables say under such a name is told
# apart from it.
MEASURED = {
    *("num_frames", "height", "width", "start_seconds", "start_frame", "shot", "scene", "scale"),
    *("stored_height", "stored_width", "rotation", "codec", "stretch", "audio"),
    *("alpha", "rate", "interlaced", "matrix", "transfer"),
}


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
    metadata: what else is said of it, in JSON types; samples carry it as ``original``.
    span: seconds of the film that are meant, the end not included; None means all of it.
    digest: what its bytes must have (``data.ingest.checksums``); empty means unknown.
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
    metadata: dict[str, Any] = field(default_factory=dict, hash=False)
    span: tuple[float, float] | None = None
    digest: str = ""

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
            check_digest(stream, self.digest)
            container: Any = None
            if is_picture(self.name, stream):
                container = moving_picture(stream, config)
                if container is None:
                    yield picture_sample(self, stream, config)
                    return
                facts = probe_moving(container, config)
            else:
                facts = probe_video(stream, config, self.turn)
            file = replace(self, span=span_in(self, facts, notes))
            stream.seek(0)
            config = with_own_length(config, facts)
            account = Account(self.name, self.licence, facts.fps, facts.height * facts.width)
            with rejecting("opening"):
                container = container or open_video(stream)
            try:
                with container:  # open to the end: copied packets refer to it
                    yield from video_samples(file, container, facts, config, notes, account)
            finally:
                notes.films.append(account.to_json())
        promised = 0 if file.span else facts.header_frames
        if account.num_frames < 0.95 * promised:
            notes.warnings.append(
                f"{self.name}: the header says {facts.header_frames} frames, "
                f"{account.num_frames} decode"
            )


def span_in(file: MediaFile, facts: Facts, notes: Notes) -> tuple[float, float] | None:
    """Return which seconds of a film are meant, None for all of it.

    A file that ends before its stamps do and is as long as they say was cut at them already, as
    those who fetch films do. Raises Reject where the stamps begin after the end.
    """
    if file.span is None:
        return None
    start, end = file.span
    seconds = facts.num_frames / facts.fps
    if end > seconds + SAME_SECONDS and abs(seconds - (end - start)) <= SAME_SECONDS:
        notes.warnings.append(f"{file.name}: is as long as its stamps say, taken as cut already")
        return None
    if start >= seconds:
        raise Reject(
            f"its stamps begin at {start:g} s, the film ends at {seconds:.6g} s",
            "Give the whole film, or correct the stamps.",
        )
    return file.span


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
    ticks = told_alive(read_ticks(container, facts, config, scaler, file.span), notes)
    first = round(file.span[0] * facts.fps) if file.span else 0
    expected = round(file.span[1] * facts.fps) - first if file.span else facts.num_frames
    most = file.max_clips or config.max_clips_per_source
    sound = sound_track(file, facts, config, notes)
    found = 0
    for placed in clips_of(ticks, config, expected, most, account):
        found += 1
        shown = replace(placed, start=first + placed.start)
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
            flat_frames = (at_size(tick, flat, scaler) for tick in shown.ticks)
            frames = (turned(f, facts.rotation, facts.is_mirrored) for f in flat_frames)
            payload = encode_pictures(frames, length, size, facts.fps, config.crf, config.preset)
        meta = clip_meta(file, facts, shown, size) | {"scores": scores}
        if sound and (start := shown.ticks[0].frame.time) is not None:
            samples = sound.cut(start, length / facts.fps)
            payload = with_sound(payload, samples, sound.rate, sound.layout)
            meta["original"]["audio"] = meta["original"]["audio"] | {"kept": STORED}
        account.used += length
        looks = f":{looks_of(greys, facts.fps)}" if config.find_copies else ""
        yield Sample(meta, payload, "mp4", fingerprint=fingerprint(greys) + looks)
    if not found:
        reject_short(account.num_frames, config)


def sound_track(
    file: MediaFile, facts: Facts, config: IngestConfig, notes: Notes
) -> SoundTrack | None:
    """Return a film's sound to cut, where it has one that the settings keep."""
    if facts.sound is None or config.audio is not Sound.keep:
        return None
    with rejecting("opening its sound"):
        track = SoundTrack(open_video(file.open()))
    if track.is_stored:
        return track
    notes.warnings.append(f"{file.name}: its sound of {track.channels} channels is not kept")
    return None


def told_alive(ticks: Iterator[Tick], notes: Notes) -> Iterator[Tick]:
    """Yield the frames of a film, and say at each that it is being read."""
    for tick in ticks:
        notes.on_frame()
        yield tick


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
        "original": told_apart(file.metadata)
        | {
            "num_frames": facts.num_frames,
            "height": facts.height,
            "width": facts.width,
            "start_seconds": round(shown.start / facts.fps + shown.ticks[0].skipped, 6),
            "start_frame": shown.start,
            "shot": shown.shot,
            "scale": round(height / facts.height, 6),
            "stored_height": facts.stored_height,
            "stored_width": facts.stored_width,
            "rotation": facts.rotation,
            "codec": facts.codec,
            **stretch_of(size, (facts.height, facts.width)),
            **facts.done,
            **{key: value for tick in shown.ticks for key, value in tick.done.items()},
            **({"audio": facts.sound} if facts.sound else {}),
        },
    }


def stretch_of(size: tuple[int, int], full: tuple[int, int]) -> dict[str, float]:
    """Return by what share pictures are wider than they were, where sides in pixels round."""
    (height, width), (full_height, full_width) = size, full
    share = width * full_height / (height * full_width) - 1
    return {"stretch": round(share, 6)} if abs(share) >= 5e-7 else {}


def luma(frame: av.VideoFrame) -> UInt8[np.ndarray, "H W"]:
    """Return a decoded frame in grey, unreduced; a view of it where it is 8-bit planar YUV."""
    if not frame.format.name.startswith(("yuv4", "yuvj4")) or frame.format.components[0].bits != 8:
        return frame.to_ndarray(format="gray")
    plane = frame.planes[0]
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:, : frame.width]


def picture_sample(file: MediaFile, stream: IO[bytes], config: IngestConfig) -> Sample:
    """Return the one-frame sample of an image file."""
    picture, done = read_image(stream, config)
    full_height, full_width = picture.height, picture.width
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
        "original": told_apart(file.metadata)
        | {
            "num_frames": 1,
            "height": full_height,
            "width": full_width,
            "start_seconds": 0.0,
            "scale": round(height / full_height, 6),
            **stretch_of((height, width), (full_height, full_width)),
            **done,
        },
        "scores": scores,
    }
    return Sample(meta, encode_png(image), "png", fingerprint=fingerprint(grey[None]))


def told_apart(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata with ``said_`` before the names of what is measured."""
    return {f"said_{k}" if k in MEASURED else k: value for k, value in metadata.items()}


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
