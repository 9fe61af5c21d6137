"""A film's sound: what it is, and the part of it that belongs to a clip.

A clip's sound is stored in its MP4 as FLAC of 16 bits: cut at the sample, without the delay that
lossy codecs put before it.
"""

import io
from typing import Any

import av
import numpy as np
from jaxtyping import Int16

from data.media.h264 import MP4_OPTIONS
from data.media.reject import rejecting

STORED = "flac"
MOST_CHANNELS = 8  # of FLAC
# Decoding starts so long before a clip: lossy codecs need a packet or two to be right.
LEAD_SECONDS = 0.5
# A later gap between frames is silence; a shorter one is the rounding of time stamps.
GAP_SECONDS = 0.02

Samples = Int16[np.ndarray, "N C"]


def sound_of(container: Any) -> dict[str, Any] | None:
    """Return codec, channels, rate (Hz) and seconds of an open film's first sound, None without."""
    if not container.streams.audio:
        return None
    track = container.streams.audio[0]
    length = track.duration * track.time_base if track.duration else None
    if length is None:
        length = container.duration / av.time_base if container.duration else 0
    context = track.codec_context
    return {
        "codec": context.name,
        "channels": int(context.layout.nb_channels),
        "rate": int(context.sample_rate),
        "seconds": round(float(length), 3),
    }


class SoundTrack:
    """Cuts the first sound of a film (an open container of its own).

    ``is_stored`` says whether FLAC can hold it.
    """

    def __init__(self, container: Any) -> None:
        self.container = container
        self.track = container.streams.audio[0]
        self.track.codec_context.thread_count = 1
        context = self.track.codec_context
        self.rate, self.layout = int(context.sample_rate), context.layout.name
        self.channels = int(context.layout.nb_channels)
        self.is_stored = 0 < self.channels <= MOST_CHANNELS and self.rate > 0

    def cut(self, start: float, seconds: float) -> Samples:
        """Return the samples from ``start`` (seconds, as frames tell their times) on, N of them.

        Silence stands where the film has no sound. Raises Reject where it does not decode.
        """
        out = np.zeros((round(seconds * self.rate), self.channels), np.int16)
        with rejecting("decoding its sound"):
            lead = int(max(0.0, start - LEAD_SECONDS) / self.track.time_base)
            for place in (lead, self.track.start_time or 0):
                self.container.seek(place, stream=self.track, backward=True)
                if self.fill(out, start, may_be_late=place != lead or lead == 0):
                    break
        return out

    def fill(self, out: Samples, start: float, may_be_late: bool) -> bool:
        """Write what is decoded from here on to its place; False where it begins too late."""
        resampler = av.AudioResampler("s16", self.layout, self.rate)
        at: int | None = None
        for frame in self.container.decode(self.track):
            if frame.time is None:
                continue
            due = round((frame.time - start) * self.rate)
            if at is None and due > 0 and not may_be_late:
                return False
            if at is None or abs(due - at) > GAP_SECONDS * self.rate:
                at = due
            for piece in resampler.resample(frame):
                values = piece.to_ndarray().reshape(-1, self.channels)
                first, last = max(0, -at), min(len(values), len(out) - at)
                if first < last:
                    out[at + first : at + last] = values[first:last]
                at += len(values)
            if at >= len(out):
                break
        return True


def with_sound(payload: bytes, samples: Samples, rate: int, layout: str) -> bytes:
    """Return an MP4 with the same packets of pictures, and these samples beside them."""
    buffer = io.BytesIO()
    with (
        av.open(io.BytesIO(payload), "r") as source,
        av.open(buffer, "w", format="mp4", options=MP4_OPTIONS) as out,
    ):
        pictures = out.add_stream_from_template(source.streams.video[0])
        sound: Any = out.add_stream(STORED, rate=rate)
        sound.codec_context.layout, sound.codec_context.format = layout, "s16"
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = pictures
                out.mux(packet)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples).reshape(1, -1), "s16", layout
        )
        frame.sample_rate, frame.pts = rate, 0
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    return buffer.getvalue()
