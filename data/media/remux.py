"""Store a clip by copying its packets where the file already is what ingest would write.

A second lossy encoding costs quality and time. A clip can be copied if the file is H.264 in
yuv420p, of constant rate, upright, with square pixels, and the clip starts at a key frame and holds
no other and no B-frame, so that its packets are one closed group of pictures. The copy is decoded
and compared: it is kept only if its pixels are bit for bit those of the film.
"""

import io
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import av
import av.error
import numpy as np

from data.media.h264 import MP4_OPTIONS

# Out-of-band parameter sets of MP4 and Matroska start with this version byte (ISO/IEC 14496-15).
AVCC_VERSION = 1


class Stamp(NamedTuple):
    """What a packet says of itself: times in ticks and seconds, and whether it is shown."""

    pts: int | None
    dts: int | None
    seconds: float | None
    is_left_out: bool


def stamp_of(packet: Any, seconds_per_tick: float) -> Stamp:
    """Return a packet's stamp, which unlike the packet takes no memory to speak of."""
    pts = packet.pts
    seconds = None if pts is None else pts * seconds_per_tick
    return Stamp(pts, packet.dts, seconds, packet.is_discard or packet.is_corrupt)


def stamps_conform(stamps: Sequence[Stamp], track: Any) -> bool:
    """Say whether a stream's packets are H.264 in display order, evenly timed, none left out."""
    context = track.codec_context
    if context.name != "h264" or not context.extradata or context.extradata[0] != AVCC_VERSION:
        return False
    if any(s.pts is None or s.pts != s.dts or s.is_left_out for s in stamps):
        return False
    # A container's coarse clock rounds times by up to a tick; anything more is a variable rate.
    gaps = {(b.pts or 0) - (a.pts or 0) for a, b in pairwise(stamps)}
    return not gaps or (min(gaps) > 0 and max(gaps) - min(gaps) <= 1)


def is_one_group(packets: Sequence[Any]) -> bool:
    """Say whether packets are one group of pictures: a key frame, then none."""
    return all(p is not None for p in packets) and [p.is_keyframe for p in packets] == [
        index == 0 for index in range(len(packets))
    ]


def remux(packets: Sequence[Any], template: Any, fps: float) -> bytes:
    """Return an MP4 of these packets, frame 0 at time 0, at a constant rate.

    ``template`` is the input stream they come from; the packets change their times.
    """
    rate = Fraction(fps).limit_denominator(1001)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options=MP4_OPTIONS) as container:
        stream = container.add_stream_from_template(template)
        stream.metadata.clear()
        stream.time_base = 1 / rate
        for index, packet in enumerate(packets):
            packet.stream = stream
            packet.time_base = 1 / rate
            packet.pts = packet.dts = index
            packet.duration = 1
            container.mux(packet)
    return buffer.getvalue()


def shows(payload: bytes, frames: Sequence[av.VideoFrame]) -> bool:
    """Say whether an MP4 decodes to exactly these yuv420p frames."""
    try:
        with av.open(io.BytesIO(payload), "r") as container:
            container.streams.video[0].codec_context.thread_count = 1
            found = list(container.decode(video=0))
    except (av.error.FFmpegError, ValueError):
        return False
    return len(found) == len(frames) and all(
        np.array_equal(a.to_ndarray(), b.to_ndarray()) for a, b in zip(found, frames, strict=True)
    )
