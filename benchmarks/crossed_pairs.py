"""What means and covariances alone tell of crossed pairs: margins that no network is needed for.

usage: python -m benchmarks.crossed_pairs WORLD [pairs=32] [clips=512]

Prints, for each property of a tiny world, the margin of the best linear denoiser in percent with
its 95 % interval over pairs, accuracy and z, and its margin in each stratum of t from noise to
data, jointly and with the frames before the splice given. Tokens are those of codec=pixels
(docs/emergence.md).
"""

import sys

from data.worlds.tiny.registry import tiny_world
from models.objective import build_objective
from trainer.config import CaptionUse, compose_run
from trainer.diffusion.collate import Collator
from trainer.probes.likelihood.closed_form import GaussianDenoiser, Places
from trainer.probes.likelihood.margins import PairErrors
from trainer.probes.likelihood.measure import STRATA, measure_pairs
from trainer.probes.likelihood.pairs import draw_pairs, first_tokens, lawful_clips, stacked
from trainer.probes.likelihood.subject import looks_at


def main(words: list[str]) -> None:
    """Print the margins of one world."""
    given = dict(word.split("=") for word in words[1:])
    pairs, clips = int(given.get("pairs", 32)), int(given.get("clips", 512))
    run = compose_run(["codec=pixels", "horizon.steps=1"])
    collator, world = Collator(run.codec, run.text), tiny_world(words[0])
    lawful = lawful_clips(run, collator.codec, world, clips, 0)
    valid = collator.pack(lawful[:1], [CaptionUse.dropped]).valid
    asked = {}
    for mode, look in looks_at(0, run.codec.stride[0]).items():
        places = Places.of(valid, first_tokens(lawful[0], look.frames))
        asked[mode] = look, GaussianDenoiser.fit(stacked(lawful), places)
    for prop in (*world.laws, *world.free):
        drawn = draw_pairs(run, collator.codec, world, prop, pairs, 0)
        for mode, (look, linear) in asked.items():
            found = measure_pairs(linear, build_objective(run.objective), collator, drawn, look)
            print(f"{prop:<10} {mode:<6} {described(found)}", flush=True)


def described(found: PairErrors) -> str:
    """Return a margin in percent, and its strata."""
    margin = found.margin()
    low, high = margin.interval
    strata = " ".join(f"{100 * found.margin(n).value:+.2f}" for n in range(STRATA))
    return (
        f"{100 * margin.value:+.3f} ({100 * low:+.3f} to {100 * high:+.3f}) "
        f"accuracy {margin.accuracy:.2f} z {margin.z:.1f}; by t: {strata}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
