"""Which worlds are filmed for a dataset: seeds and maps, no world in two splits."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data.config import DemoConfig, IngestConfig
from data.h264 import encode_h264
from data.parts import Notes, Sample
from data.worlds.clip import Clip

# Raise it when a change to the worlds changes pixels or captions: finished datasets then rebuild.
RECIPE = 3
ROOMS_PER_PART = 50
TAKES = 2
VAL_MAPS = 8
# Rooms of the validation split start here; training never has as many maps.
VAL_SEED = 500_000
SEEDS_PER_RUN = 1_000_000
LENGTHS = (17,) * 12 + (13,) * 3 + (9,) * 3 + (5,) * 2
# A first-person frame costs at least 80 tokens, so most of its clips are short.
DOOM_LENGTHS = (17,) * 2 + (13,) * 3 + (9,) * 7 + (5,) * 8
FPS = (8.0, 12.0, 15.0, 24.0)
# (height, width): landscape, portrait, square; 72x128, 104x80 and 120x80 are off the 16-pixel grid.
# decord 0.6 returns wrong sizes for widths such as 72, so widths stay multiples of 16.
# Small frames give many clips a FLOP: 17 frames cost 120 to 245 tokens.
SIZES = (
    *((64, 112),) * 2,
    *((112, 64),) * 2,
    (80, 128),
    (128, 80),
    *((96, 96),) * 2,
    (64, 96),
    (96, 64),
    (72, 128),
    (104, 80),
    (120, 80),
    (112, 112),
)
SHORT_SIZES = {
    9: (*SIZES, (112, 192), (192, 112), (128, 128)),
    5: (*SIZES, (144, 256), (256, 144), (160, 160), (176, 112)),
}
DOOM_WIDE = ((144, 256), (160, 256))


def clip_sample(clip: Clip, config: IngestConfig, licence: str) -> Sample:
    """Encode a rendered clip as a sample."""
    num_frames, height, width, _ = clip.frames.shape
    meta = {
        "key": clip.key,
        "media": "video",
        "num_frames": num_frames,
        "height": height,
        "width": width,
        "fps": clip.fps,
        "duration_seconds": num_frames / clip.fps,
        "caption": clip.caption,
        "source": clip.source,
        "licence": licence,
        "rendered": True,
        "original": {
            "num_frames": num_frames,
            "height": height,
            "width": width,
            "start_seconds": 0.0,
            "scale": 1.0,
        },
    }
    return Sample(meta, encode_h264(clip.frames, clip.fps, config.crf, config.preset), "mp4")


@dataclass(frozen=True)
class RoomsPart:
    """Clips of consecutive room seeds, ``takes`` of each."""

    split: str
    first_seed: int
    num_clips: int
    takes: int = TAKES
    recipe: int = RECIPE

    @property
    def name(self) -> str:
        """Name the part by its seeds."""
        return f"rooms/{self.first_seed:07d}+{self.num_clips}"

    @property
    def weight(self) -> float:
        """Expected seconds."""
        return 0.045 * self.num_clips

    def samples(self, config: IngestConfig, notes: Notes) -> Iterator[Sample]:
        """Render and encode the clips."""
        from data.worlds.rooms import film

        for number in range(self.num_clips):
            seed, take = self.first_seed + number // self.takes, number % self.takes
            rng = np.random.default_rng([0x512E, seed, take])
            length = int(rng.choice(LENGTHS))
            height, width = rng.choice(SHORT_SIZES.get(length, SIZES)).tolist()
            clip = film(seed, take, length, height, width, float(rng.choice(FPS)))
            yield clip_sample(clip, config, "rendered here, free of rights")


@dataclass(frozen=True)
class DoomPart:
    """Clips of one walk through one map, at one frame size."""

    split: str
    wad: str
    map_name: str
    seed: int
    num_clips: int
    height: int
    width: int
    recipe: int = RECIPE

    @property
    def name(self) -> str:
        """Name the part by its walk."""
        return f"doom/{self.wad}-{self.map_name}-{self.height}x{self.width}-{self.seed}"

    @property
    def weight(self) -> float:
        """Expected seconds."""
        return 0.5 + 0.07 * self.num_clips

    def samples(self, config: IngestConfig, notes: Notes) -> Iterator[Sample]:
        """Play, film and encode the clips."""
        from data.worlds.doom import film

        rng = np.random.default_rng([0xF11, self.seed, *self.map_name.encode()])
        wide = (self.height, self.width) in DOOM_WIDE
        plan = [
            (5 if wide else int(rng.choice(DOOM_LENGTHS)), int(rng.integers(2, 5)))
            for _ in range(self.num_clips)
        ]
        count = 0
        for clip in film(self.wad, self.map_name, self.seed, plan, self.height, self.width):
            count += 1
            yield clip_sample(clip, config, "Freedoom, BSD-3-Clause; rendered here")
        if count < self.num_clips:
            notes.warnings.append(
                f"{self.name}: {count} of {self.num_clips} clips; views were dark or blocked"
            )


def plan_rooms(split: str, first_seed: int, num_clips: int, takes: int) -> list[RoomsPart]:
    """Deal room clips into parts of consecutive seeds."""
    size = ROOMS_PER_PART
    return [
        RoomsPart(split, first_seed + start // takes, min(size, num_clips - start), takes)
        for start in range(0, num_clips, size)
    ]


def plan_doom(split: str, maps: list[tuple[str, str]], seed: int, num_clips: int) -> list[DoomPart]:
    """Deal clips over maps: most at 120x160, about a quarter wide."""
    parts: list[DoomPart] = []
    for number, (wad, map_name) in enumerate(maps):
        share = num_clips * (number + 1) // len(maps) - num_clips * number // len(maps)
        wide = share // 4
        height, width = DOOM_WIDE[number % len(DOOM_WIDE)]
        for count, size in ((share - wide, (120, 160)), (wide, (height, width))):
            if count:
                parts.append(DoomPart(split, wad, map_name, seed, count, *size))
    return parts


def plan_worlds(config: DemoConfig, num_train: int, num_val: int) -> list[RoomsPart | DoomPart]:
    """Plan the rendered clips of train and val_worlds: other seeds and other maps in each."""
    from data.worlds.doom import map_names

    maps = map_names()
    order = np.random.default_rng([0x3A9, config.seed]).permutation(len(maps)).tolist()
    held_out = [maps[i] for i in order[:VAL_MAPS]]
    doom_train, doom_val = (round(n * config.doom_share) for n in (num_train, num_val))
    # A walk costs half a second to start: small sets visit fewer maps.
    others = [maps[i] for i in order[VAL_MAPS:]][: max(1, doom_train // 10)]
    first = config.seed * SEEDS_PER_RUN
    return [
        *plan_doom("train", others, config.seed, doom_train),
        *plan_rooms("train", first, num_train - doom_train, TAKES),
        *plan_doom("val_worlds", held_out[: max(1, doom_val // 3)], config.seed, doom_val),
        *plan_rooms("val_worlds", first + VAL_SEED, num_val - doom_val, 1),
    ]
