"""The forms by name, each with its equation, its columns and where it comes from."""

from sweeps.fit.forms.base import Form
from sweeps.fit.forms.broken_power import BrokenPower
from sweeps.fit.forms.curves import AnyCurve, MultiPower, MultiPowerTied, Tissue
from sweeps.fit.forms.experts import EXPERTS
from sweeps.fit.forms.kaplan import Kaplan
from sweeps.fit.forms.powers import SumOfPowers, Term
from sweeps.fit.forms.repeated_data import DataConstrained
from sweeps.fit.forms.skaling import Skaling

# The form of a law of recipes is a power of its target: what scatters is the optimum that was read
# from a grid, by far more than 1e-3, so least squares of its log takes the place of Huber.
FLOOR = Term("E")
POWER = Term("A", (("x", "alpha"),))
OF_COMPUTE = Term("A", (("flops", "alpha"),))
OF_PARAMS = Term("A", (("params", "alpha"),))
OF_SIZE_AND_DATA = Term("c", (("params", "a"), ("tokens", "b")))
IN_BILLIONS = " with tokens and params in billions or not: only c depends on the unit"

CHINCHILLA = SumOfPowers(
    "chinchilla",
    "L = E + A / params^alpha + B / tokens^beta (Hoffmann et al. 2022, approach 3)",
    (FLOOR, OF_PARAMS, Term("B", (("tokens", "beta"),))),
)
CHINCHILLA_TIED = SumOfPowers(
    "chinchilla_tied",
    "L = E + A / params^alpha + B / tokens^alpha (Muennighoff et al. 2023)",
    (FLOOR, OF_PARAMS, Term("B", (("tokens", "alpha"),))),
)
OVERTRAINING = SumOfPowers(
    "overtraining",
    "L = E + a / params^eta + b / (M params)^eta, M = tokens / params, by least squares of L "
    "(Gadre et al. 2024)",
    (FLOOR, Term("a", (("params", "eta"),)), Term("b", (("tokens", "eta"),))),
    residual="linear",
    delta=float("inf"),
)
WIDTH_DEPTH = SumOfPowers(
    "width_depth",
    "L = E + A / width^alpha + B / depth^beta + C / tokens^gamma (McLeish et al. 2025)",
    (
        FLOOR,
        Term("A", (("width", "alpha"),)),
        Term("B", (("depth", "beta"),)),
        Term("C", (("tokens", "gamma"),)),
    ),
)
WIDTH_DEPTH_PARAMS = SumOfPowers(
    "width_depth_params",
    "L = E + A / width^alpha + B / depth^beta + C / params^gamma + D / tokens^delta "
    "(McLeish et al. 2025)",
    (
        FLOOR,
        Term("A", (("width", "alpha"),)),
        Term("B", (("depth", "beta"),)),
        Term("C", (("params", "gamma"),)),
        Term("D", (("tokens", "delta"),)),
    ),
)
POWER_LAW = SumOfPowers("power", "y = E + A / x^alpha", (FLOOR, POWER))
PURE_POWER = SumOfPowers("power_no_floor", "y = A / x^alpha", (POWER,), signed=True)
FRONTIER = SumOfPowers("frontier", "L = E + A / flops^alpha (best losses)", (FLOOR, OF_COMPUTE))
PURE_FRONTIER = SumOfPowers(
    "frontier_no_floor", "L = A / flops^alpha (Liang et al. 2024)", (OF_COMPUTE,)
)
QUALITY = SumOfPowers(
    "quality", "FID = E + A / flops^alpha, or any metric that falls", (FLOOR, OF_COMPUTE), "fid"
)
PURE_QUALITY = SumOfPowers(
    "quality_no_floor", "FID = A / flops^alpha (as Peebles and Xie 2023 plot it)", (OF_COMPUTE,),
    "fid",
)  # fmt: skip
LEARNING_RATE = SumOfPowers(
    "lr", "lr = c / (params^a tokens^b) (Li et al. 2025; Yin et al. 2024)" + IN_BILLIONS,
    (OF_SIZE_AND_DATA,), "lr", delta=float("inf"), signed=True,
)  # fmt: skip
BATCH = SumOfPowers(
    "batch", "batch = c / tokens^b (Li et al. 2025)", (Term("c", (("tokens", "b"),)),), "batch",
    delta=float("inf"), signed=True,
)  # fmt: skip
BATCH_OF_BOTH = SumOfPowers(
    "batch_params_tokens", "batch = c / (params^a tokens^b) (video: Yin et al. 2024)" + IN_BILLIONS,
    (OF_SIZE_AND_DATA,), "batch", delta=float("inf"), signed=True,
)  # fmt: skip

FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        CHINCHILLA, CHINCHILLA_TIED, Kaplan(), OVERTRAINING, Skaling(), DataConstrained(),
        WIDTH_DEPTH, WIDTH_DEPTH_PARAMS, POWER_LAW, PURE_POWER, BrokenPower(), FRONTIER,
        PURE_FRONTIER, QUALITY, PURE_QUALITY, LEARNING_RATE, BATCH, BATCH_OF_BOTH, Tissue(),
        MultiPower(), MultiPowerTied(), AnyCurve(), EXPERTS,
    )
}  # fmt: skip

# Laws of loss in parameters and tokens alone, which can stand in for each other.
LOSS_FORMS = ("chinchilla", "chinchilla_tied", "kaplan", "overtraining", "skaling")


def form_of(name: str) -> Form:
    """Return the form called `name`.

    Raises:
        ValueError: it is not in the catalogue.
    """
    if name not in FORMS:
        raise ValueError(f"form={name}: is not known. Use one of {', '.join(FORMS)}.")
    return FORMS[name]


def loss_form_of(name: str) -> Form:
    """Return the form called `name`, which is a law of loss in parameters and tokens alone.

    Raises:
        ValueError: it is none of them.
    """
    form = form_of(name)
    if name not in LOSS_FORMS:
        raise ValueError(
            f"form={name}: is no law of params and tokens. Use one of {', '.join(LOSS_FORMS)}."
        )
    return form
