"""Measure a trained run's loss again, clip by clip: on other clips, or given other captions.

usage: kinescale score run=FOLDER out=FILE.json [key=value ...]

example:
  kinescale score run=runs/captions/runs/NAME captions=[dense,short] out=loss.json
keys: root= (empty: the run's own data) split=val_worlds samples=64 captions=[dense] noise_seeds=[]
Noise and times are those of the run's validation, the same for every run that shares
validation.noise_seed: losses of two runs on a clip are paired. The file lists, for each kind of
caption, every clip's key, world and loss, with the standard error over noise draws beside them, and
the loss on the same clips under other noise for every one of noise_seeds. Several processes share
the clips, on the run's device: torchrun --standalone --nproc_per_node 8 -m trainer.probes.score ...
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, MinLen
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from typing_extensions import Doc

from data.bounds import check_bounds
from data.dataset.sample import world_of
from data.files import write_json
from data.shell import command
from trainer.config import CaptionUse, Seed, load_run


@dataclass
class ScoreConfig:
    """What to measure; see the module's help."""

    run: Annotated[str, Doc("Run folder.")] = ""
    out: Annotated[str, Doc("JSON file to write.")] = ""
    root: Annotated[str, Doc("Data set; empty means the run's own.")] = ""
    split: Annotated[str, Doc("Its split.")] = "val_worlds"
    samples: Annotated[int, Ge(0), Doc("Clips of the split; 0 takes all.")] = 64
    captions: Annotated[
        list[CaptionUse],
        MinLen(1),
        Doc("Kinds of caption that the clips are measured with, one after the other."),
    ] = field(default_factory=lambda: [CaptionUse.dense])
    noise_seeds: Annotated[
        list[Seed], Doc("Further noises that the same clips are measured under.")
    ] = field(default_factory=list)

    def check(self) -> None:
        """Raise ValueError on values that cannot be measured."""
        for key in ("run", "out"):
            if not getattr(self, key):
                raise ValueError(f"{key}=: must be given. See --help.")


def score(config: ScoreConfig) -> dict[str, Any]:
    """Measure a run with its averaged weights; workers share the clips, all get the result."""
    from trainer.diffusion.collate import Collator
    from trainer.diffusion.evaluate import Validator
    from trainer.generate.generate import load_model
    from trainer.parallel.mesh import stop_mesh
    from trainer.parallel.workers import join_workers

    mesh = join_workers(load_run(Path(config.run)).parallel.device)
    run, model = load_model(Path(config.run), mesh.device)
    if config.root:
        run = replace(run, data=replace(run.data, root=config.root))
    collator = Collator(run.codec, run.text, mesh.device)
    found: dict[str, Any] = {}
    for use in config.captions:
        given = replace(run, validation=replace(run.validation, captions=use))
        validator = Validator(given, config.split, collator, mesh, config.samples, even=False)
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
            again = Validator(other, config.split, collator, mesh, config.samples, even=False)
            by_noise[str(seed)] = again.measure(model).loss
        found[use.value] = {"loss": total.loss, "noise": total.noise, "clips": clips}
        found[use.value] |= {"by_noise_seed": by_noise} if by_noise else {}
    if mesh.world > 1:
        stop_mesh(mesh)
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
    check_bounds(config)
    config.check()
    return config


@command(__doc__, doing="measuring the loss")
def main(argv: list[str]) -> int:
    """Parse the command line, measure and write."""
    config = parse(argv)
    result = score(config)
    if int(os.environ.get("RANK", "0")):
        return 0
    Path(config.out).parent.mkdir(parents=True, exist_ok=True)
    write_json(Path(config.out), result)
    for use, value in result["captions"].items():
        print(f"{use} captions: loss {value['loss']:.4f} +- {value['noise']:.4f} (noise draws)")
    return 0


if __name__ == "__main__":
    main.run()
