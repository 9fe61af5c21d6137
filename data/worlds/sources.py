"""Parts of a dataset: each films some seeds or maps of one world in a child process."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data.config import IngestConfig
from data.engine.source import Notes, Sample
from data.media.h264 import encode_exact, encode_h264
from data.worlds.clip import Clip

# Raise it when a change to the worlds changes pixels or captions: finished datasets then rebuild.
RECIPE = 4
TAKES = 2
LENGTHS = (17,) * 12 + (13,) * 3 + (9,) * 3 + (5,) * 2
# A first-person frame costs at least 80 tokens, so most of its clips are short.
DOOM_LENGTHS = (17,) * 2 + (13,) * 3 + (9,) * 7 + (5,) * 8
FPS = (8.0, 12.0, 15.0, 24.0)
# Falls and rolls take a second or two.
PHYSICS_LENGTHS = (17,) * 14 + (13,) * 4 + (9,) * 2
PHYSICS_FPS = (8.0, 10.0, 12.0)
CRAFT_FPS = (8.0, 12.0)
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
# Few tokens a clip, since the study's models are tiny and train for minutes.
FRAMING_SIZES = ((48, 96), (48, 112), (96, 48), (112, 48))
FRAMING_LENGTHS = (9,) * 4 + (5,)
# Shares of clips with 1, 2 and 3 shots; short clips have one.
SHOT_SHARES = (0.85, 0.1, 0.05)
# Share of the rooms' clips that show the robot of the cut clips in one shot.
CHARACTER_SHARE = 0.12
RENDERED = "rendered here, free of rights"


def clip_sample(clip: Clip, config: IngestConfig, licence: str, exact: bool = False) -> Sample:
    """Encode a rendered clip as a sample; ``exact`` keeps every pixel."""
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
        "short_caption": clip.short_caption,
        "shots": clip.shots,
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
    payload = (
        encode_exact(clip.frames, clip.fps)
        if exact
        else encode_h264(clip.frames, clip.fps, config.crf, config.preset)
    )
    return Sample(meta, payload, "mp4", clip.truth)


def draw_size(rng: np.random.Generator, length: int) -> tuple[int, int]:
    """Draw a frame size; short clips may be large."""
    height, width = rng.choice(SHORT_SIZES.get(length, SIZES)).tolist()
    return int(height), int(width)


def draw_shots(rng: np.random.Generator, length: int) -> int:
    """Draw how many shots a clip has: every shot has at least four frames."""
    return min(int(rng.choice([1, 2, 3], p=SHOT_SHARES)), 1 + (length - 5) // 4)


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
        return 0.09 * self.num_clips

    def samples(self, config: IngestConfig, notes: Notes) -> Iterator[Sample]:
        """Render and encode the clips."""
        from data.worlds.rooms.film import film

        for number in range(self.num_clips):
            seed, take = self.first_seed + number // self.takes, number % self.takes
            rng = np.random.default_rng([0x512E, seed, take])
            length = int(rng.choice(LENGTHS))
            size = draw_size(rng, length)
            fps = float(rng.choice(FPS))
            num_shots = draw_shots(rng, length)
            character = bool(rng.random() < CHARACTER_SHARE)
            clip = film(seed, take, length, *size, fps, num_shots, character)
            yield clip_sample(clip, config, RENDERED)


@dataclass(frozen=True)
class PhysicsPart:
    """Clips of consecutive scene seeds, ``takes`` of each."""

    split: str
    first_seed: int
    num_clips: int
    takes: int = TAKES
    recipe: int = RECIPE

    @property
    def name(self) -> str:
        """Name the part by its seeds."""
        return f"physics/{self.first_seed:07d}+{self.num_clips}"

    @property
    def weight(self) -> float:
        """Expected seconds."""
        return 0.11 * self.num_clips

    def samples(self, config: IngestConfig, notes: Notes) -> Iterator[Sample]:
        """Simulate, render and encode the clips."""
        from data.worlds.physics.film import film

        for number in range(self.num_clips):
            seed, take = self.first_seed + number // self.takes, number % self.takes
            rng = np.random.default_rng([0x9417, seed, take])
            length = int(rng.choice(PHYSICS_LENGTHS))
            size = draw_size(rng, length)
            fps = float(rng.choice(PHYSICS_FPS))
            clip = film(seed, take, length, *size, fps, draw_shots(rng, length))
            yield clip_sample(clip, config, RENDERED)


@dataclass(frozen=True)
class CraftPart:
    """Clips of one crafter world."""

    split: str
    world_seed: int
    num_clips: int
    recipe: int = RECIPE

    @property
    def name(self) -> str:
        """Name the part by its world."""
        return f"craft/{self.world_seed:07d}+{self.num_clips}"

    @property
    def weight(self) -> float:
        """Expected seconds; making the world takes more than one."""
        return 1.5 + 0.1 * self.num_clips

    def samples(self, config: IngestConfig, notes: Notes) -> Iterator[Sample]:
        """Play, draw and encode the clips."""
        from data.worlds.craft.film import film

        rng = np.random.default_rng([0xC4A2, self.world_seed])
        plan = []
        for _ in range(self.num_clips):
            length = int(rng.choice(LENGTHS))
            plan.append((length, *draw_size(rng, length), float(rng.choice(CRAFT_FPS))))
        count = 0
        for clip in film(self.world_seed, plan):
            count += 1
            yield clip_sample(clip, config, "crafter, MIT; rendered here")
        if count < self.num_clips:
            notes.warnings.append(f"{self.name}: {count} of {self.num_clips} clips; nothing to do")


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
        return 0.5 + 0.14 * self.num_clips

    def samples(self, config: IngestConfig, notes: Notes) -> Iterator[Sample]:
        """Play, film and encode the clips."""
        from data.worlds.doom.film import film

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


@dataclass(frozen=True)
class FramingPart:
    """Wide and tall clips of one subject each, of consecutive seeds."""

    split: str
    first_seed: int
    num_clips: int
    recipe: int = RECIPE

    @property
    def name(self) -> str:
        """Name the part by its seeds."""
        return f"framing/{self.first_seed:07d}+{self.num_clips}"

    @property
    def weight(self) -> float:
        """Expected seconds."""
        return 0.06 * self.num_clips

    def samples(self, config: IngestConfig, notes: Notes) -> Iterator[Sample]:
        """Render and encode the clips."""
        from data.worlds.framing import film_framing

        for seed in range(self.first_seed, self.first_seed + self.num_clips):
            rng = np.random.default_rng([0xF4A, seed])
            length = int(rng.choice(FRAMING_LENGTHS))
            height, width = rng.choice(FRAMING_SIZES).tolist()
            clip = film_framing(seed, length, height, width, float(rng.choice(FPS)))
            yield clip_sample(clip, config, RENDERED)


@dataclass(frozen=True)
class TinyPart:
    """Clips of one tiny world, of consecutive indices; ``lawless`` is the law that is off."""

    split: str
    world: str
    seed: int
    first: int
    num_clips: int
    lawless: str = ""
    recipe: int = RECIPE

    @property
    def name(self) -> str:
        """Name the part by its world and indices."""
        return f"tiny/{self.world}-{self.lawless}-{self.seed}-{self.first:07d}+{self.num_clips}"

    @property
    def weight(self) -> float:
        """Expected seconds."""
        return 0.005 * self.num_clips

    def samples(self, config: IngestConfig, notes: Notes) -> Iterator[Sample]:
        """Draw and encode the clips."""
        from data.worlds.tiny.film import film

        for index in range(self.first, self.first + self.num_clips):
            clip = film(self.world, self.seed, index, self.lawless)
            yield clip_sample(clip, config, RENDERED, exact=True)
