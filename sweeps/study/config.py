"""What all studies share: the values that any study has, and the parts of their schemas."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar, Protocol

from annotated_types import Ge, Gt, Le
from typing_extensions import Doc

from data.bounds import check_bounds
from launch.config import ClusterConfig

Positive = Annotated[float, Gt(0)]
Power = Annotated[float, Ge(-2), Le(2)]  # published ones lie between -0.7 and 0.7


class Study(Protocol):
    """A study of any kind.

    kind: its name in sweeps/kinds/catalogue.py and in a YAML's ``schema``.
    free: keys of its kind that change no run which is there, so that a study goes on with others.
    name, question: what it is called and what it asks.
    root: folder of all studies. base: Hydra overrides that every run shares.
    """

    kind: ClassVar[str]
    free: ClassVar[tuple[str, ...]]
    name: str
    question: str
    root: str
    base: list[str]
    cluster: ClusterConfig

    @property
    def folder(self) -> Path:
        """The study's folder."""

    def check(self) -> None:
        """Raise ValueError on a study that cannot answer its question."""


@dataclass
class SizesConfig:
    """Sizes from the ladder; empty leaves the shape to the base, the arms and the axes.

    A run of length X gets the shape closest to params * (X / at) ** exponent.
    """

    params: Annotated[list[Positive], Doc("Parameters of the sizes at length at.")] = field(
        default_factory=list
    )
    at: Annotated[
        float,
        Ge(0),
        Doc(
            "Length at which params are stated, in the unit of lengths; needed where "
            "exponent is not 0."
        ),
    ] = 0.0
    exponent: Annotated[
        float,
        Ge(0),
        Le(4),
        Doc("Power of the length by which sizes grow; with 0 all lengths have the same sizes."),
    ] = 0.0

    def scaled(self, params: float, length: float) -> float:
        """Return what a size that is stated at ``at`` is asked to have at another length."""
        return params * ((length / self.at) ** self.exponent if self.at else 1.0)


class RecipePreset(StrEnum):
    """Whose law gives learning rate and batch; sources and coefficients in recipe.py."""

    own = "own"
    step_law = "step_law"
    video = "video"


@dataclass
class RecipeConfig:
    """How batch, rate, warm-up and decay follow from a run's N parameters and D tokens; recipe.py.

    lr(N, D) = lr * (D / lr_tokens) ** -lr_power * (N / lr_params) ** -lr_params_power, and the
    batch grows by its own powers; muP roles need no N.
    """

    lr: Annotated[
        Positive, Doc("Peak learning rate at lr_tokens training tokens and the model's base_width.")
    ] = 5e-3
    lr_tokens: Annotated[Positive, Doc("Training tokens at which lr is stated.")] = 1e6
    lr_power: Annotated[Power, Doc("Power of D by which the rate falls.")] = 0.0
    lr_min: Annotated[Positive, Doc("Least rate.")] = 5e-4
    lr_max: Annotated[Positive, Doc("Largest rate.")] = 2e-2
    batch_tokens: Annotated[
        int, Ge(1), Doc("Batch at batch_at_tokens training tokens, in tokens.")
    ] = 1024
    batch_at_tokens: Annotated[
        Positive, Doc("Training tokens at which batch_tokens is stated.")
    ] = 1e6
    batch_power: Annotated[Power, Doc("Power of D by which the batch grows.")] = 0.0
    pack_tokens: Annotated[int, Ge(1), Doc("A batch is whole packs of so many tokens.")] = 1024
    preset: Annotated[
        RecipePreset,
        Doc("A published law replaces the coefficients and bounds here, own uses them."),
    ] = RecipePreset.own
    lr_params: Annotated[Positive, Doc("Parameters at which lr is stated.")] = 1e5
    lr_params_power: Annotated[Power, Doc("Power of N by which the rate falls.")] = 0.0
    batch_at_params: Annotated[Positive, Doc("Parameters at which batch_tokens is stated.")] = 1e5
    batch_params_power: Annotated[Power, Doc("Power of N by which the batch grows.")] = 0.0
    warmup_per_param: Annotated[
        float, Ge(0), Doc("Tokens of warm-up for each parameter; 0 leaves warm-up to the base run.")
    ] = 0.0
    warmup_max: Annotated[float, Gt(0), Le(1), Doc("Most warm-up, as a share of the run.")] = 0.2
    weight_timescale: Annotated[
        float,
        Ge(0),
        Doc(
            "Weight decay is set so that the weights average over this share of the run; 0 "
            "leaves it to the base run."
        ),
    ] = 0.0

    def check(self) -> None:
        """Raise ValueError on values that give no recipe."""
        check_bounds(self, "recipe.")
        if self.lr_max < self.lr_min:
            raise ValueError(
                f"recipe.lr_max={self.lr_max:g}: must be at least recipe.lr_min={self.lr_min:g}. "
                f"Use {10 * self.lr_min:g}."
            )


@dataclass
class SampleConfig:
    """The compute ladder: clips from the best model of each budget, same noise and prompts."""

    prompts: Annotated[int, Ge(0), Doc("Held-out captions to draw from; 0 draws none.")] = 4
    guidance: Annotated[
        float, Ge(0), Doc("Weight of the prompt against no prompt; 1 leaves guidance out.")
    ] = 2.0
    steps: Annotated[int, Ge(1), Le(1000), Doc("Steps of the sampler.")] = 16


class SampledStudy(Study, Protocol):
    """A study that ends with a compute ladder."""

    samples: SampleConfig
