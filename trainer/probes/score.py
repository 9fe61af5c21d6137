"""Measure a trained run's loss again, clip by clip: on other clips, or given other captions.

usage: kinescale score run=FOLDER out=FILE.json [key=value ...]

example:
  kinescale score run=runs/captions/runs/NAME captions=[dense,short] out=loss.json
keys: root= (empty: the run's own data) split=val_worlds samples=64 captions=[dense] noise_seeds=[]
Noise and times are those of the run's validation, the same for every run that shares
validation.noise_seed: losses of two runs on a clip are paired. The file lists, for each kind of
caption, every clip's key, world and loss, with the standard error over noise draws beside them, and
the loss on the same clips under other noise for every one of noise_seeds.
"""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data.dataset.sample import world_of
from data.files import write_json
from trainer.config import CaptionUse


@dataclass
class ScoreConfig:
    """What to measure; see the module's help."""

    run: str = ""
    out: str = ""
    root: str = ""
    split: str = "val_worlds"
    samples: int = 64
    captions: list[CaptionUse] = field(default_factory=lambda: [CaptionUse.dense])
    noise_seeds: list[int] = field(default_factory=list)

    def check(self) -> None:
        """Raise ValueError on values that cannot be measured."""
        for key in ("run", "out"):
            if not getattr(self, key):
                raise ValueError(f"{key}=: must be given. See --help.")
        if not self.captions:
            raise ValueError("captions=[]: must name a kind of caption. Use captions=[dense].")


def score(config: ScoreConfig) -> dict[str, Any]:
    """Measure a run with its averaged weights, alone in this process."""
    from trainer.diffusion.collate import Collator
    from trainer.diffusion.evaluate import Validator
    from trainer.generate.generate import load_model
    from trainer.parallel.mesh import alone

    run, model = load_model(Path(config.run))
    if config.root:
        run = replace(run, data=replace(run.data, root=config.root))
    collator = Collator(run.codec, run.text)
    found: dict[str, Any] = {}
    for use in config.captions:
        given = replace(run, validation=replace(run.validation, captions=use))
        validator = Validator(given, config.split, collator, alone(), config.samples)
        if use is CaptionUse.short and not any(i.short_caption for i in validator.infos):
            raise ValueError(
                f"captions=[short]: {run.data.root}/{config.split} holds none. Use [dense]."
            )
        total, losses = validator.measure_clips(model)
        clips = [
            {"clip": info.key, "world": world_of(info.source), "loss": loss}
            for info, loss in zip(validator.infos, losses.tolist(), strict=True)
        ]
        by_noise = {}
        for seed in config.noise_seeds:
            other = replace(given, validation=replace(given.validation, noise_seed=seed))
            again = Validator(other, config.split, collator, alone(), config.samples)
            by_noise[str(seed)] = again.measure(model).loss
        found[use.value] = {"loss": total.loss, "noise": total.noise, "clips": clips}
        found[use.value] |= {"by_noise_seed": by_noise} if by_noise else {}
    return {"run": Path(config.run).name, "root": run.data.root, "split": config.split} | {
        "captions": found
    }


def parse(argv: list[str]) -> ScoreConfig:
    """Parse key=value arguments."""
    try:
        given = OmegaConf.from_dotlist(argv)
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ScoreConfig), given))
    except OmegaConfBaseException as error:
        known = ", ".join(ScoreConfig.__dataclass_fields__)
        reason = str(error).splitlines()[0]
        raise ValueError(f"{error.full_key}: {reason}. Keys: {known}.") from error
    assert isinstance(config, ScoreConfig)
    config.check()
    return config


def main(argv: list[str]) -> int:
    """Parse the command line, measure and write."""
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    try:
        config = parse(argv)
        result = score(config)
        Path(config.out).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(config.out), result)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for use, value in result["captions"].items():
        print(f"{use} captions: loss {value['loss']:.4f} +- {value['noise']:.4f} (noise draws)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
