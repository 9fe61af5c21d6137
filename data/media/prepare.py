"""Bring decoded frames to what they mean: one picture a frame, of standard range, without holes.

A frame that needs nothing passes untouched. What was done is told, frame by frame.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import av
import av.filter
import numpy as np
from av.video.reformatter import VideoReformatter

from data.config import Hdr, IngestConfig, Interlaced
from data.decode.colour import BT709, BT2020, TRANSFERS, UNSAID, with_matrix
from data.media.hdr import ToneMapper
from data.media.reject import Reject

GROUND = 255  # white, as under pictures


@dataclass(frozen=True)
class Prepared:
    """A frame to show, the packet it came from (None where it is not that packet's picture).

    done: what was done to it, or assumed of it, as ``original`` says it.
    """

    frame: av.VideoFrame
    packet: Any = None
    done: dict[str, str] = field(default_factory=dict)


class SizeChanged(Reject):
    """A film goes on in another size: what was before it is whole."""


def prepared(
    frames: Iterable[tuple[av.VideoFrame, Any]], config: IngestConfig
) -> Iterator[Prepared]:
    """Yield the frames of a film as they are meant. Raises Reject by the policies of the settings.

    Interlaced ones are woven into whole pictures by ``bwdif``, one for each frame; those of PQ and
    HLG are brought to standard range; what is transparent lies over white. Raises SizeChanged,
    after the frames before it, at the first frame of another size.
    """
    one = Meaning(config)
    deinterlacer: Deinterlacer | None = None
    size: tuple[int, int] | None = None
    changed = False
    for frame, packet in frames:
        size = size or (frame.height, frame.width)
        changed = (frame.height, frame.width) != size
        if changed:
            break
        if frame.interlaced_frame and config.interlaced is Interlaced.refuse:
            raise Reject("is interlaced", "Say interlaced=deinterlace, or keep.")
        if frame.interlaced_frame and config.interlaced is Interlaced.deinterlace:
            deinterlacer = deinterlacer or Deinterlacer(frame)
            yield from map(one.of_woven, deinterlacer.push(frame))
            continue
        if deinterlacer:
            yield from map(one.of_woven, deinterlacer.push(None))
            deinterlacer = None
        yield one.of(frame, packet, "kept" if frame.interlaced_frame else "")
    if deinterlacer:
        yield from map(one.of_woven, deinterlacer.push(None))
    if changed:
        raise SizeChanged("changes its frame size midway", "Split it where the size changes.")


class Deinterlacer:
    """FFmpeg's ``bwdif``, one frame out for each frame in, a frame later."""

    def __init__(self, frame: av.VideoFrame) -> None:
        self.graph = av.filter.Graph()
        source = self.graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=frame.time_base,
        )
        filter = self.graph.add("bwdif", "mode=send_frame:deint=all")
        self.graph.link_nodes(source, filter, self.graph.add("buffersink"))
        self.graph.configure()

    def push(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """Take a frame, or None at the end; yield those that are done."""
        self.graph.vpush(frame)
        while True:
            try:
                yield self.graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return


class Meaning:
    """Makes single frames of one film what they mean."""

    def __init__(self, config: IngestConfig) -> None:
        self.config = config
        self.reformatter = VideoReformatter()
        self.mapper: ToneMapper | None = None

    def of_woven(self, frame: av.VideoFrame) -> Prepared:
        """Return a frame that the deinterlacer made."""
        return self.of(frame, None, "deinterlaced")

    def of(self, frame: av.VideoFrame, packet: Any, interlaced: str) -> Prepared:
        """Return a frame in standard range, over white, with its matrix named."""
        done = {"interlaced": interlaced} if interlaced else {}
        if frame.colorspace == UNSAID and not frame.format.is_rgb:
            frame = with_matrix(frame)
            names = {BT709: "bt709", BT2020: "bt2020"}
            done["matrix"] = f"{names.get(frame.colorspace, 'bt601')}, not said by the film"
        if frame.color_trc in TRANSFERS:
            done["transfer"] = TRANSFERS[frame.color_trc]
            if self.config.hdr is Hdr.refuse:
                raise Reject(f"is HDR ({done['transfer']})", "Say hdr=tonemap.")
            return Prepared(self.in_standard_range(frame), None, done)
        if any(component.is_alpha for component in frame.format.components):
            done["alpha"] = "over white"
            return Prepared(over_white(frame, self.reformatter), None, done)
        return Prepared(frame, packet, done)

    def in_standard_range(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return an HDR frame as RGB of 8 bits."""
        transfer = frame.color_trc
        if self.mapper is None or self.mapper.transfer != transfer:
            self.mapper = ToneMapper(transfer)
        wide = self.reformatter.reformat(frame, format="rgb48le", threads=1)
        shown = self.mapper(wide).to_ndarray().astype(np.uint32)
        return as_rgb((shown + 128) // 257, frame)


def over_white(frame: av.VideoFrame, reformatter: VideoReformatter) -> av.VideoFrame:
    """Return a frame with (straight) alpha as RGB over white."""
    values = reformatter.reformat(frame, format="rgba", threads=1).to_ndarray().astype(np.uint16)
    alpha = values[..., 3:]
    return as_rgb((values[..., :3] * alpha + GROUND * (255 - alpha) + 127) // 255, frame)


def as_rgb(values: np.ndarray, like: av.VideoFrame) -> av.VideoFrame:
    """Return levels (H, W, 3) from 0 to 255 as a frame that is shown when another one is."""
    image = np.ascontiguousarray(values.astype(np.uint8))
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    frame.pts, frame.time_base = like.pts, like.time_base
    return frame
