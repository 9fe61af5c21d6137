"""The same clips smaller or shorter: ``kinescale reshape root=DATASET out=FOLDER scale=0.5``.

For studies of what the size and length of clips do to a law: every clip keeps its key and captions,
its frames are scaled down by one factor and cut to their first ones, so that data sets of several
shapes show the same scenes. Truth, which is of the native frames, is left out. It may be
interrupted and started again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from annotated_types import Ge, Gt, Le
from rich.console import Console
from typing_extensions import Doc

from data.command_line import parse
from data.config import Count, IngestConfig, Rate
from data.dataset.sample import SampleInfo
from data.dataset.shards import read_index, read_payload
from data.dataset.tar_writer import LOCATIONS
from data.decode.decoders import decode_by_first
from data.engine.parts import build_dataset
from data.engine.source import Notes, Sample, Source
from data.loading.mixture import limited
from data.media.h264 import encode_exact, encode_h264
from data.media.probe import Reject
from data.shell import command
from data.show.progress import Progress
from data.words import counted

CLIPS_PER_PART = 200


@dataclass
class ReshapeConfig:
    """What ``kinescale reshape`` makes."""

    root: Annotated[str, Doc("Dataset of clips to read.")] = ""
    out: Annotated[str, Doc("Dataset folder to write.")] = ""
    scale: Annotated[float, Gt(0), Le(1), Doc("Factor of height and width; sides become even.")] = (
        1.0
    )
    frames: Annotated[int, Ge(0), Doc("First frames that stay, 1 + k * 4; 0 keeps all.")] = 0
    min_frames: Annotated[
        Count,
        Doc("Clips with fewer native frames, and images, are left out of all splits."),
    ] = 2
    limit: Annotated[
        float,
        Ge(0),
        Doc("Clips of the split train, or below 1 their share, as data.limit; 0 takes all."),
    ] = 0.0
    overwrite: Annotated[
        bool, Doc("Replace a finished dataset that was made from other inputs or settings.")
    ] = False
    num_workers: Annotated[Count, Doc("Child processes.")] = 2
    crf: Annotated[
        Rate, Doc("H.264 constant rate factor; 0 is lossless, every pixel's colour too.")
    ] = 12
    preset: Annotated[str, Doc("Preset of x264.")] = "superfast"

    def check(self) -> None:
        """Raise ValueError on values that cannot be carried out."""
        if not self.root or not self.out or Path(self.root) == Path(self.out):
            raise ValueError(
                f"root={self.root}, out={self.out}: must be two folders. "
                "Use root=datasets/worlds/video out=datasets/small/video."
            )
        if self.frames and (self.frames - 1) % 4:
            raise ValueError(f"frames={self.frames}: must be 0 or 1 + k * 4. Use 5.")


@dataclass(frozen=True)
class ReshapePart:
    """Consecutive clips of one split, and what becomes of them."""

    root: str
    split: str
    start: int
    infos: tuple[SampleInfo, ...]
    scale: float
    frames: int

    @property
    def name(self) -> str:
        """Name the part by its place in the split and what it makes."""
        shape = f"{self.scale:g}x{self.frames}"
        return f"{self.split}/{self.start:07d}+{len(self.infos)}-{shape}"

    @property
    def weight(self) -> float:
        """Expected work: the pixels to read."""
        return sum(i.num_frames * i.height * i.width for i in self.infos) / 1e6

    def samples(self, config: IngestConfig, notes: Notes) -> Iterator[Sample]:
        """Decode, scale, cut and encode the clips."""
        for info in self.infos:
            yield self._reshaped(info, config)

    def _reshaped(self, info: SampleInfo, config: IngestConfig) -> Sample:
        shape = (info.num_frames, info.height, info.width)
        payload = read_payload(self.root, self.split, info)
        frames, _, reasons = decode_by_first(payload, ("decord", "pyav"), info.payload_shape)
        if frames is None:
            raise Reject(f"{info.key}: {'; '.join(reasons)}", "Ingest the dataset again.")
        kept = scaled(frames[: self.frames or info.num_frames], self.scale)
        count, height, width = kept.shape[:3]
        meta: dict[str, Any] = {
            k: v
            for k, v in info.to_json().items()
            if k not in (*LOCATIONS, "sha256", "payload_frames")
        }
        meta |= {"num_frames": count, "height": height, "width": width}
        meta["duration_seconds"] = info.duration_seconds * count / info.num_frames
        meta["shots"] = [frame for frame in info.shots if frame < count]
        scale = self.scale * info.original.get("scale", 1.0)
        meta["original"] = info.original | {"reshaped_from": list(shape), "scale": scale}
        return Sample(meta, stored(kept, info.fps, config), "mp4", None)


def stored(frames: np.ndarray, fps: float, config: IngestConfig) -> bytes:
    """Encode frames; without loss, colours of every pixel included, where the rate factor is 0."""
    if config.crf == 0:
        return encode_exact(frames, fps)
    return encode_h264(frames, fps, config.crf, config.preset)


def scaled(frames: np.ndarray, scale: float) -> np.ndarray:
    """Return frames (F, H, W, 3) with sides scaled to the nearest even number of pixels."""
    height, width = (max(2, round(side * scale / 2) * 2) for side in frames.shape[1:3])
    if (height, width) == frames.shape[1:3]:
        return frames
    return np.stack([cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in frames])


def reshape_dataset(config: ReshapeConfig, console: Console) -> dict[str, Any]:
    """Reshape every split of ``config.root`` into ``config.out``; return the manifest."""
    config.check()
    splits = sorted(path.parent.name for path in Path(config.root).glob("*/index.jsonl"))
    if not splits:
        raise ValueError(f"root={config.root}: holds no split. Give a dataset of clips.")
    parts: list[Source] = []
    least = max(config.min_frames, config.frames, 2)
    for split in splits:
        infos = read_index(config.root, split)
        infos = [i for i in infos if i.media == "video" and i.num_frames >= least]
        infos = list(limited(infos, config.limit)) if split == "train" else infos
        parts += [
            ReshapePart(
                config.root, split, start, tuple(infos[start : start + CLIPS_PER_PART]),
                config.scale, config.frames,
            )
            for start in range(0, len(infos), CLIPS_PER_PART)
        ]  # fmt: skip
    settings = IngestConfig(
        output=config.out, overwrite=config.overwrite, num_workers=config.num_workers,
        crf=config.crf, preset=config.preset, timeout_seconds=600.0,
    )  # fmt: skip
    with Progress("reshape", console) as progress:
        extra = {"maker": "data.derive.reshape", "reshaped_from": config.root}
        return build_dataset(
            Path(config.out), parts, settings, Notes(), progress.update, extra=extra
        )


@command(__doc__, keys=ReshapeConfig, kept="finished parts are kept; run the same command again")
def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    console = Console()
    config = parse(ReshapeConfig, arguments)
    manifest = reshape_dataset(config, console)
    for split, account in manifest["splits"].items():
        console.print(f"{split}: {counted(account['samples'], 'clip')}", highlight=False)
    for note in manifest["rejects"]:
        console.print(f"left out: {note['file']}: {note['reason']}", markup=False, highlight=False)
    console.print(f"dataset: {config.out}", highlight=False)
    return 0


if __name__ == "__main__":
    main.run()
