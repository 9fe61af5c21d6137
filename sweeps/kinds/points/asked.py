"""Whether the runs of a study can be asked what it asks: their kind says what it counts."""

from collections.abc import Mapping, Sequence

from sweeps.kinds.points.config import Analysis, PointsConfig
from sweeps.study.config import RecipeConfig
from trainer.config import RunKind
from trainer.kinds import KINDS

# Columns that an analysis reads beside the loss and the settings.
NEEDS: Mapping[Analysis, tuple[str, ...]] = {
    Analysis.power: ("params",),
    Analysis.data: ("params", "tokens"),
    Analysis.recipes: ("lr", "batch_tokens", "tokens"),
    Analysis.transfer: ("lr", "width"),
    Analysis.noise: (),
    Analysis.settings: (),
    Analysis.resolution: ("params", "tokens", "flops"),
    Analysis.schedule: ("tokens", "flops"),
    Analysis.samples: ("flops",),
}


def check_asked(study: PointsConfig, kind: RunKind) -> None:
    """Raise ValueError for a question that runs of a kind cannot answer."""
    known, unit = KINDS[kind], study.lengths.chosen[0]
    lacking = [column for column in NEEDS[study.analysis] if column not in known.columns]
    able = [a.value for a, needs in NEEDS.items() if set(needs) <= set(known.columns)]
    by_steps = known.counts == "steps"
    what = f"a run of kind={kind}"
    rules = [
        (f"analysis={study.analysis}", not lacking,
         f"{what} counts no {' or '.join(lacking)}. Use {', '.join(able)}"),
        (f"lengths.{unit}", by_steps or unit != "steps",
         f"the batch of {what} follows from its length. Use lengths.tokens"),
        (f"lengths.{unit}", not by_steps or unit == "steps",
         f"{what} counts neither FLOPs nor tokens. Use lengths.steps=[100,400]"),
        ("sizes.params", not by_steps or not study.sizes.params,
         f"{what} has no ladder of shapes. Set its shape in axes or arms"),
        ("recipe", not by_steps or study.recipe == RecipeConfig(),
         f"{what} has no rule for rate and batch. Set optim.lr in base or axes, and leave it out"),
        ("stand_in", not by_steps or not study.stand_in.num_frames,
         f"{what} is planned without clips. Leave it out"),
        ("y_axis", study.y_axis.axis.plain or kind is RunKind.diffusion,
         f"{what} is validated at no noise levels. Leave it out"),
        ("noise_seeds", not study.noise_seeds or "loss_noise" in known.columns,
         f"{what} is validated without noise. Leave them out"),
    ]  # fmt: skip
    for key, ok, why in rules:
        if not ok:
            raise ValueError(f"{key}: {why}.")


def refuse_fixed(own: Sequence[str], kind: RunKind) -> None:
    """Raise ValueError where an arm or an axis sets what each point is given."""
    keys = {override.lstrip("+").partition("=")[0] for override in own}
    fixed = {"seed": "seeds", **dict.fromkeys(KINDS[kind].lengths.values(), "lengths")}
    for key in sorted(keys & set(fixed)):
        raise ValueError(f"axes: set {key}, which each point is given. Use {fixed[key]}.")
