"""Tiny worlds: clips a second, the error of each reader on true clips, and what finite ones imply.

usage: python -m benchmarks.tiny_worlds [--clips 300] [--draws 512]

Clips and pairs a second are of one thread, in processor time, drawn and rendered. Errors are the
largest over so many clips, in pixels, of bodies wholly in sight (data/worlds/tiny/state.py).
``wrong`` counts colours, misses and inventions together. The second table holds entropy, the exact
denoiser's mean squared velocity error a value at times spread evenly, and the entropy that this
loss implies, which must be the first (data/worlds/tiny/finite.py).
"""

import argparse
import time

from data.worlds.tiny.finite import all_clips, least_loss
from data.worlds.tiny.registry import TINY_WORLDS
from data.worlds.tiny.state import compare
from data.worlds.tiny.world import generator

PAIRS = 20
READ_SHARE = 3  # one clip in so many is read
FINITE = ("strip_finite", "rotor")


def row(name: str, clips: int) -> str:
    """Measure one world."""
    world = TINY_WORLDS[name]
    started = time.process_time()
    for index in range(clips):
        world.render(world.draw(generator(name, 0, index)))
    drawn = clips / (time.process_time() - started)
    started = time.process_time()
    for prop in world.laws:
        for index in range(PAIRS):
            world.crossed(generator(name, 0, index, 1), prop)
    pairs = PAIRS * len(world.laws) / (time.process_time() - started)
    errors = []
    for index in range(clips // READ_SHARE):
        state = world.draw(generator(name, 1, index))
        errors.append(compare(state, world.read(world.render(state))))
    place, size = max(e.position for e in errors), max(e.size for e in errors)
    wrong = sum(e.colours + e.missed + e.invented for e in errors)
    bodies = sum(e.bodies for e in errors)
    height, width = world.size
    return (
        f"| `{name}` | 9 x {height} x {width} | {drawn:,.0f} | {pairs:,.0f} | {place:.3f} | "
        f"{size:.3f} | {wrong} of {bodies:,} |"
    )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--draws", type=int, default=512)
    options = parser.parse_args()
    print("| world | size | clips/s | pairs/s | place | size error | wrong |")
    print("|---|---|---|---|---|---|---|")
    for name in TINY_WORLDS:
        print(row(name, options.clips), flush=True)
    print("\n| finite world | clips | bits | least loss | bits from the loss |")
    print("|---|---|---|---|---|")
    for name in FINITE:
        finite = all_clips(TINY_WORLDS[name])
        found = least_loss(finite, 0, options.draws)
        print(
            f"| `{name}` | {len(finite.shares):,} | {finite.entropy_bits:.3f} | "
            f"{found.loss:.5f} +- {found.loss_error:.5f} | "
            f"{found.bits:.2f} +- {found.bits_error:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
