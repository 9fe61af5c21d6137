"""Encode frames the one way in which every clip of a dataset is stored.

Normalised means: H.264, yuv420p, one closed group of pictures, no B-frames, constant frame rate,
first frame at time 0, no edit list. Decoders that miscount under edit lists or open groups then
cannot (DESIGN section 5, Decoders).
"""

import io
from fractions import Fraction

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image


def encode_h264(
    frames: UInt8[np.ndarray, "F H W 3"], fps: float, crf: int = 18, preset: str = "superfast"
) -> bytes:
    """Encode RGB frames of even height and width as an MP4 in memory.

    Raises ValueError on odd sizes, a frame rate that is not positive or a preset x264 lacks.
    """
    num_frames, height, width, _ = frames.shape
    if height % 2 or width % 2:
        raise ValueError(f"size={height}x{width}: yuv420p needs even sides. Scale it by a pixel.")
    if not fps > 0:
        raise ValueError(f"fps={fps}: must be positive. Give the clip's frame rate.")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"use_editlist": "0"}) as container:
        stream = container.add_stream(
            "libx264",
            rate=Fraction(fps).limit_denominator(1001),
            options={
                "preset": preset,
                "crf": str(crf),
                "x264-params": f"bframes=0:keyint={num_frames + 1}:scenecut=0:open-gop=0:threads=1",
            },
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for image in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def encode_png(frame: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """Encode one RGB frame losslessly."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()
