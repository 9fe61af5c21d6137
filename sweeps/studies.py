"""The studies of the data engine, from films to pages: python -m sweeps.studies captions framing

usage: python -m sweeps.studies NAME [NAME ...] [smoke=true] [key=value ...]

captions: short against dense captions at equal compute, on simulated worlds.
framing:  native clips against square crops of them at equal compute.

Each part that is there already is kept: films, crops, latents, finished runs. Interrupt it at any
time; the same command continues. smoke=true does all of it with a few clips, in a minute or two.
Further key=value go to the study (sweeps/kinds/arms/config.py). Page: runs/NAME/report/index.html
"""

import subprocess
import sys
import time

Step = tuple[str, list[str]]
STUDIES = ("captions", "framing")
CLIPS = {"captions": (3000, 256), "framing": (3000, 128)}
SMOKE_CLIPS = (48, 12)
# A dense caption of the worlds has up to 94 tokens, one of the framing scenes up to 47.
MAX_TOKENS = {"captions": 96, "framing": 48}


def steps(name: str, smoke: bool, overrides: list[str]) -> list[Step]:
    """Return a study's parts as (title, module and arguments).

    Raises ValueError for a name that is no study.
    """
    if name not in STUDIES:
        raise ValueError(f"study={name}: is unknown. Use {' or '.join(STUDIES)}.")
    study = f"{name}_smoke" if smoke else name
    data = "datasets/" + {"captions": "worlds", "framing": "framing"}[name] + "_smoke" * smoke
    train, held_out = SMOKE_CLIPS if smoke else CLIPS[name]
    film = ["data.worlds", f"root={data}", f"num_train_clips={train}", f"num_val_clips={held_out}"]
    if name == "captions":
        return [
            ("film worlds", film),
            ("encode clips", _encode(data, name, smoke)),
            ("train, measure, compare", ["sweeps.run", f"study={study}", *overrides]),
        ]
    square = f"{data}_square"
    return [
        ("film subjects", [*film, "preset=framing"]),
        ("crop them", ["data.derive.crop", f"root={data}/video", f"out={square}/video"]),
        ("encode native clips", _encode(data, name, smoke)),
        ("encode crops", _encode(square, name, smoke)),
        ("train, measure, compare", ["sweeps.run", f"study={study}", *overrides]),
    ]


def _encode(data: str, name: str, smoke: bool) -> list[str]:
    shared = [f"data.root={data}/video", f"out={data}/latents"]
    if smoke:
        return ["trainer.encode", *shared, "experiment=cpu_smoke"]
    settings = ["codec=wavelet", f"text.max_tokens={MAX_TOKENS[name]}"]
    return ["trainer.encode", *shared, "experiment=cpu_demo", *settings]


def main(argv: list[str]) -> int:
    """Run the parts of the studies one after the other; stop at the first that fails."""
    names = [word for word in argv if "=" not in word]
    if not names or {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0
    smoke = "smoke=true" in argv
    overrides = [word for word in argv if "=" in word and not word.startswith("smoke=")]
    try:
        parts = [part for name in names for part in steps(name, smoke, overrides)]
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    started = time.monotonic()
    for number, (title, command) in enumerate(parts, 1):
        print(f"[{number}/{len(parts)}] {title}: python -m {' '.join(command)}", flush=True)
        code = _run([sys.executable, "-m", *command])
        if code:
            print(f"stopped with status {code}; the same command continues.", file=sys.stderr)
            return code
    spent = time.monotonic() - started
    print(f"finished in {int(spent // 60)} min {int(spent % 60)} s")
    return 0


def _run(command: list[str]) -> int:
    """Run a part to its end; it gets Ctrl-C from the terminal itself, and time to save."""
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
