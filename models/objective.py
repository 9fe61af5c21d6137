"""What an objective is, as a value: its draws, its loss, its validation and its sampler.

Torch-free. An objective is a file of ``models/objectives``, or any module named with dots, that
holds an ``OBJECTIVE``.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from models.seat import member
from models.times import TimeKind, TimePart, TimeScale, needs_spread

if TYPE_CHECKING:
    from torch import Tensor

    from models.pack import TokenPack
    from models.precondition import Coefficients

# (pack, x_t, t) -> the velocity of every value (S, V)
Predict = Callable[["TokenPack", "Tensor", "Tensor"], "Tensor"]
# yields (x, t) of one clip, or a time for each of its spans; is sent the velocity there, and
# returns the clean rows
Walk = Generator[tuple["Tensor", "float | list[float]"], "Tensor", "Tensor"]
# (purpose, shape) -> standard normal values that depend on the sample and the purpose alone
Draw = Callable[[str, tuple[int, ...]], "Tensor"]


class Prediction(StrEnum):
    """What the network's output stands for; its prediction is turned into a velocity."""

    velocity = "velocity"  # what a guess linear in x_t leaves of the velocity (EDM)
    data = "data"  # x_1
    noise = "noise"  # x_0


class Weighting(StrEnum):
    """How much a squared velocity error weighs at its time in training."""

    uniform = "uniform"
    data = "data"  # the error of x_1
    min_snr = "min_snr"
    sigmoid = "sigmoid"


class Spacing(StrEnum):
    """Where a sampler looks before its shift: evenly in t, or as often as training did."""

    even = "even"
    trained = "trained"


class Method(StrEnum):
    """How a sampler goes from one time to the next, see ``models.sampling``."""

    euler = "euler"
    heun = "heun"
    multistep = "multistep"


@dataclass(frozen=True)
class Route:
    """The times at which a clip is looked at on its way from noise to data, and the steps between.

    shift: as in ``models.times.shifted``; None takes what training gives to clips of that length.
    start: the time at which it begins; what is handed in then is not noise but stands at that time.
    still: first steps whose velocity is taken as zero (CFG-Zero*, Fan et al. 2025).
    """

    method: Method = Method.multistep
    num_steps: int = 24
    shift: float | None = None
    spacing: Spacing = Spacing.even
    start: float = 0.0
    still: int = 0


class Settings(Protocol):
    """What an objective reads of a run, see ``trainer.config.ObjectiveConfig``."""

    kind: str
    shift_tokens: float
    most_shift: float
    density: list[TimePart]
    spread: float
    prediction: Prediction
    weight: Weighting
    t_range: list[float]
    options: dict[str, float]


class Objective(Protocol):
    """Turns clean packs into a loss that is a sum over values, and noise into clean packs.

    Rows are (S, V) values, spans have one time each (T,), 0 is noise and 1 is data.
    """

    @property
    def coefficients(self) -> "Coefficients":
        """How the network is preconditioned, see ``models.precondition``."""

    def noise(self, draw: Draw, shape: tuple[int, ...]) -> "Tensor":
        """Return what is drawn for the rows of one sample."""

    def times(self, draws: Sequence[Draw], tokens: "Tensor") -> "Tensor":
        """Return one training time a draw; ``tokens`` counts those of its segment.

        A draw is a span's: a sample has one, or several. Given spans stand at 1 whatever is said.
        """

    def inputs(self, pack: "TokenPack", x_0: "Tensor", t: "Tensor") -> "Tensor":
        """Return what the network sees (S, V)."""

    def errors(self, network: "Predict", pack: "TokenPack", x_0: "Tensor", t: "Tensor") -> "Tensor":
        """Return each row's summed error (S,) as training weighs it."""

    def measured(
        self, network: "Predict", pack: "TokenPack", x_0: "Tensor", t: "Tensor"
    ) -> "Tensor":
        """Return each row's summed error (S,) as validation measures it, whatever was trained."""

    def strata(self, count: int, offset: float) -> "Tensor":
        """Return the times of validation, one a stratum; ``offset`` in [0, 1) within each."""

    def walk(
        self, x: "Tensor", tokens: int, route: Route, source: "Tensor | None" = None
    ) -> "Walk":
        """Return the way of one clip of so many tokens from rows of noise to clean rows.

        source: clean rows that are edited instead (``models.sampling.flow_edit``), with noise for
        each step in x. Raises ValueError where the run cannot sample, or edit.
        """


@dataclass(frozen=True)
class ObjectiveKind:
    """A kind of objective: how it is built, and the keys of ``objective.options`` that it reads."""

    build: Callable[[Settings], Objective]
    options: Mapping[str, str]


@lru_cache(maxsize=16)
def find_objective(kind: str) -> ObjectiveKind:
    """Return the objective of a name; raise ValueError with the remedy."""
    found = member("objective.kind", kind, "models.objectives", "OBJECTIVE")
    if not isinstance(found, ObjectiveKind):
        raise ValueError(
            f"objective.kind={kind}: its OBJECTIVE is no ObjectiveKind. See models/README.md."
        )
    return found


def build_objective(settings: Settings) -> Objective:
    """Build the objective of a run."""
    return find_objective(settings.kind).build(settings)


def check_objective(settings: Settings) -> None:
    """Raise ValueError on settings that cannot work; flow's are checked without torch."""
    low, high = settings.t_range
    if not low < high:
        raise ValueError(
            f"objective.t_range={settings.t_range}: must rise, from noise (0) to data (1). "
            "Use [0.0, 1.0], or [0.0, 0.5] for an expert of the noisy half."
        )
    if 0 < settings.most_shift < 1:
        raise ValueError(
            f"objective.most_shift={settings.most_shift:g}: must be at least 1, where no clip's "
            "times move, or 0, which caps nothing. Use 4."
        )
    for number, part in enumerate(settings.density):
        if part.kind is TimeKind.uniform and part.scale is TimeScale.log_snr:
            raise ValueError(
                f"objective.density[{number}].scale=log_snr: a uniform part is uniform in t. "
                "Leave it out, or use kind=logit_normal."
            )
    if needs_spread(settings.density) and not settings.spread > 0:
        raise ValueError(
            f"objective.spread={settings.spread:g}: must be above 0 where objective.density is "
            "stated in log-SNR. Leave it out: composing a run fills it in."
        )
    if settings.kind == "flow" and not settings.options:
        return
    known = find_objective(settings.kind).options
    for key, value in settings.options.items():
        if key not in known:
            raise ValueError(
                f"objective.options.{key}={value}: is not an option of "
                f"objective.kind={settings.kind}. Options: {', '.join(known) or 'none'}."
            )
