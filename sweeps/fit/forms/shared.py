"""A form for the runs of several recipes: what the recipes share, and what each has of its own.

    L_r = E + A_r / N^alpha + B_r / D^beta         own: A and B; the recipes share the rest

A shared coefficient stands once in `theta`, an own one once for each recipe, all in the coordinates
of the form of a single recipe. With only A and B own a recipe counts parameters and tokens by fixed
factors, (A_0 / A_r)^(1 / alpha) and (B_0 / B_r)^(1 / beta): under 6 N D FLOPs it is worth their
product in compute, the same at every loss.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sweeps.fit.forms.base import Array, Columns, Form, Parameter, Rows
from sweeps.fit.forms.powers import BoundPowers, SumOfPowers

RECIPE = "recipe"  # the column that holds a row's place among the recipes


@dataclass(frozen=True)
class Shared(Form):
    """`single`, the form of one recipe, with coefficients `own` to each of `recipes`.

    Where an exponent is own its amplitude must be: at N = 1 a shared one would be none.
    """

    single: SumOfPowers
    recipes: tuple[str, ...]
    own: tuple[str, ...]
    labels = (RECIPE,)

    def __post_init__(self) -> None:
        for term in self.single.terms:
            parted = {e for _, e in term.powers} & set(self.own)
            assert not parted or term.amplitude in self.own, (term, self.own)

    @property
    def name(self) -> str:  # type: ignore[override]
        """Return the form's name, with what each recipe has of its own."""
        return f"{self.single.name}, own {', '.join(self.own)}"

    @property
    def equation(self) -> str:  # type: ignore[override]
        """Return the equation of one recipe, with what it shares."""
        theirs = [n for n in self.single.coefficient_names if n not in self.own]
        equation = self.single.equation.partition(" (")[0]
        return f"{equation}; shared: {', '.join(theirs) or 'nothing'}"

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return the columns of the form of one recipe, and the recipe."""
        return (*self.single.columns, RECIPE)

    @property
    def target(self) -> str:  # type: ignore[override]
        """Return the target of the form of one recipe."""
        return self.single.target

    @property
    def residual(self) -> str:  # type: ignore[override]
        """Return the residual of the form of one recipe."""
        return self.single.residual

    @property
    def delta(self) -> float:  # type: ignore[override]
        """Return the delta of the form of one recipe."""
        return self.single.delta

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Return the coefficients in the order of `theta`."""
        return tuple(
            replace(p, name=name)
            for p in self.single.parameters
            for name in (self._names(p.name) if p.name in self.own else [p.name])
        )

    def _names(self, coefficient: str) -> list[str]:
        """Return what an own coefficient is called for each recipe."""
        return [f"{coefficient}[{recipe}]" for recipe in self.recipes]

    @cached_property
    def index(self) -> list[Rows]:
        """Return for each recipe where in `theta` the coefficients of its form stand."""
        at = {name: i for i, name in enumerate(self.coefficient_names)}
        return [
            np.array([at.get(name, at.get(f"{name}[{recipe}]", -1)) for name in self._single])
            for recipe in self.recipes
        ]

    @property
    def _single(self) -> tuple[str, ...]:
        return self.single.coefficient_names

    def of_recipe(self, theta: Array, place: int) -> Array:
        """Return `theta` `(..., P)` of the form of the one recipe at `place`."""
        return np.asarray(theta[..., self.index[place]])

    def placed(
        self, columns: Columns, target: Array, fixed: Mapping[str, float] | None = None
    ) -> "Shared":
        """Return the form with its reference point in the middle of the rows of all recipes."""
        assert not fixed, "a coefficient of several recipes cannot be held"
        return replace(self, single=self.single.placed(columns, target))

    def bind(self, columns: Columns) -> BoundPowers:
        """Return the form on the rows of one table."""
        return BoundPowers(self.features(columns))

    def features(self, columns: Columns) -> Array:
        """Return `phi` `(T, R, P)` as `SumOfPowers.features`; a row knows its recipe's alone."""
        of_one = self.single.features(columns)
        phi = np.zeros((*of_one.shape[:2], len(self.parameters)))
        for place, index in enumerate(self.index):
            rows = np.flatnonzero(columns[RECIPE] == place)
            phi[:, rows[:, None], index] = of_one[:, rows]
        return phi

    def bounds(self) -> tuple[Array, Array]:
        """Return the lower and upper walls of `theta`, each `(P,)`."""
        low, high = np.zeros(len(self.parameters)), np.zeros(len(self.parameters))
        for index in self.index:
            low[index], high[index] = self.single.bounds()
        return low, high

    def coefficients(self, theta: Array) -> dict[str, Array]:
        """Return the published coefficients, each shaped as the batch."""
        found = {}
        for place, recipe in enumerate(self.recipes):
            for name, value in self.single.coefficients(self.of_recipe(theta, place)).items():
                found[f"{name}[{recipe}]" if name in self.own else name] = value
        return {name: found[name] for name in self.coefficient_names}

    def theta(self, **coefficients: float) -> Array:
        """Return `theta` `(P,)` for published coefficients."""
        theta = np.zeros(len(self.parameters))
        for recipe, index in zip(self.recipes, self.index, strict=True):
            names = {n: f"{n}[{recipe}]" if n in self.own else n for n in self._single}
            theirs = {name: coefficients[own] for name, own in names.items()}
            theta[index] = self.single.theta(**theirs)
        return theta

    def from_nested(self, coefficients: Mapping[str, float]) -> dict[str, float]:
        """Return the coefficients at which each recipe has what a more tied form gives all."""
        return {
            name: coefficients.get(name, coefficients.get(name.partition("[")[0], np.nan))
            for name in self.coefficient_names
        }

    def log_loss_each(self, theta: Array, columns: Columns) -> Array:
        """Return log L_hat `(K, M)` where each theta `(K, P)` has its own rows `(K, M)`."""
        each = [
            self.single.log_loss_each(self.of_recipe(theta, place), columns)
            for place in range(len(self.recipes))
        ]
        return np.asarray(np.choose(columns[RECIPE].astype(int), each))

    def basis(self, shape: Array, columns: Columns) -> tuple[Array, Array]:
        """Return `v` `(G, T, R)`, a term for each recipe that has its own, and the outer power."""
        theta = np.zeros((len(shape), len(self.parameters)))
        theta[:, self.shape_index] = shape
        phi = self.features(columns)
        terms = np.exp(np.einsum("trp,gp->gtr", phi, theta))
        theirs = np.einsum("gtr,trj->gjr", terms, phi[:, :, self.amplitude_index])
        return theirs, np.ones(len(shape))

    def shape_grid(self, num_each: int) -> Array:
        """Return the grid of exponents that the many starts begin from, `(G, S)`."""
        axes = [np.geomspace(0.05, 1.6, num_each)] * len(self.shape_index)
        return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
