"""Frames in, h264 mp4 out, and mp4 as a data URI that a page can carry."""

import base64
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_mp4(path: Path, frames: np.ndarray, fps: float = 8.0, crf: int = 16) -> None:
    """Write RGB frames as an mp4 that every browser plays.

    frames: uint8 (F, H, W, 3). yuv420p needs even sides, so an odd row or column is repeated once;
    the index is moved to the front (faststart), so that a page can play it while it loads.
    Raises ValueError for another shape or type.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(
            f"frames={frames.dtype}{list(frames.shape)}: must be uint8 (F, H, W, 3). "
            "Scale to 0..255 and move channels last."
        )
    height, width = frames.shape[1:3]
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # One thread: encoders of one page must not take the cores of the runs.
        stream.thread_count = 1
        stream.options = {"crf": str(crf), "preset": "slow"}
        for frame in frames:
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode())


def video_data_uri(path: Path) -> str:
    """Return an mp4 file as a ``data:`` URI."""
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def read_frames(path: Path) -> np.ndarray:
    """Return the frames of a video, uint8 (F, H, W, 3). Raises ValueError for what is none."""
    try:
        with av.open(str(path)) as container:
            frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{path}: is no video ({error}). Draw it again.") from error
    if not frames:
        raise ValueError(f"{path}: has no frame. Draw it again.")
    return np.stack(frames)
