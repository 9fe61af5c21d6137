"""Real clips made on the spot: short H.264 and AV1 files, images, and latents in shards."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from data.dataset.sample import SampleInfo
from data.dataset.shards import ShardWriter


def paint(num_frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return a smooth moving gradient (F, H, W, 3) uint8 that compresses well."""
    f, h, w = np.meshgrid(*map(np.arange, (num_frames, height, width)), indexing="ij")
    planes = [(h * 3 + f * 9 + seed * 31), (w * 2 + f * 5), (h + w + f * 7 + seed)]
    return np.stack([p % 256 for p in planes], -1).astype(np.uint8)


def encode(frames: np.ndarray, codec: str = "libx264", fps: int = 24) -> bytes:
    """Return an mp4 of the frames, closed GOP and no B-frames, as ingest writes them."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "18", "preset": "veryfast", "bf": "0"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def png(frames: np.ndarray) -> bytes:
    """Return the first frame as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(frames[0]).save(buffer, "PNG")
    return buffer.getvalue()


def add(
    tar: tarfile.TarFile,
    name: str,
    data: bytes = b"",
    kind: bytes = tarfile.REGTYPE,
    link: str = "",
) -> None:
    """Append a member of any kind to a tar."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.type, entry.linkname = len(data), kind, link
    tar.addfile(entry, io.BytesIO(data))


def meta(key: str, media: str, shape: tuple[int, ...], **more: object) -> dict:
    """Return valid metadata of a sample of (F, H, W) source pixels."""
    num_frames, height, width = shape
    values = {
        "key": key,
        "media": media,
        "num_frames": num_frames,
        "height": height,
        "width": width,
        "fps": 24.0,
        "duration_seconds": num_frames / 24,
        "caption": f"a gradient, {key}",
        "source": "painted",
        "licence": "CC0-1.0",
        "rendered": False,
        "original": {"num_frames": num_frames, "height": height, "width": width},
    }
    return values | more


def info_of(key: str, media: str, shape: tuple[int, ...], **more: object) -> SampleInfo:
    """Return a SampleInfo without bytes behind it, for planning."""
    located = {"sha256": "0" * 64, "shard": "shard-000000.tar", "offset": 0, "nbytes": 1}
    return SampleInfo.from_json(meta(key, media, shape, **located | more))


CLIP_SHAPES = [(5, 48, 64), (9, 64, 36), (17, 32, 32), (5, 36, 50), (1, 40, 56), (1, 64, 32)]


@pytest.fixture(scope="session")
def clip_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a dataset of 18 real clips and images of six shapes in several shards."""
    root = tmp_path_factory.mktemp("clips")
    with ShardWriter(root, "train", 20_000) as writer:
        for i in range(18):
            shape = CLIP_SHAPES[i % len(CLIP_SHAPES)]
            frames = paint(*shape, seed=i)
            if shape[0] == 1:
                writer.write(meta(f"image-{i:03d}", "image", shape, source="b"), png(frames), "png")
            else:
                made = meta(f"clip-{i:03d}", "video", shape, rendered=i % 2 == 0)
                writer.write(made, encode(frames), "mp4")
    return root


@pytest.fixture(scope="session")
def latent_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a dataset of 200 latents (48, F', H', W') with captions (L, 32)."""
    root = tmp_path_factory.mktemp("latents")
    rng = np.random.default_rng(0)
    with ShardWriter(root, "train", 4_000_000) as writer:
        for i in range(200):
            f, h, w = int(rng.integers(1, 6)), int(rng.integers(4, 11)), int(rng.integers(4, 11))
            tensors = {
                "latent": torch.full((48, f, h, w), float(i)),
                "caption": torch.full((3 + i % 5, 32), float(i)),
            }
            made = meta(
                f"latent-{i:03d}",
                "latent",
                (1 + 4 * (f - 1), 16 * h - i % 3, 16 * w),
                caption_tokens=3 + i % 5,
                rendered=i % 4 == 0,
            )
            writer.write(made, save(tensors), "safetensors")
    return root


@pytest.fixture
def rewrite() -> Callable[[Path, int, bytes], None]:
    """Give a function that overwrites bytes of a file in place."""

    def apply(path: Path, offset: int, data: bytes) -> None:
        path.chmod(0o644)
        with open(path, "r+b") as stream:
            stream.seek(offset)
            stream.write(data)

    return apply
