"""The forms a law can take, each a small declaration: its terms, its parameters, its columns.

Every form is a signed sum of terms, raised to a power that is nearly always 1:

    L_hat_i = ( sum_t sign_t exp(a_t) v_t(s; x_i) ) ^ p(s)

with amplitudes `a_t` (logs) and a shape `s` (exponents, breaks, decay rates). At a fixed shape the
sum is linear in the amplitudes, which is what variable projection starts from (`starts.py`). In
`SumOfPowers` every log `v_t` is linear in the exponents, the signs are plus and `p` is 1, so its
Hessian is exact and cheap. `powers.py` holds them; `separable.py`, `bends.py` and `curves.py` hold
the other forms.

`theta` is always a batch `(K, P)`: the many starts of one fit, or the refits of many resamples.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
Flags = NDArray[np.bool_]
Columns = Mapping[str, Array]
# Training FLOPs per token of a model with these many parameters, element by element.
FlopsPerToken = Callable[[Array], Array]

# A term that falls faster than x^-8 is a step, not a power (published: .03 to .7): a fit that ends
# on this wall is reported as not identified.
EXPONENT_LIMIT = 8.0
# A term this many e-folds below the target is zero to twelve digits.
TERM_FOLDS = 30.0


@dataclass(frozen=True)
class Parameter:
    """Describe one coefficient: `kind` is floor, amplitude, exponent or scale.

    `low` and `high` bound it in the fit's coordinates: exponents as they are, all others as logs
    (amplitudes relative to the target, so their bounds here are unused).
    """

    name: str
    kind: str
    low: float = 0.0
    high: float = EXPONENT_LIMIT


@dataclass(frozen=True)
class Expansion:
    """Hold a form's first derivatives at `theta`, and how to contract its second ones.

    `curvature(psi, free)` returns sum_i psi_i d2 log L_hat_i / d theta2, `(K, P, P)`; rows and
    columns of parameters that are not `free` `(P,)` may be left at zero.
    """

    log_prediction: Array  # (K, R)
    jacobian: Array  # (K, P, R)
    curvature: Callable[[Array, Flags | None], Array]


class Relation:
    """What a law is called, its equation, and the columns it needs of a table besides `target`."""

    name: str
    equation: str
    columns: tuple[str, ...]
    target: str = "loss"


class Form(Relation, ABC):
    """What every form has; see the module's docstring.

    `residual` and `delta` are the published objective (log or linear residuals, the width of
    Huber's quadratic part).
    """

    residual: str = "log"
    delta: float = 1e-3
    max_starts: int = 16  # the best of the grid are polished
    reduced: str | None = None  # the form to fall back to where a coefficient is not determined
    base: "Form | None" = None  # the form inside this one, whose coefficients place it
    nested: "Form | None" = None  # the form that this one is at some coefficients: a start
    choices: tuple[str, ...] = ()  # the forms of which one is chosen in the place of this
    unheld: tuple[str, ...] = ()  # coefficients that no one entry of theta gives: never fixed
    labels: tuple[str, ...] = ()  # columns that name groups of rows and have no exponent

    @property
    @abstractmethod
    def parameters(self) -> tuple[Parameter, ...]:
        """Return the coefficients in the order of `theta`."""

    @property
    def coefficient_names(self) -> tuple[str, ...]:
        """Return the coefficients' names in the order of `theta`."""
        return tuple(p.name for p in self.parameters)

    @abstractmethod
    def placed(
        self, columns: Columns, target: Array, fixed: Mapping[str, float] | None = None
    ) -> "Form":
        """Return the form with its reference point in the middle of these rows.

        Coefficients that `fixed` pins must then be pinned by single entries of `theta`. A form
        with a `base` is given all coefficients of that among `fixed`: those of its fit to
        `base_rows` where they are not pinned.
        """

    def base_rows(self, columns: Columns) -> Flags:
        """Return the rows that the `base` of this form is fitted to, `(R,)`."""
        return np.ones(len(next(iter(columns.values()))), dtype=bool)

    def from_nested(self, coefficients: Mapping[str, float]) -> dict[str, float]:
        """Return the coefficients at which this form is its `nested` one with `coefficients`."""
        return dict(coefficients)

    @abstractmethod
    def bind(self, columns: Columns) -> "Bound":
        """Return the form on the rows of one table."""

    @abstractmethod
    def bounds(self) -> tuple[Array, Array]:
        """Return the lower and upper walls of `theta`, each `(P,)`."""

    @abstractmethod
    def coefficients(self, theta: Array) -> dict[str, Array]:
        """Return the published coefficients, each shaped as the batch."""

    @abstractmethod
    def theta(self, **coefficients: float) -> Array:
        """Return `theta` `(P,)` for published coefficients."""

    @abstractmethod
    def log_loss_each(self, theta: Array, columns: Columns) -> Array:
        """Return log L_hat `(K, M)` where each theta `(K, P)` has its own rows `(K, M)`."""

    @abstractmethod
    def basis(self, shape: Array, columns: Columns) -> tuple[Array, Array]:
        """Return the signed `v` `(G, T, R)` and the outer power `(G,)` at shapes `(G, S)`."""

    @abstractmethod
    def shape_grid(self, num_each: int) -> Array:
        """Return the grid of shapes that the many starts begin from, `(G, S)`."""

    @property
    def shape_index(self) -> list[int]:
        """Return where in `theta` the shape's parameters are."""
        return [i for i, p in enumerate(self.parameters) if p.kind in ("exponent", "scale")]

    @property
    def amplitude_index(self) -> list[int]:
        """Return where in `theta` the amplitude of each term is."""
        return [i for i, p in enumerate(self.parameters) if p.kind in ("floor", "amplitude")]


class Bound(ABC):
    """A form on the rows of one table: predictions and derivatives for any `theta`."""

    @abstractmethod
    def log_prediction(self, theta: Array) -> Array:
        """Return log L_hat, `(K, R)`."""

    @abstractmethod
    def expand(self, theta: Array) -> Expansion:
        """Return log L_hat with its derivatives."""


Interval = tuple[float, float]
