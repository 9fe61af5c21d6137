"""From a study of points to specs: arms x axes x sizes x lengths x seeds, each composed once."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from data.dataset.shards import read_index
from data.loading.mixture import limited
from launch.local.process import Job
from models.config import ModelConfig
from sweeps.kinds.points.asked import check_asked, refuse_fixed
from sweeps.kinds.points.config import PointsConfig
from sweeps.kinds.points.draft import DRAFTS, Length
from sweeps.ladder.shapes import Rung, shape_for
from sweeps.study.clips import StandIn
from sweeps.study.spec import Phase, Spec, no_length, overrides_of, train_job
from trainer.config import RunConfig, RunKind
from trainer.diffusion.horizon import Clip
from trainer.kinds import KINDS, AnyRun, compose_any, folder_of, kind_of

MAX_POINTS = 100_000  # a product that is larger is a mistake in the YAML


@dataclass(frozen=True)
class Point:
    """One run to be.

    spec: its name, phase and overrides; its ``budget`` is what was asked, as its kind counts it.
    kind: of run. settings: the overrides of the axes, by key.
    length: what was asked, in the study's unit. seed: of weights, order and noise.
    params, tokens, unique_tokens: see ``draft.py``. cluster: the trunk that points share.
    group: what all runs share that differ only in rate, batch and seed.
    """

    spec: Spec
    kind: RunKind
    settings: dict[str, str]
    length: float
    seed: int
    params: int
    tokens: float
    unique_tokens: int
    group: str
    cluster: str = ""

    @property
    def arm(self) -> str:
        """Its arm, '' where there are none."""
        return self.spec.arm


class PointsPlan:
    """Turn a study of points into points, and points into run folders and jobs."""

    def __init__(self, study: PointsConfig) -> None:
        self.study = study
        self._index = cache(self._read_index)
        self._composed = cache(self._compose_shared)
        self._run = cache(compose_of)  # a quarter of a second, and asked for in every phase
        self._shape = cache(shape_for_values)  # a search over all widths

    def points(self) -> list[Point]:
        """Return all points of the study, in the order of the YAML; with branches, the trunks."""
        study = self.study
        unit, lengths = study.lengths.chosen
        phase = Phase.grid
        if study.branches.every:
            phase, unit = Phase.trunk, "steps"
            lengths = [float(study.branches.every * study.branches.count)]
        sizes = study.sizes.params or [0.0]
        arms = study.arms or {"": []}
        chosen = list(product(arms, expand(study.axes), lengths, sizes, study.seeds))
        if len(chosen) > MAX_POINTS:
            raise ValueError(f"axes: make {len(chosen)} points. Use fewer than {MAX_POINTS}.")
        self._check([self._own(arm, dict(settings)) for arm, settings, *_ in chosen])
        found: dict[str, Point] = {}
        for arm, settings, length, size, seed in chosen:
            point = self._point(phase, arm, dict(settings), Length(unit, length), size, seed)
            found.setdefault(point.spec.name, point)  # two sizes may share the closest shape
        return list(found.values())

    def repeat(self, point: Point, seed: int) -> Point:
        """Return a point again with another seed."""
        overrides = [o for o in point.spec.overrides if not o.startswith("seed=")]
        name = f"{point.spec.name}-s{seed}"
        spec = replace(
            point.spec,
            name=name,
            phase=Phase.replicate,
            overrides=[*overrides, f"seed={seed}"],
        )
        return replace(point, spec=spec, seed=seed)

    def _point(
        self,
        phase: Phase,
        arm: str,
        settings: dict[str, str],
        length: Length,
        size: float,
        seed: int,
    ) -> Point:
        """Return one point."""
        own = self._own(arm, settings)
        run, shape = self._shaped(own, size, length.value)
        kind = KINDS[run.kind]
        draft = DRAFTS[kind.counts](run, length, self.study.recipe, own, self._clips_of)
        words = [arm, *(f"{_short(k)}{_plain(v)}" for k, v in settings.items())]
        words += [_shape_of(shape), draft.label, f"s{seed}" if seed else ""]
        free = [f"{key}={value}" for key, value in settings.items() if key not in RATES]
        return Point(
            spec=Spec(
                "-".join(word.replace("+", "") for word in words if word),
                phase,
                draft.budget,
                [*own, *shape, *draft.overrides, f"seed={seed}"],
                arm,
                kind.counts,
            ),
            kind=run.kind,
            settings=settings,
            length=length.value,
            seed=seed,
            params=draft.params,
            tokens=draft.tokens,
            unique_tokens=draft.unique_tokens,
            group=json.dumps([arm, sorted(free), shape, length.value]),
        )

    def _own(self, arm: str, settings: dict[str, str]) -> list[str]:
        """Return the overrides of an arm, then those of the axes."""
        return [*self.study.arms.get(arm, []), *(f"{k}={v}" for k, v in settings.items())]

    def _check(self, owns: Sequence[list[str]]) -> None:
        """Raise ValueError for runs that the study cannot ask, and for those of several kinds."""
        kinds = list(dict.fromkeys(self._composed(tuple(own)).kind for own in owns))
        for kind in kinds:
            check_asked(self.study, kind)
        if len(kinds) > 1:
            raise ValueError(
                f"arms: are runs of kind={' and kind='.join(kinds)}, whose losses do not "
                "compare. Use a study for each."
            )
        for own in owns:
            refuse_fixed(own, kinds[0])

    def _shaped(self, own: Sequence[str], size: float, length: float) -> tuple[AnyRun, list[str]]:
        """Return the run with the ladder's shape for a size, and the overrides that give it."""
        run, sizes = self._composed(tuple(own)), self.study.sizes
        if not size or not isinstance(run, RunConfig):  # others have no ladder, and are refused
            return run, []
        rung = self._shape(sizes.scaled(size, length), json.dumps(asdict(run.model)))
        keys = ("width", "depth", "head_dim")
        model = replace(run.model, **{key: getattr(rung, key) for key in keys})
        return replace(run, model=model), [f"model.{key}={getattr(rung, key)}" for key in keys]

    def _compose_shared(self, own: tuple[str, ...]) -> AnyRun:
        kind = kind_of([*self.study.base, *own])
        some = f"{next(iter(KINDS[kind].lengths.values()))}=1"
        return compose_any([*self.study.base, *no_length(kind), some, *own])

    def _clips_of(self, run: RunConfig) -> Sequence[Clip]:
        return self._index(run.data.root, run.data.train_split, run.data.limit)

    def _read_index(self, root: str, split: str, limit: float) -> Sequence[Clip]:
        """Return the clips that a run trains on, or the one that stands in for them."""
        try:
            infos = read_index(root, split)
        except ValueError:
            if not self.study.stand_in.num_frames:
                raise
            return [StandIn(**asdict(self.study.stand_in))]
        return limited(infos, limit)

    def compose(self, spec: Spec) -> AnyRun:
        """Compose a spec's run."""
        return self._run(tuple(overrides_of(self.study, spec)))

    def transformer(self, spec: Spec) -> RunConfig:
        """Compose a spec's run in a study that is asked of diffusion transformers alone."""
        run = self.compose(spec)
        assert isinstance(run, RunConfig), "check_asked refuses others"
        return run

    def folder(self, spec: Spec) -> Path:
        """Return a spec's run folder, whether it exists or not."""
        return folder_of(self.compose(spec))

    def job(self, spec: Spec) -> Job:
        """Freeze a spec's run and return the job that trains it."""
        return train_job(self.compose(spec), spec.name, spec.budget)


def compose_of(overrides: tuple[str, ...]) -> AnyRun:
    """Return ``compose_any`` of overrides that can be a key."""
    return compose_any(list(overrides))


def shape_for_values(params: float, model: str) -> Rung:
    """Return the ladder's shape near some parameters; ``model`` is the base's in JSON."""
    return shape_for(params, ModelConfig(**json.loads(model)))


RATES = ("optim.lr", "data.packs_per_step", "data.pack_tokens")  # free within a group


def expand(axes: Sequence[str]) -> list[tuple[tuple[str, str], ...]]:
    """Return the product of Hydra sweeps as ((key, value), ...), the last axis fastest.

    Raises ValueError for what is no override, sets nothing, or sets a key twice.
    """
    parser = OverridesParser.create()
    choices: list[list[tuple[str, str]]] = []
    for axis in axes:
        try:
            parsed = parser.parse_override(axis)
            if not parsed.is_sweep_override():
                raise ValueError(f"axes={axis!r}: has one value. Use key=a,b, or set it in base.")
            values = [str(value) for value in parsed.sweep_string_iterator()]
        except HydraException as error:
            text = str(error).splitlines()[0]
            raise ValueError(f"axes={axis!r}: {text}. Use a Hydra sweep, key=a,b.") from error
        choices.append([(parsed.get_key_element(), value) for value in values])
    keys = [choice[0][0] for choice in choices]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise ValueError(f"axes: set {', '.join(sorted(twice))} twice. Give each key one axis.")
    return list(product(*choices))


def _shape_of(shape: Sequence[str]) -> str:
    """Return a shape of the ladder as a part of a run's name, '' where none was asked."""
    width, depth = (o.partition("=")[2] for o in shape[:2]) if shape else ("", "")
    return f"w{width}d{depth}" if shape else ""


def _short(key: str) -> str:
    return key.rpartition(".")[2].replace("_", "")


def _plain(value: str) -> str:
    """Return a value as part of a folder's name."""
    return "".join(c if c.isalnum() or c in ".-" else "-" for c in value).replace("+", "")[:24]
