"""The run that is asked, its twin, the controls beside it, and what all of them say."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from data.worlds.hidden import PROPERTIES as HIDDEN_PROPERTIES
from data.worlds.hidden import SPLICE as RENDERED_SPLICE
from data.worlds.hidden import WORLDS as RENDERED
from data.worlds.tiny.registry import tiny_world
from data.worlds.tiny.world import NUM_FRAMES, SPLICE, World
from models.codec.codec import Codec
from models.network import Network, build_network
from models.objective import Objective, build_objective
from models.pack import TokenPack
from models.tasks import Task, beside_text
from trainer.config import CaptionUse, RunConfig
from trainer.diffusion.collate import Collator, PackItem
from trainer.generate.generate import load_model, placed
from trainer.parallel.mesh import Mesh, alone
from trainer.probes.likelihood.closed_form import ExactDenoiser, GaussianDenoiser, Places
from trainer.probes.likelihood.config import LikelihoodConfig
from trainer.probes.likelihood.margins import PairErrors
from trainer.probes.likelihood.measure import STRATA, Look, Predict, measure_pairs
from trainer.probes.likelihood.pairs import (
    Pair,
    Seen,
    check_seen,
    check_tokens,
    draw_pairs,
    first_frames,
    first_tokens,
    lawful_clips,
    reversed_pairs,
    seen_worlds,
    stacked,
)
from trainer.probes.likelihood.rendered import (
    check_cells,
    check_filmed,
    crossed_pairs,
    film_pairs,
    trace,
    turned,
)
from trainer.probes.likelihood.report import summarise, summarise_rendered

ASKED = (
    "worlds",
    "properties",
    "looks",
    "pairs",
    "seed",
    "clips",
)  # the keys that decide what is measured


@dataclass(frozen=True)
class Subject:
    """A run that is asked: its networks, trained and not, and its twin's where there is one.

    mesh: of the workers that share the pairs.
    """

    run: RunConfig
    networks: dict[str, Predict]
    objective: Objective
    collator: Collator
    mesh: Mesh = field(default_factory=alone)

    @property
    def codec(self) -> Codec:
        """The codec of the run."""
        return self.collator.codec

    def errors(self, predict: Predict, pairs: list[Pair], look: Look) -> PairErrors:
        """Measure what one denoiser says of pairs."""
        return measure_pairs(predict, self.objective, self.collator, pairs, look, self.mesh)


@dataclass
class Memo:
    """Errors that no training changes, for runs that are asked one after the other.

    The same pairs under the same noise have the same errors by a closed form and, for runs of one
    shape and seed, by an untrained network.
    """

    found: dict[tuple[Any, ...], PairErrors] = field(default_factory=dict)

    def of(self, key: tuple[Any, ...], measure: Callable[[], PairErrors]) -> PairErrors:
        """Return what was measured under a key, or measure it."""
        if key not in self.found:
            self.found[key] = measure()
        return self.found[key]


def probe(config: LikelihoodConfig, memo: Memo, mesh: Mesh | None = None) -> dict[str, Any]:
    """Measure all properties of all worlds asked for. Raises ValueError on what cannot be asked.

    Networks compute on the device of the mesh, closed forms on the CPU; its workers share the pairs
    and all get the result.
    """
    folder, mesh = Path(config.run), mesh or alone()
    run, model = load_model(folder, mesh.device)
    if run.objective.caption_dropout == 0:
        raise ValueError(
            "objective.caption_dropout=0: the run never saw a clip without its caption, but pairs "
            "are shown without one. Train with objective.caption_dropout=0.1."
        )
    if run.objective.kind != "flow":
        raise ValueError(
            f"objective.kind={run.objective.kind}: the closed forms are those of kind=flow. Probe "
            "a run of that."
        )
    seen, rendered = seen_worlds(run.data), [w for w in config.worlds if w in RENDERED]
    tiny = [name for name in config.worlds if name not in rendered]
    if tiny or not rendered:
        check_seen(seen, tiny, folder)
    if rendered:
        check_filmed(run.data, rendered, folder)
    networks = {"run": on_device(model, mesh.device), "untrained": untrained(run, mesh.device)}
    if config.twin:
        networks["twin"] = twin_of(run, seen, Path(config.twin), mesh.device)
    objective, collator = build_objective(run.objective), Collator(run.codec, run.text, mesh.device)
    subject = Subject(run, networks, objective, collator, mesh)
    worlds = config.worlds or sorted(seen.worlds)
    return {
        "run": folder.name,
        "twin": Path(config.twin).name if config.twin else None,
        "pairs": config.pairs,
        "seed": config.seed,
        "asked": {key: _plain(getattr(config, key)) for key in ASKED},
        "strata": STRATA,
        "taught": taught(run),
        "properties": [
            row
            for name in worlds
            for row in (
                ask_rendered(config, subject, name)
                if name in rendered
                else ask(config, subject, tiny_world(name), memo)
            )
        ],
    }


def _plain(value: Any) -> Any:
    return [str(item) for item in value] if isinstance(value, list) else value


def on_device(network: Network, device: torch.device) -> Predict:
    """Return a network that lies on a device as what takes and gives tensors of the host."""
    if device.type == "cpu":
        return network

    def predict(pack: TokenPack, x_t: Tensor, t: Tensor) -> Tensor:
        return network(pack.to(device), x_t.to(device), t.to(device)).cpu()

    return predict


def untrained(run: RunConfig, device: torch.device | None = None) -> Predict:
    """Return a network of the same config that learned nothing, its output layers drawn, too.

    With an output of zero its margin would be zero by arithmetic, whatever the pairs are.
    """
    predicts = build_objective(run.objective).coefficients
    network = build_network(run.model, precondition=predicts).requires_grad_(False)
    generator = torch.Generator().manual_seed(run.seed)
    cast(Any, network).reset_parameters(generator)
    for parameter in network.parameters():
        if parameter.dim() > 1 and not parameter.any():
            nn.init.normal_(parameter, 0.0, parameter.shape[1] ** -0.5, generator)
    return on_device(placed(network, run, device), device or torch.device("cpu"))


def twin_of(
    run: RunConfig, seen: Seen, folder: Path, device: torch.device | None = None
) -> Predict:
    """Load a lawless twin. Raises ValueError unless it is one of this run."""
    other, network = load_model(folder, device)
    alike = {
        "model": (run.model, other.model),
        "codec": (run.codec, other.codec),
        "horizon": (run.horizon, other.horizon),
        "objective": (run.objective, other.objective),
    }
    for name, (ours, theirs) in alike.items():
        if ours != theirs:
            raise ValueError(
                f"twin={folder}: its {name} differs from the run's, so that their difference is "
                "not the law's. Train the twin with the run's own settings on lawless clips."
            )
    worlds = seen_worlds(other.data)
    for name in seen.worlds:
        if name not in worlds.worlds or "" in worlds.worlds[name]:
            raise ValueError(
                f"twin={folder}: was not trained on lawless clips of {name} alone. Use clips of "
                "kinescale worlds preset=tiny lawless=all."
            )
    return on_device(network, device or torch.device("cpu"))


def looks_at(seed: int, stride: int) -> dict[str, Look]:
    """Return how clips are looked at: jointly, and with the frames before the splice given."""
    return {"joint": Look(seed), "given": Look(seed, first_frames(stride))}


def backwards(look: Look, stride: int) -> Look:
    """Return the same look at clips played backwards, whose splice lies elsewhere.

    A latent frame that holds frames of both sides of it is not given.
    """
    frames = first_frames(stride, NUM_FRAMES - SPLICE)
    return replace(look, frames=frames) if look.frames else look


def ask(
    config: LikelihoodConfig, subject: Subject, world: World[Any], memo: Memo
) -> list[dict[str, Any]]:
    """Measure the properties of one world, each pair in all ways of looking."""
    run, codec = subject.run, subject.codec
    check_tokens(run, world)
    chosen = config.properties or [*world.laws, *world.free]
    for prop in chosen:
        world.check(prop)
    stride = run.codec.stride[0]
    every = looks_at(config.seed, stride)
    looks = {look.value: every[look] for look in config.looks}
    asked = (world.name, config.pairs, config.seed, repr(run.codec), repr(run.objective))

    @cache
    def closed(mode: str) -> dict[str, Predict]:
        clips = lawful_clips(run, codec, world, config.clips, config.seed)
        return closed_forms(subject, world, clips, looks[mode])

    # What no training changes, each with all that it depends on beside the pairs.
    fixed = {
        "untrained": (repr(run.model), run.seed, run.parallel.precision),
        "gaussian": (config.clips,),
    }
    fixed |= {"exact": ()} if world.finite else {}
    rows = []
    for prop in chosen:
        pairs = draw_pairs(run, codec, world, prop, config.pairs, config.seed)
        turned = reversed_pairs(pairs, codec, run.text.width)
        errors = {}
        for mode, look in looks.items():
            found = {
                name: subject.errors(network, pairs, look)
                for name, network in subject.networks.items()
                if name not in fixed
            }
            for name, depends in fixed.items():

                def measure(name: str = name, mode: str = mode, look: Look = look) -> PairErrors:
                    predict = subject.networks.get(name) or closed(mode)[name]
                    return subject.errors(predict, pairs, look)  # noqa: B023

                found[name] = memo.of((*asked, prop, mode, name, *depends), measure)
            last = subject.errors(subject.networks["run"], turned, backwards(look, stride))
            errors[mode] = found | {"reversed": last}
        rows.append(summarise(world, prop, errors, taught(run)))
    return rows


def ask_rendered(config: LikelihoodConfig, subject: Subject, world: str) -> list[dict[str, Any]]:
    """Measure the properties of a 3-D world, each pair in all ways of looking.

    There is no twin, and no closed form for clips of so many values.
    """
    run, codec = subject.run, subject.codec
    check_cells(run)
    stride = run.codec.stride[0]
    frames = {"joint": 0, "given": first_frames(stride, RENDERED_SPLICE)}
    rows = []
    for prop in config.properties or HIDDEN_PROPERTIES:
        filmed = film_pairs(world, prop, config.pairs, config.seed)
        pairs = crossed_pairs(run, codec, world, prop, filmed)
        last = crossed_pairs(run, codec, world, prop, turned(filmed))
        errors = {}
        for mode in (look.value for look in config.looks):
            look = Look(config.seed, frames[mode])
            ours, none = (subject.networks[name] for name in ("run", "untrained"))
            errors[mode] = {
                "run": subject.errors(ours, pairs, look),
                "untrained": subject.errors(none, pairs, look),
                "reversed": subject.errors(ours, last, look),
            }
        row = summarise_rendered(world, prop, errors, taught(run))
        rows.append(row | {"trace": trace(codec, filmed, stride)})
    return rows


def taught(run: RunConfig) -> list[str]:
    """Return the tasks by which a run saw parts of a clip at other times; none: it never did."""
    return [task for task in beside_text(run.objective.tasks) if task is not Task.text_to_video]


def closed_forms(
    subject: Subject, world: World[Any], clips: list[PackItem], look: Look
) -> dict[str, Predict]:
    """Return the denoisers of a world that need no training."""
    valid = subject.collator.pack(clips[:1], [CaptionUse.dropped]).valid
    places = Places.of(valid, first_tokens(clips[0], look.frames))
    found: dict[str, Predict] = {"gaussian": GaussianDenoiser.fit(stacked(clips), places)}
    if world.finite:
        found["exact"] = ExactDenoiser.build(subject.run, subject.codec, world, places)
    return found
