"""The studies of the data engine, from films to pages: kinescale studies captions framing

usage: kinescale studies NAME [NAME ...] [smoke=true] [key=value ...]

captions: short against dense captions at equal compute, on simulated worlds.
framing:  native clips against square crops of them at equal compute.

Each part that is there already is kept: films, crops, latents, finished runs. Interrupt it at any
time; the same command continues. smoke=true does all of it with a few clips, in a minute or two.
Further key=value go to the study (sweeps/kinds/arms/config.py). Page: runs/NAME/report/index.html
"""

from pathlib import Path

from data.shell import command
from launch.local.parts import Part, run_parts

STUDIES = ("captions", "framing")
CLIPS = {"captions": (3000, 256), "framing": (3000, 128)}
SMOKE_CLIPS = (48, 12)
# A dense caption of the worlds has up to 94 tokens, one of the framing scenes up to 47.
MAX_TOKENS = {"captions": 96, "framing": 48}


def steps(name: str, smoke: bool, overrides: list[str]) -> list[Part]:
    """Return a study's parts as (title, command and arguments).

    Raises ValueError for a name that is no study.
    """
    if name not in STUDIES:
        raise ValueError(f"study={name}: is unknown. Use {' or '.join(STUDIES)}.")
    study = f"{name}_smoke" if smoke else name
    data = "datasets/" + {"captions": "worlds", "framing": "framing"}[name] + "_smoke" * smoke
    train, held_out = SMOKE_CLIPS if smoke else CLIPS[name]
    film = ["worlds", f"root={data}", f"num_train_clips={train}", f"num_val_clips={held_out}"]
    if name == "captions":
        return [
            ("film worlds", film),
            ("encode clips", _encode(data, name, smoke)),
            ("train, measure, compare", ["run", f"study={study}", *overrides]),
        ]
    square = f"{data}_square"
    return [
        ("film subjects", [*film, "preset=framing"]),
        ("crop them", ["crop", f"root={data}/video", f"out={square}/video"]),
        ("encode native clips", _encode(data, name, smoke)),
        ("encode crops", _encode(square, name, smoke)),
        ("train, measure, compare", ["run", f"study={study}", *overrides]),
    ]


def _encode(data: str, name: str, smoke: bool) -> list[str]:
    shared = [f"data.root={data}/video", f"out={data}/latents"]
    if smoke:
        return ["encode", *shared, "experiment=cpu_smoke"]
    settings = ["codec=wavelet", f"text.max_tokens={MAX_TOKENS[name]}"]
    return ["encode", *shared, "experiment=cpu_demo", *settings]


@command(__doc__, kept="finished parts are kept; the same command continues")
def main(argv: list[str]) -> int:
    """Run the parts of the studies one after the other; stop at the first that fails."""
    names = [word for word in argv if "=" not in word]
    if not names:
        raise ValueError(f"NAME: must be given. Use {' or '.join(STUDIES)}.")
    smoke = "smoke=true" in argv
    overrides = [word for word in argv if "=" in word and not word.startswith("smoke=")]
    parts = [part for name in names for part in steps(name, smoke, overrides)]
    return run_parts(parts, Path("runs") / f"{'-'.join(names)}{'-smoke' * smoke}-starts.json")


if __name__ == "__main__":
    main.run()
