"""How well the compression network keeps held-out clips, beside plain downsampling and a wavelet.

usage: python -m benchmarks.vae [codec.path=FOLDER] [data.root=DATASET] [key=value ...]
       python -m benchmarks.vae part=memory [frames=57] [height=1080 width=1920]
       python -m benchmarks.vae part=speed

The table has means over clips with 95 % bootstrap intervals. ``plain`` is the best of several
space-time downsamplings for each clip (means over boxes; bicubic in space, linear or held in time)
with at least as many values as the network; the gain is paired, clip by clip. ``part=memory`` codes
a synthetic clip frame by frame and prints the process's peak memory as the clip grows.
"""

import resource
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from data.config import DataConfig
from data.loading.batch import Sample
from data.loading.loader import load_fixed
from models.codec.codec import VaeCodec
from models.codec.wavelet import WaveletCodec
from models.config import CodecConfig, CodecKind
from trainer.codec.build import load_codec
from trainer.codec.files import fill
from trainer.compose import parse_as
from trainer.vae.measure import Quality, best_plain, codec_coder, interval, judge, summary


class Part(StrEnum):
    """What to measure."""

    quality = "quality"
    memory = "memory"
    speed = "speed"


@dataclass
class BenchConfig:
    """What the command takes."""

    part: Annotated[Part, Doc("What to measure.")] = Part.quality
    codec: CodecConfig = field(
        default_factory=lambda: CodecConfig(kind=CodecKind.vae, path="weights/vae_tiny")
    )
    data: DataConfig = field(default_factory=lambda: DataConfig(root="datasets/demo/video"))
    splits: Annotated[list[str], Doc("Splits to measure.")] = field(
        default_factory=lambda: ["val_worlds", "val_real"]
    )
    samples: Annotated[
        int, Ge(0), Doc("Clips a split, in a fixed stratified order; 0 for all.")
    ] = 0
    frames: Annotated[int, Ge(1), Doc("Frames of the synthetic clip of part=memory.")] = 57
    height: Annotated[int, Ge(1), Doc("Its pixels from top to bottom.")] = 1080
    width: Annotated[int, Ge(1), Doc("Its pixels from left to right.")] = 1920


Rows = dict[str, list[Quality]]


def main(argv: list[str]) -> int:
    """Parse the command line and print the tables."""
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0
    torch.set_num_threads(1)
    try:
        config = parse_as(BenchConfig, argv)
        fill(config.codec)
        codec = load_codec(config.codec)
        if config.part is Part.quality:
            print_quality(config, codec)
        elif isinstance(codec, VaeCodec):
            (print_memory if config.part is Part.memory else print_speed)(config, codec)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def print_quality(config: BenchConfig, codec: object) -> None:
    """Print one table of coders a split, and one of the network by source and size."""
    for split in config.splits:
        samples = load_fixed(config.data, split, config.samples)
        rows = judge_split(codec, samples)
        print(f"\n### {split}: {len(samples)} clips\n")
        print("| coder | values per pixel | PSNR, dB | SSIM | flicker, grey levels |")
        print("|---|---|---|---|---|")
        for name, found in rows.items():
            rate = summary(found)["values_per_pixel"]
            cells = [cell([getattr(q, key) for q in found]) for key in ("psnr", "ssim", "flicker")]
            print(f"| {name} | {rate:.4f} | " + " | ".join(cells) + " |")
        ours, plain = rows["network"], rows["plain"]
        for key, unit in (("psnr", "dB"), ("ssim", ""), ("flicker", "grey levels")):
            gains = [getattr(a, key) - getattr(b, key) for a, b in zip(ours, plain, strict=True)]
            better = sum((g < 0) if key == "flicker" else (g > 0) for g in gains if g == g)
            total = sum(g == g for g in gains)
            print(f"\nnetwork - plain, {key}: {cell(gains)} {unit}, better on {better} of {total}")
        print_groups(samples, ours, plain)


def judge_split(codec: object, samples: list[Sample]) -> Rows:
    """Return every coder's qualities on the clips."""
    network = codec_coder(codec)  # type: ignore[arg-type]
    wavelet = codec_coder(WaveletCodec(CodecConfig()))
    rows: Rows = {"network": [], "plain": [], "wavelet, 6 channels": []}
    for sample in samples:
        assert sample.frames is not None
        ours = judge(network, sample.frames)
        rows["network"].append(ours)
        rows["plain"].append(best_plain(sample.frames, ours.values)[1])
        rows["wavelet, 6 channels"].append(judge(wavelet, sample.frames))
    return rows


def print_groups(samples: list[Sample], ours: list[Quality], plain: list[Quality]) -> None:
    """Print the network's PSNR and its gain by source and by size."""
    for title, name_of in (("source", source_of), ("frames and area", size_of)):
        groups: dict[str, list[int]] = {}
        for i, sample in enumerate(samples):
            groups.setdefault(name_of(sample), []).append(i)
        print(f"\n| {title} | clips | network, dB | gain over plain, dB |")
        print("|---|---|---|---|")
        for name, members in sorted(groups.items()):
            psnr = [ours[i].psnr for i in members]
            gain = [ours[i].psnr - plain[i].psnr for i in members]
            print(f"| {name} | {len(members)} | {cell(psnr)} | {cell(gain)} |")


def source_of(sample: Sample) -> str:
    """Return the world of a rendered clip, the file of a real one."""
    source = sample.info.source
    return source.split("/")[0] if sample.info.rendered else source.split("/")[-1]


def size_of(sample: Sample) -> str:
    """Return a clip's length and how large its frames are."""
    info = sample.info
    area = "under 10k pixels" if info.height * info.width < 10_000 else "10k pixels and more"
    return f"{info.num_frames} frames, {area}"


def cell(values: list[float]) -> str:
    """Return mean and 95 % interval."""
    mean, low, high = interval(values)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def print_memory(config: BenchConfig, codec: VaeCodec) -> None:
    """Code a clip that is made frame by frame; print peak memory after every few frames."""
    height, width = config.height, config.width
    print(f"before: {peak_bytes() / 1e6:.0f} MB")
    started, seen = time.monotonic(), 0
    stride = config.codec.stride[0]
    print("| frames | peak memory, MB | seconds |\n|---|---|---|")
    latents = codec.encode_chunks(moving(config.frames, height, width))
    for frames in codec.decode_chunks(latents, height, width):
        assert frames.shape[1:] == (height, width, 3)
        seen += len(frames)
        if (seen - 1) % (2 * stride) == 0 or seen == config.frames:
            seconds = time.monotonic() - started
            print(f"| {seen} | {peak_bytes() / 1e6:.0f} | {seconds:.1f} |", flush=True)
    assert seen == config.frames
    closed = codec.memory_bytes(height, width)
    print(f"\nkept between chunks, by closed form: {closed / 1e6:.0f} MB whatever the length")


def moving(num_frames: int, height: int, width: int) -> Iterator[Tensor]:
    """Yield frames of drifting gradients and noise, one at a time."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(height).view(-1, 1, 1) / 97
    columns = torch.arange(width).view(1, -1, 1) / 131
    phase = torch.tensor([0.0, 0.7, 1.9])
    for i in range(num_frames):
        plane = 128 + 80 * torch.sin(rows + i / 9 + phase) * torch.cos(columns - i / 7)
        noise = torch.randint(0, 24, (height, width, 1), generator=generator)
        yield (plane + noise).clamp(0, 255).to(torch.uint8)[None]


def peak_bytes() -> int:
    """Return the largest resident memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def print_speed(config: BenchConfig, codec: VaeCodec) -> None:
    """Print the CPU time of a 17x64x112 clip on one thread."""
    clip = torch.cat(list(moving(17, 64, 112)))
    latent = codec.encode(clip)
    for name, work in (
        ("encode", lambda: codec.encode(clip)),
        ("decode", lambda: codec.decode(latent, 64, 112)),
    ):
        seconds = []
        for _ in range(40):
            started = time.process_time()  # not the clock: others may use the machine
            work()
            seconds.append(time.process_time() - started)
        middle, best = statistics.median(seconds), min(seconds)
        print(f"{name} 17x64x112: {middle * 1e3:.1f} ms median, {best * 1e3:.1f} ms best of 40")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
