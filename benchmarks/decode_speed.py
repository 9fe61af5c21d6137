"""Frames per second of the decoders on clips as ingest writes them, taking turns in one run."""

import hashlib
import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np

from data.dataset.sample import SampleInfo
from data.decode.check import Frames
from data.decode.decoders import Decoder, DecordDecoder, av_frames, make_decoder
from data.decode.pool import DecoderPool
from data.media.h264 import encode_h264

SHAPES = [(17, 128, 128), (17, 720, 1280), (17, 1080, 1920)]
ROUNDS = {128: 80, 720: 12, 1080: 8}
BEFORE = "pyav, frame by frame"
POOL = "interface, through the pool"


def texture(num_frames: int, height: int, width: int) -> Frames:
    """Return blocks of noise that move by whole pixels: about 12 Mbit/s at 720p and crf 18."""
    draw = np.random.default_rng(0)
    blocks = draw.integers(0, 256, (height // 8 + num_frames, width // 8 + num_frames, 3))
    ground = blocks.astype(np.uint8).repeat(8, 0).repeat(8, 1)
    return np.stack(
        [ground[3 * f : 3 * f + height, 2 * f : 2 * f + width] for f in range(num_frames)]
    )


def frame_by_frame(payload: bytes) -> Frames:
    """Decode by PyAV's own ``to_ndarray``, which data.decode.decoders did before."""
    return np.stack([frame.to_ndarray(format="rgb24") for frame in av_frames(payload)])


def clip_info(facts: dict[str, float], payload: bytes) -> SampleInfo:
    """Return an index entry for a payload of ``num_frames, height, width, fps``."""
    values = {"key": "clip", "media": "video", "duration_seconds": 1.0, "caption": ""}
    values |= {"source": "painted", "licence": "CC0-1.0", "rendered": True, "original": {}}
    values |= {"sha256": hashlib.sha256(payload).hexdigest(), "shard": "0.tar", "offset": 0}
    values |= {"nbytes": len(payload), **facts, "fps": facts["fps"] or 24.0}
    return SampleInfo.from_json(values)


def readers_of(
    decoders: Sequence[str], shape: tuple[int, int, int], payload: bytes, pool: DecoderPool
) -> dict[str, Callable[[], object]]:
    """Return what to time, by name."""

    def by(decoder: Decoder) -> Callable[[], object]:
        return lambda: decoder.decode(payload, shape)

    num_frames, height, width = shape
    facts = {"num_frames": num_frames, "height": height, "width": width, "fps": 24.0}
    info = clip_info(facts, payload)
    found: dict[str, Callable[[], object]] = {name: by(make_decoder(name)) for name in decoders}
    found[BEFORE] = lambda: frame_by_frame(payload)
    found[POOL] = lambda: pool.submit(info, payload).result()
    return found


def speed_table(decoders: Sequence[str]) -> str:
    """Return a Markdown table of frames/s, the median over rounds in which the decoders alternate.

    In brackets the best round. One thread each; the pool's row is one worker and its transfer.
    """
    if "torchcodec" in decoders:
        import torch

        torch.set_num_threads(1)
    DecordDecoder().decode(encode_h264(texture(2, 64, 64), 24.0))  # the imports
    columns: list[dict[str, str]] = []
    with DecoderPool(1, 60.0) as pool:
        for shape in SHAPES:
            payload = encode_h264(texture(*shape), 24.0)
            readers = readers_of(decoders, shape, payload, pool)
            seconds: dict[str, list[float]] = {name: [] for name in readers}
            for _ in range(ROUNDS[shape[1]]):
                for name, read in readers.items():
                    started = time.perf_counter()
                    read()
                    seconds[name].append(time.perf_counter() - started)
            columns.append(
                {
                    name: f"{shape[0] / median(taken):,.0f} ({shape[0] / min(taken):,.0f})"
                    for name, taken in seconds.items()
                }
            )
    head = ["frames/s, median (best)", *(f"{w}x{h}" for _, h, w in SHAPES)]
    lines = [head, ["---"] * len(head)]
    lines += [[name, *(column[name] for column in columns)] for name in columns[0]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
