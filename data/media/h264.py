"""Encode frames the one way in which every clip of a dataset is stored.

Normalised means: H.264, yuv420p, one closed group of pictures, no B-frames, constant frame rate,
first frame at time 0, no edit list. Decoders that miscount under edit lists or open groups then
cannot (DESIGN section 5, Decoders). Colours are of BT.601, of limited range: what readers assume of
a clip that names no matrix. Only where they would take it for BT.709 by its size is it named.
"""

import io
from collections.abc import Iterable
from fractions import Fraction

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from jaxtyping import UInt8
from PIL import Image

from data.decode.colour import BT601, is_hd

MP4_OPTIONS = {"use_editlist": "0"}
# Matrix coefficients (ITU-T H.273) that readers of an untagged stream assume: unspecified, BT.601.
PLAIN_MATRICES = (2, 5, 6)


def encode_h264(
    frames: UInt8[np.ndarray, "F H W 3"],
    fps: float,
    crf: int = 18,
    preset: str = "superfast",
    pixels: str = "yuv420p",
    comment: str = "",
) -> bytes:
    """Encode RGB frames as an MP4 in memory, with a comment in its metadata.

    pixels: the format that is stored; yuv420p needs even sides, yuv444p does not. Raises ValueError
    on odd sides of the one, a frame rate that is not positive or a preset x264 lacks.
    """
    num_frames, height, width, _ = frames.shape
    if not fps > 0:
        raise ValueError(f"fps={fps}: must be positive. Give the clip's frame rate.")
    images = (
        av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24") for image in frames
    )
    return encode_pictures(images, num_frames, (height, width), fps, crf, preset, pixels, comment)


def encode_exact(frames: UInt8[np.ndarray, "F H W 3"], fps: float) -> bytes:
    """Encode RGB frames without loss, as H.264 of RGB planes, for pictures of a few pixels.

    yuv420p has one colour for four pixels, at any quality. Raises ValueError on odd sizes.
    """
    num_frames, height, width, _ = frames.shape
    images = (
        av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24") for image in frames
    )
    return encode_pictures(images, num_frames, (height, width), fps, 0, "superfast", "rgb24")


def encode_pictures(
    pictures: Iterable[av.VideoFrame],
    num_frames: int,
    size: tuple[int, int],
    fps: float,
    crf: int,
    preset: str,
    pixels: str = "yuv420p",
    comment: str = "",
) -> bytes:
    """Encode ``num_frames`` frames of (height, width) ``size``, RGB or yuv420p, as an MP4.

    ``pixels`` is the format that is stored, yuv420p, yuv444p or rgb24. Raises ValueError on odd
    sizes where it shares colours between pixels.
    """
    height, width = size
    if pixels == "yuv420p" and (height % 2 or width % 2):
        raise ValueError(f"size={height}x{width}: yuv420p needs even sides. Scale it by a pixel.")
    rate = Fraction(fps).limit_denominator(1001)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options=MP4_OPTIONS) as container:
        if comment:
            container.metadata["comment"] = comment
        stream = container.add_stream(
            "libx264rgb" if pixels == "rgb24" else "libx264",
            rate=rate,
            options={
                "preset": preset,
                "crf": str(crf),
                "x264-params": f"bframes=0:keyint={num_frames + 1}:scenecut=0:open-gop=0:threads=1",
            },
        )
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        if pixels != "rgb24" and is_hd(height, width):
            stream.codec_context.colorspace = BT601
        tick = 1 / rate
        for index, picture in enumerate(pictures):
            picture.pts, picture.time_base = index, tick
            picture.pict_type = PictureType.NONE  # a decoded frame's type would force key frames
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return buffer.getvalue()


class Scaler:
    """Bring decoded frames to a size and to the stored pixel format, one scaling context for all.

    Frames of BT.601 or of no stated matrix are scaled as they are; others change their matrix too.
    """

    def __init__(self) -> None:
        # One thread each: swscale's own threads cost up to twice the time (docs/log.md), and the
        # children share the cores already. Each keeps the scaling context of its last call.
        self.scaler, self.converter, self.reducer = (VideoReformatter() for _ in range(3))

    def scaled(self, frame: av.VideoFrame, height: int, width: int) -> av.VideoFrame:
        """Return a yuv420p frame of (height, width): the same one where it already is."""
        same = (height, width) == (frame.height, frame.width)
        way = None if same else "AREA" if height < frame.height else "BICUBIC"
        if frame.colorspace in PLAIN_MATRICES:
            return self.scaler.reformat(
                frame,
                width,
                height,
                "yuv420p",
                interpolation=way,
                dst_color_range=ColorRange.MPEG,
                threads=1,
            )
        # By way of RGB, which is closer than swscale's own change of matrix (docs/log.md).
        picture = self.scaler.reformat(frame, width, height, "rgb24", interpolation=way, threads=1)
        return self.converter.reformat(
            picture,
            format="yuv420p",
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )

    def small(self, frame: av.VideoFrame, height: int, width: int) -> UInt8[np.ndarray, "H W 3"]:
        """Return a reduced BGR image, for measurements only."""
        way = "FAST_BILINEAR"
        return self.reducer.reformat(
            frame, width, height, "bgr24", interpolation=way, threads=1
        ).to_ndarray()


def is_plain(frame: av.VideoFrame) -> bool:
    """Say whether a frame's pixels could be stored as they are."""
    limited = frame.color_range in (ColorRange.UNSPECIFIED, ColorRange.MPEG)
    return frame.format.name == "yuv420p" and limited and frame.colorspace in PLAIN_MATRICES


def turned(frame: av.VideoFrame, turn: int, mirrored: bool = False) -> av.VideoFrame:
    """Return a yuv420p frame turned counter-clockwise by ``turn`` degrees, a multiple of 90.

    Where ``mirrored`` it is put upside down first.
    """
    if turn % 360 == 0 and not mirrored:
        return frame
    height, width = frame.height, frame.width
    packed = frame.to_ndarray()  # (3/2 H, W): luma, then the two chroma planes of a quarter each
    luma, chroma = packed[:height], packed[height:].reshape(2, height // 2, width // 2)
    way = -1 if mirrored else 1
    planes = [np.rot90(plane[::way], turn // 90) for plane in (luma, *chroma)]
    shape = planes[0].shape
    values = np.concatenate([np.ascontiguousarray(plane).ravel() for plane in planes])
    return av.VideoFrame.from_ndarray(values.reshape(shape[0] * 3 // 2, shape[1]), format="yuv420p")


def encode_png(frame: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """Encode one RGB frame losslessly."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()
