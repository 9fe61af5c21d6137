"""Draw clips and images of any size from a trained run.

usage: kinescale generate run=FOLDER prompt=TEXT out=FILE.mp4 [KEY=VALUE ...]
       kinescale generate run=FOLDER requests=FILE.json [KEY=VALUE ...]

examples:
  kinescale generate run=runs/demo/runs/grid-... prompt="a red cube on a green floor" out=cube.mp4
  kinescale generate run=RUN prompt="a red cube" num_frames=1 height=90 width=161 out=cube.png
  kinescale generate run=RUN prompt="a red cube" negative="a ball" out=cube.mp4 also=[gif,png]
  kinescale generate run=RUN prompt="it rolls" task=image_to_video image=ball.png out=roll.mp4
  kinescale generate run=RUN requests=many.json steps=32

Any height and width will do, and 1 + 4k frames; one frame is an image. The ending of OUT says what
is written: .mp4, .gif, or .png, which is a contact sheet of a clip. Its prompt, seed and settings,
and the hashes of the run's config and weights, stand in the file's comment and in OUT.json.

A file of requests is a list of such settings, each with its own ``out``; what it leaves out is
taken from the command line. As many are drawn at once as pack_tokens= holds (0: four times the
run's pack), whatever their shapes, steps and guidance. The noise depends on (seed, prompt, shape)
alone, so a request draws the same clip in any company, and two runs start from the same noise.

All is computed on the run's device. Several processes share a file of requests, and write the same
files: torchrun --standalone --nproc_per_node 8 -m trainer.generate run=RUN requests=many.json
A model that one device does not hold is cut over tp= of them, long clips over cp=.

task=image_to_video image=, extend_forwards video=, extend_backwards video=, connect video=
next_video=, edit video= mask= strength=, flow_edit video= source_prompt=, loop: docs/generate.md
has a command for each. What is given stays as it is in the latents, to the bit. window=N draws a
long clip N frames at a time, from latents to latents.

Which settings? method=multistep steps=24 looks 24 times; heun looks twice a step. guidance=1 draws
without guidance, in half the time. cfg_zero=true often helps a model that was trained little.
spacing=trained looks where the run's density of training times has its mass.
``reference: {root, split, key}`` in a file of requests writes a stored clip through the codec
instead of drawing one, which is the best that any model on this codec can show.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from rich.console import Console

from data.dataset.shards import read_index
from data.loading.batch import Sample
from data.loading.loader import SampleReader
from data.notices import doing
from data.shell import command
from data.show.progress import Progress
from data.words import counted
from models.architecture import specification_of
from models.config import TextConfig
from models.network import Network, build_network
from models.objective import Predict, build_objective
from models.tasks import Task as Learned
from trainer.config import RunConfig, load_run
from trainer.diffusion.collate import Collator
from trainer.generate.arguments import parse, take_axes
from trainer.generate.files import write_clip
from trainer.generate.request import Request, Task
from trainer.generate.sampler import draw_clips, parties_of
from trainer.generate.split import fitting, latest_of, load_split
from trainer.generate.tasks import trimmed
from trainer.identity import identity, run_name
from trainer.parallel.engine import dtype_of
from trainer.parallel.mesh import Mesh, stop_mesh
from trainer.parallel.workers import join_workers, own_share, worker_layout

# Under which task of training a task's given tokens are met.
LEARNED = {
    Task.image_to_video: Learned.image_to_video,
    Task.extend_forwards: Learned.extend_forwards,
    Task.extend_backwards: Learned.extend_backwards,
    Task.connect: Learned.connect,
    Task.edit: Learned.masked_region,
}
HASH_LETTERS = 10  # of a run's name that tell its config
_HASHED = re.compile(rf"-[0-9a-f]{{{HASH_LETTERS}}}$")
INDEX_BYTES = 64e6  # of a data set's index that is read for a warning


def load_model(folder: Path, device: torch.device | None = None) -> tuple[RunConfig, Network]:
    """Load a run's config and its averaged weights from its newest good checkpoint.

    device: where the network computes, in the precision that the run trained in; by default on the
    CPU, where a network in bf16 would be slower.
    """
    run = load_run(folder)
    loaded = latest_of(folder)
    predicts, facts = build_objective(run.objective).coefficients, specification_of(run.model)
    model = build_network(run.model, precondition=predicts).requires_grad_(False)
    with fitting(folder):
        model.load_state_dict(loaded.tensors("ema", facts.shapes, facts.cuts))
    return run, placed(model, run, device)


def load(folder: Path, mesh: Mesh) -> tuple[RunConfig, Predict, Iterable[tuple[str, torch.Tensor]]]:
    """Load a run, in parts where ranks of a mesh hold it together; also its weights by name."""
    if mesh.layout.row_shards > 1:
        run, split = load_split(folder, mesh)
        return run, split, split.named_parameters()
    run, model = load_model(folder, mesh.device)
    return run, model, sorted(model.named_parameters())


def placed(model: torch.nn.Module, run: RunConfig, device: torch.device | None) -> Network:
    """Return a network on a device in the run's precision; on the CPU as it is."""
    network = cast(Network, model)
    if device is not None and device.type != "cpu":
        model.to(device, dtype_of(run.parallel))
        network.restore_buffers(device)
    return network


def write_reference(run: RunConfig, request: Request) -> np.ndarray:
    """Return a stored clip through the codec and back, uint8 (F, H, W, 3)."""
    where = request.reference
    infos = [i for i in read_index(where["root"], where["split"]) if i.key == where["key"]]
    if not infos:
        raise ValueError(f"reference.key={where['key']}: is not in {where['split']}.")
    data = replace(run.data, root=where["root"])
    reader = SampleReader(data, where["split"], infos)
    try:
        found = reader.read([(infos[0], 0)])[0]
    finally:
        reader.close()
    if not isinstance(found, Sample):
        raise found
    encoded = Collator(run.codec, TextConfig()).codec
    latent = found.latent
    if latent is None:
        assert found.frames is not None
        latent = encoded.encode(found.frames)
    return encoded.decode(latent.float(), infos[0].height, infos[0].width).numpy()


def facts_of(run: RunConfig, weights: Iterable[tuple[str, torch.Tensor]]) -> dict[str, str]:
    """Return what tells the weights of a clip from all others.

    Hashes are SHA-256: of what defines the experiment, and of the weights, which come in the order
    of their names, whatever layout they were saved by.
    """
    config = json.dumps(identity(run), sort_keys=True).encode()
    digest = hashlib.sha256()
    for name, value in weights:
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    hashes = {"config": hashlib.sha256(config).hexdigest(), "weights": digest.hexdigest()}
    return {"run": run_name(run), **hashes}


def keep(request: Request, frames: np.ndarray, facts: dict[str, str]) -> None:
    """Write a request's files; what it asked and ``facts`` stand in them and in a JSON beside."""
    said = {k: v for k, v in asdict(request).items() if k not in ("out", "also")}
    write_clip(request.files, frames, request.fps, {**said, **facts})


def other_config(run: RunConfig, folder: Path) -> Iterator[str]:
    """Yield a warning where a run's folder is named for another config than it holds."""
    name, expected = folder.resolve().name, run_name(run)
    if _HASHED.search(name) and name[-HASH_LETTERS:] != expected[-HASH_LETTERS:]:
        yield (
            f"run={folder}: its config.yaml was changed since the run was named (it would be "
            f"{expected} now), so its weights may be of another config."
        )


def warnings_of(run: RunConfig, requests: list[Request]) -> Iterator[str]:
    """Yield a warning for each request that asks more than the run has learned from."""
    for request in requests:
        forced = [
            key for key, plain in (("lag", 0), ("given_at", 1)) if getattr(request, key) != plain
        ]
        if forced and not run.objective.tasks.get(Learned.diffusion_forcing.value):
            yield (
                f"{forced[0]}={getattr(request, forced[0]):g}: the run never met "
                f"{Learned.diffusion_forcing.value} (objective.tasks), so it has not learned what "
                "frames at times of their own mean."
            )
        learned = LEARNED.get(request.task)
        if learned is None or (request.task is Task.edit and not request.mask):
            continue
        if not run.objective.tasks.get(learned.value):
            yield (
                f"task={request.task.value}: the run never met {learned.value} (objective.tasks), "
                "so it has not learned what tokens that are given mean."
            )
    members = [member.root for member in run.data.mixture] or [run.data.root]
    indexes = [Path(root) / run.data.train_split / "index.jsonl" for root in members]
    if not all(path.is_file() and path.stat().st_size < INDEX_BYTES for path in indexes):
        return
    longest = max(i.num_frames for root in members for i in read_index(root, run.data.train_split))
    for request in requests:
        if request.num_frames > longest and not request.reference:
            times = request.num_frames / longest
            yield (
                f"num_frames={request.num_frames}: {times:.2g} times the longest clip that the run "
                f"learned from ({counted(longest, 'frame')}). Beyond that it may fall apart."
            )


@command(__doc__, keys=Request, kept="clips named above are written. Run the same command again.")
def main(argv: list[str]) -> int:
    """Parse the command line, draw and write; print each file when it is there."""
    argv, tp, cp = take_axes(argv)
    folder, requests, pack_tokens = parse(argv)
    saved = load_run(folder)
    parallel = worker_layout(saved.parallel.device, tp, cp)
    parallel.check(saved.model, parallel.layout.dp)
    mesh = join_workers(saved.parallel.device, tp, cp)
    with doing(f"loading {folder}"):
        run, model, weights = load(folder, mesh)
        facts = facts_of(run, weights) if mesh.leads_replica else {}
        requests = [trimmed(request, run.codec.stride[0]) for request in requests]
        said = [*other_config(run, folder), *warnings_of(run, requests)]
        for warning in said if mesh.is_main else ():
            print(f"warning: {warning}", file=sys.stderr)
    wanted = sum(not r.reference for r in requests)
    parties = own_share(parties_of(run, requests, pack_tokens), mesh)
    with Progress(f"draw {counted(wanted, 'clip')}", Console(stderr=True)) as progress:
        for number, party in enumerate(parties):

            def told(done: float, total: float, number: int = number) -> None:
                progress.update(number + done / total, len(parties), "")

            asked = [r for r in party if not r.reference]
            drawn = draw_clips(run, model, asked, pack_tokens, told, mesh.device)
            for request in party:
                frames = write_reference(run, request) if request.reference else next(drawn)
                if not mesh.leads_replica:
                    continue
                keep(request, frames, facts)
                for path in request.files:
                    print(path, flush=True)
    if mesh.world > 1:
        mesh.barrier()
        stop_mesh(mesh)
    return 0


if __name__ == "__main__":
    main.run()
