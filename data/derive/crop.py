"""Crop a dataset as most public stacks do: ``kinescale crop root=DATASET out=FOLDER``.

Every clip keeps its key, captions and truth, but only the square in the middle of its frames. It
exists for studies of what cropping costs (native training never crops); boxes, shares and fields of
view of the truth are those of the crop. It may be interrupted and started again.
"""

import copy
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from typing_extensions import Doc

from data.command_line import parse
from data.config import Count, IngestConfig, Rate
from data.dataset.sample import SampleInfo
from data.dataset.shards import read_index, read_payload, read_truth
from data.dataset.tar_writer import LOCATIONS
from data.decode.decoders import decode_by_first
from data.engine.parts import build_dataset
from data.engine.source import Notes, Sample, Source
from data.media.h264 import encode_h264, encode_png
from data.media.probe import Reject
from data.shell import command
from data.show.progress import Progress
from data.words import counted
from data.worlds.render.view import share_inside
from data.worlds.truth import check_truth, rounded

CLIPS_PER_PART = 200
DECODERS = {"video": ("decord", "pyav"), "image": ("pillow",)}


@dataclass
class CropConfig:
    """What ``kinescale crop`` makes: the largest even square in the middle of each frame."""

    root: Annotated[str, Doc("Dataset of clips to read; all its splits are cropped.")] = ""
    out: Annotated[str, Doc("Dataset folder to write.")] = ""
    overwrite: Annotated[
        bool, Doc("Replace a finished dataset that was made from other inputs or settings.")
    ] = False
    num_workers: Annotated[Count, Doc("Child processes.")] = 2
    crf: Annotated[Rate, Doc("H.264 constant rate factor of the crops; 0 is lossless.")] = 12
    preset: Annotated[str, Doc("Preset of x264.")] = "superfast"


@dataclass(frozen=True)
class Window:
    """The part of a frame that a crop keeps, in pixels of the native frame."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class CropPart:
    """Consecutive clips of one split."""

    root: str
    split: str
    start: int
    infos: tuple[SampleInfo, ...]

    @property
    def name(self) -> str:
        """Name the part by its place in the split."""
        return f"{self.split}/{self.start:07d}+{len(self.infos)}"

    @property
    def weight(self) -> float:
        """Expected work: the pixels to read."""
        return sum(i.num_frames * i.height * i.width for i in self.infos) / 1e6

    def samples(self, config: IngestConfig, notes: Notes) -> Iterator[Sample]:
        """Decode, crop and encode the clips."""
        for info in self.infos:
            yield crop_sample(self.root, self.split, info, config)


def square_window(height: int, width: int) -> Window:
    """Return the largest square of even side in the middle of a frame.

    Where the margin is odd, the extra pixel lies right or below.
    """
    side = min(height, width) // 2 * 2
    return Window((height - side) // 2, (width - side) // 2, side, side)


def crop_sample(root: str, split: str, info: SampleInfo, config: IngestConfig) -> Sample:
    """Read one sample and return its crop. Raises Reject where it cannot be decoded."""
    if info.media not in DECODERS:
        remedy = "Crop the clips that it was encoded from."
        raise Reject(f"{info.key} is a {info.media}, which cannot be cropped", remedy)
    payload = read_payload(root, split, info)
    frames, _, reasons = decode_by_first(payload, DECODERS[info.media], info.payload_shape)
    if frames is None:
        raise Reject(f"{info.key}: {'; '.join(reasons)}", "Ingest the dataset again.")
    window = square_window(info.height, info.width)
    kept = frames[: info.num_frames, window.top :, window.left :][
        :, : window.height, : window.width
    ]
    made_anew = (*LOCATIONS, "sha256", "payload_frames")
    meta = {k: v for k, v in info.to_json().items() if k not in made_anew}
    meta |= {"height": window.height, "width": window.width}
    meta["original"] = info.original | {"crop": dataclasses.asdict(window)}
    truth = read_truth(root, split, info)
    if truth is not None:
        truth = crop_truth(truth, window, info.height, info.width)
    if info.media == "image":
        return Sample(meta, encode_png(kept[0]), "png", truth)
    return Sample(meta, encode_h264(kept, info.fps, config.crf, config.preset), "mp4", truth)


def crop_truth(
    truth: dict[str, Any], window: Window, native_height: int, native_width: int
) -> dict[str, Any]:
    """Return a truth as the crop shows it.

    Boxes move, ``in_frame`` is worked out anew, and fields of view narrow: exact for a window in
    the middle. ``visible`` stays the share that nothing hid in the native frame, 0 where the crop
    shows none of the object; poses, positions and events are of the world and stay.
    """
    cropped = copy.deepcopy(truth)
    camera = cropped["camera"]
    if camera["fov_degrees"] is not None:
        shares = (window.width / native_width, window.height / native_height)
        camera["fov_degrees"] = [
            2 * math.degrees(math.atan(math.tan(math.radians(fov) / 2) * share))
            for fov, share in zip(camera["fov_degrees"], shares, strict=True)
        ]
    for track in cropped["objects"]:
        for index, box in enumerate(track["boxes"]):
            if box is None:
                continue
            left, top = window.left, window.top
            moved = [box[0] - left, box[1] - top, box[2] - left, box[3] - top]
            track["boxes"][index] = moved
            track["in_frame"][index] = share_inside(moved, window.height, window.width)
            if not track["in_frame"][index]:
                track["visible"][index] = 0.0
    values: dict[str, Any] = rounded(cropped)
    check_truth(values)
    return values


def crop_dataset(config: CropConfig, console: Console) -> dict[str, Any]:
    """Crop every split of ``config.root`` into ``config.out``; return the manifest."""
    if not config.root or not config.out or Path(config.root) == Path(config.out):
        raise ValueError(
            f"root={config.root}, out={config.out}: must be two folders. "
            "Use root=datasets/framing/video out=datasets/framing_square/video."
        )
    splits = sorted(path.parent.name for path in Path(config.root).glob("*/index.jsonl"))
    if not splits:
        raise ValueError(f"root={config.root}: holds no split. Give a dataset of clips.")
    parts: list[Source] = []
    for split in splits:
        infos = read_index(config.root, split)
        parts += [
            CropPart(config.root, split, start, tuple(infos[start : start + CLIPS_PER_PART]))
            for start in range(0, len(infos), CLIPS_PER_PART)
        ]
    settings = IngestConfig(
        output=config.out,
        overwrite=config.overwrite,
        num_workers=config.num_workers,
        crf=config.crf,
        preset=config.preset,
        timeout_seconds=600.0,
    )
    with Progress("crop", console) as progress:
        extra = {"maker": "data.derive.crop", "cropped_from": config.root}
        return build_dataset(
            Path(config.out), parts, settings, Notes(), progress.update, extra=extra
        )


@command(__doc__, keys=CropConfig, kept="finished parts are kept; run the same command again")
def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    console = Console()
    config = parse(CropConfig, arguments)
    manifest = crop_dataset(config, console)
    for split, account in manifest["splits"].items():
        share = account["downscale"]["kept_pixels"] / max(account["downscale"]["source_pixels"], 1)
        text = (
            f"{split}: {counted(account['samples'], 'clip')}, {share:.1%} of the native pixels kept"
        )
        console.print(text, highlight=False)
    for note in manifest["rejects"]:
        console.print(f"left out: {note['file']}: {note['reason']}", markup=False, highlight=False)
    console.print(f"dataset: {config.out}", highlight=False)
    return 0


if __name__ == "__main__":
    main.run()
