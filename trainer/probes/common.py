"""What probes of drawn clips share: their command line, clips with truth, and the codec's blur.

A probe learns on clips whose truth is known, is checked on held-out ones, and then measures clips
that a model drew. All of them have been through the codec, so that its blur is the same for all.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import UInt8
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from typing_extensions import Doc

from data.bounds import check_bounds
from data.command_line import read_json
from data.dataset.sample import SampleInfo
from data.dataset.shards import read_index, read_truth
from data.decode.decoders import decode_by_first
from data.files import write_json
from data.loading.batch import Sample
from data.loading.loader import SampleReader, fixed_order
from data.words import counted
from models.codec.codec import Codec
from trainer.codec.build import load_codec
from trainer.config import RunConfig, load_run
from trainer.parallel.mesh import device_of

Frames = UInt8[np.ndarray, "F H W 3"]
_BATCH = 32


@dataclass
class ProbeConfig:
    """What every probe is told."""

    run: Annotated[str, Doc("A run whose codec the clips went through.")] = ""
    clips: Annotated[
        str,
        Doc(
            "JSON list of {file, key}, a drawn clip and the key of the held-out clip that "
            "its prompt describes."
        ),
    ] = ""
    root: Annotated[str, Doc("Data set where those keys lie.")] = ""
    split: Annotated[str, Doc("Its split.")] = "val_worlds"
    train_root: Annotated[str, Doc("Data set that the probe learns from; empty means root.")] = ""
    train_split: Annotated[str, Doc("Split of it.")] = "train"
    train_clips: Annotated[int, Ge(0), Doc("Clips that the probe learns from; 0 takes all.")] = 400
    check_clips: Annotated[
        int, Ge(0), Doc("Held-out clips that it is checked on; 0 takes all.")
    ] = 200
    out: Annotated[str, Doc("JSON file to write.")] = ""

    def check(self) -> None:
        """Raise ValueError on values that are missing."""
        for key in ("run", "clips", "root", "out"):
            if not getattr(self, key):
                raise ValueError(f"{key}=: must be given. See --help.")


@dataclass(frozen=True)
class Known:
    """A clip whose truth is known, as it comes out of the codec."""

    info: SampleInfo
    frames: Frames
    truth: dict[str, Any]


class ClipSource:
    """Read clips with truth, and put frames through the codec of a run."""

    def __init__(self, run: RunConfig) -> None:
        self._run = run
        self._codec: Codec = load_codec(run.codec, device_of(run.parallel.device))

    def through_codec(self, frames: Frames) -> Frames:
        """Return frames as the codec gives them back."""
        with torch.no_grad():
            latent = self._codec.encode(torch.from_numpy(np.ascontiguousarray(frames)))
            return self._codec.decode(latent, *frames.shape[1:3]).numpy()

    def read(self, root: str, split: str, count: int) -> Iterator[tuple[SampleInfo, Frames, dict]]:
        """Yield moving clips with truth and their stored frames, ``count`` of a stratified order.

        Raises ValueError where none has a truth.
        """
        infos = [i for i in fixed_order(read_index(root, split)) if i.truth_nbytes]
        infos = [i for i in infos if i.num_frames > 1 and i.media == "video"][: count or None]
        if not infos:
            raise ValueError(
                f"root={root}: {split} holds no moving clips with truth. Use those that "
                "kinescale worlds films, not their latents."
            )
        reader = SampleReader(replace(self._run.data, root=root), split, infos)
        try:
            for start in range(0, len(infos), _BATCH):
                batch = infos[start : start + _BATCH]
                for found in reader.read([(info, 0) for info in batch]):
                    if not isinstance(found, Sample):
                        raise found
                    assert found.frames is not None
                    truth = read_truth(root, split, found.info)
                    assert truth is not None
                    yield found.info, found.frames.numpy(), truth
        finally:
            reader.close()

    def known(self, root: str, split: str, count: int) -> list[Known]:
        """Return clips as they come out of the codec, with their truth."""
        return [
            Known(info, self.through_codec(frames), truth)
            for info, frames, truth in self.read(root, split, count)
        ]


def read_clip(path: str) -> Frames:
    """Return the frames of a clip that ``trainer.generate`` wrote."""
    payload = Path(path).read_bytes()
    frames, _, reasons = decode_by_first(payload, ("pyav",), None)
    if frames is None:
        raise ValueError(f"{path}: {'; '.join(reasons)}. Draw it again.")
    return frames


def truths_of(root: str, split: str, keys: set[str]) -> dict[str, dict[str, Any]]:
    """Return the truths of some clips by key. Raises ValueError where one is missing."""
    found = {}
    for info in read_index(root, split):
        if info.key in keys and (truth := read_truth(root, split, info)) is not None:
            found[info.key] = truth
    if missing := keys - set(found):
        raise ValueError(f"clips: {sorted(missing)[0]!r} has no truth in {root}/{split}.")
    return found


def run_probe(
    argv: list[str],
    measure: Callable[[ProbeConfig, ClipSource, list[dict[str, str]]], dict[str, Any]],
) -> int:
    """Parse a probe's command line, measure and write; return the exit status."""
    config = _parse(argv)
    clips = read_json(Path(config.clips), "clips")
    result = measure(config, ClipSource(load_run(Path(config.run))), clips)
    Path(config.out).parent.mkdir(parents=True, exist_ok=True)
    write_json(Path(config.out), result)
    for row in result["quality"]:
        print(
            f"{row['measure']}, {row['what']}: {row['value']:.3f} ({counted(row['clips'], 'clip')})"
        )
    return 0


def _parse(argv: list[str]) -> ProbeConfig:
    try:
        given = OmegaConf.from_dotlist(argv)
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ProbeConfig), given))
    except OmegaConfBaseException as error:
        known = ", ".join(ProbeConfig.__dataclass_fields__)
        reason = str(error).splitlines()[0]
        raise ValueError(f"{error.full_key}: {reason}. Keys: {known}.") from error
    assert isinstance(config, ProbeConfig)
    check_bounds(config)
    config.check()
    return config
