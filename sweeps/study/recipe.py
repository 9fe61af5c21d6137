"""From parameters and tokens to batch, learning rate, warm-up and weight decay: one stated rule.

Without a tuned recipe there is no law: a wrong learning rate or batch moves the loss of tiny models
by as much as doubling the compute (docs/log.md). A rule is a power law of training tokens D and
parameters N for the rate and one for the batch; :data:`PUBLISHED` holds those of others. They were
fitted with one rate for all parameters, N standing for the width too, so a run of theirs switches
the muP roles of ``models/roles.py`` off (``model.base_width`` = ``model.width``). Under our own
rule the roles carry the rate to other widths, and what is left is its fall with the length.
"""

from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from data.checks import Check, Verdict
from data.words import counted
from sweeps.ladder.shapes import Rung
from sweeps.study.config import RecipeConfig, RecipePreset
from trainer.config import RunConfig

ROUNDING_LIMIT = 0.1  # a change that is worth a warning, as in OLMo-core's model ladder


@dataclass(frozen=True)
class PowerLaw:
    """coefficient * (N / params_unit)^params_power * (D / tokens_unit)^tokens_power."""

    coefficient: float
    params_power: float
    tokens_power: float
    params_unit: float = 1.0
    tokens_unit: float = 1.0

    def at(self, params: float, tokens: float) -> float:
        """Return the value for N parameters and D tokens."""
        by_params = (params / self.params_unit) ** self.params_power
        return self.coefficient * by_params * (tokens / self.tokens_unit) ** self.tokens_power

    def __str__(self) -> str:
        """Return the law as an equation's right side."""
        text = f"{self.coefficient:g}"
        for letter, unit, power in (
            ("N", self.params_unit, self.params_power),
            ("D", self.tokens_unit, self.tokens_power),
        ):
            if power:
                text += f" {letter}^{power:g}" if unit == 1 else f" ({letter} / {unit:g})^{power:g}"
        return text


@dataclass(frozen=True)
class RecipeRule:
    """A rule: peak learning rate, batch in tokens, and where they come from."""

    lr: PowerLaw
    batch: PowerLaw
    source: str


PUBLISHED = {
    RecipePreset.step_law: RecipeRule(
        PowerLaw(1.79, -0.713, 0.307),
        PowerLaw(0.58, 0.0, 0.571),
        "Step Law (Li et al. 2025, arXiv 2503.04715): language models of 60 million to 1 billion "
        "parameters, N without embeddings",
    ),
    RecipePreset.video: RecipeRule(
        PowerLaw(2e-4, -0.162, -0.045, 1e9, 1e9),
        PowerLaw(2.18e4, 0.19, 0.81, 1e9, 1e9),
        "Yin et al. 2024 (arXiv 2411.17470): video diffusion transformers of up to 1 billion "
        "parameters; coefficients as transcribed by third parties",
    ),
}


@dataclass(frozen=True)
class Recipe:
    """Settings of one run.

    warmup: share of the run; weight_decay: as AdamW takes it; None leaves them to the base run.
    standard: one rate for all parameters, muP roles off.
    asked_lr, asked_batch: what the rule says before bounds and whole packs; batch in tokens.
    """

    lr: float
    pack_tokens: int
    packs_per_step: int
    warmup: float | None = None
    weight_decay: float | None = None
    standard: bool = False
    asked_lr: float = 0.0
    asked_batch: float = 0.0

    @property
    def batch_tokens(self) -> int:
        """Token budget of a step."""
        return self.pack_tokens * self.packs_per_step

    def steps(self, tokens: float) -> int:
        """Return the whole steps closest to a number of training tokens, at least one."""
        return max(1, round(tokens / self.batch_tokens))

    def overrides(self) -> list[str]:
        """Return them as Hydra overrides of a run."""
        chosen = [
            f"optim.lr={self.lr:.4g}",
            f"data.pack_tokens={self.pack_tokens}",
            f"data.packs_per_step={self.packs_per_step}",
        ]
        if self.warmup is not None:
            chosen.append(f"optim.warmup={self.warmup:.4g}")
        if self.weight_decay is not None:
            chosen.append(f"optim.weight_decay={self.weight_decay:.4g}")
        return [*chosen, "model.base_width=${model.width}"] if self.standard else chosen


def rule_of(config: RecipeConfig) -> RecipeRule:
    """Return the rule that a config asks for."""
    if config.preset is not RecipePreset.own:
        return PUBLISHED[config.preset]
    lr = (config.lr, -config.lr_params_power, -config.lr_power)
    batch = (float(config.batch_tokens), config.batch_params_power, config.batch_power)
    return RecipeRule(
        PowerLaw(*lr, config.lr_params, config.lr_tokens),
        PowerLaw(*batch, config.batch_at_params, config.batch_at_tokens),
        "this study's own rule at base width, which muP roles carry to other widths",
    )


def recipe_for(
    config: RecipeConfig, tokens: float, rung: Rung | None = None, base_width: int = 64
) -> Recipe:
    """Return the settings for a run of ``tokens`` training tokens at a rung of the ladder.

    rung, base_width: needed where the rule depends on N, or sets warm-up or weight decay.
    Raises ValueError for values that give no recipe, and for a rung that is needed and missing.
    """
    config.check()
    if not tokens > 0:
        raise ValueError(f"tokens={tokens}: must be positive. Use for example 1e6.")
    rule = rule_of(config)
    uses_params = rule.lr.params_power or rule.batch.params_power or config.warmup_per_param
    if rung is None and (uses_params or config.weight_timescale):
        raise ValueError(
            f"recipe.preset={config.preset}: this recipe depends on the model. Give a rung."
        )
    params = rung.params if rung else 1.0
    standard = config.preset is not RecipePreset.own
    lr = asked_lr = rule.lr.at(params, tokens)
    if not standard:
        lr = min(max(lr, config.lr_min), config.lr_max)
    asked_batch = rule.batch.at(params, tokens)
    packs = max(1, round(asked_batch / config.pack_tokens))
    warmup = weight_decay = None
    if config.warmup_per_param:
        warmup = min(config.warmup_max, config.warmup_per_param * params / tokens)
    if config.weight_timescale and rung:
        matrix_lr = lr if standard else lr * base_width / rung.width
        steps = max(1.0, tokens / (packs * config.pack_tokens))
        weight_decay = decay_for(matrix_lr, config.weight_timescale * steps)
    return Recipe(
        lr, config.pack_tokens, packs, warmup, weight_decay, standard, asked_lr, asked_batch
    )


def decay_for(lr: float, timescale: float) -> float:
    """Return the weight decay with which AdamW averages its updates over ``timescale`` steps.

    tau = 1 / (lr * weight_decay) (Wang and Aitchison 2024, equation 3). What keeps its best value
    over sizes and lengths is tau as a share of the data seen, so that under muP, where the rate of
    matrices falls with the width, weight decay grows with it. ``lr`` is the peak rate of matrices.
    """
    return 1.0 / (lr * timescale)


def dry_run(base: RunConfig, rung: Rung, recipe: Recipe) -> RunConfig:
    """Return a study's base run at a rung with its recipe, checked as a composed run is.

    The same run as Hydra would compose, in a hundredth of the time: for a look at every rung before
    anything starts. Raises ValueError for a rung or recipe that no run accepts.
    """
    if recipe.weight_decay is not None and not base.optim.decay_by_width:
        raise ValueError(
            "optim.decay_by_width=false: recipe.weight_timescale reckons with a decay that falls "
            "with the width. Leave optim.decay_by_width out, or set recipe.weight_timescale=0."
        )
    shape = [f"model.{key}={getattr(rung, key)}" for key in ("width", "depth", "head_dim")]
    chosen = OmegaConf.from_dotlist([*shape, *recipe.overrides()])
    merged = OmegaConf.merge(OmegaConf.structured(base), chosen)
    assert isinstance(merged, DictConfig)
    run = OmegaConf.to_object(merged)
    assert isinstance(run, RunConfig)
    run.check()
    return run


def rounding_warnings(
    recipe: Recipe,
    tokens: float,
    rung: Rung | None = None,
    params: float | None = None,
    limit: float = ROUNDING_LIMIT,
) -> list[Check]:
    """Say which quantities of a run were moved by ``limit`` or more, a share, by what can be built.

    tokens, params: what was asked of the run; rung: the shape it got. In question are parameters
    (a feasible shape), the batch (whole packs), tokens (whole steps), the rate (its bounds).
    """
    found: list[Check] = []

    def makes(count: int) -> str:
        return "makes" if count == 1 else "make"

    def compare(what: str, asked: float, got: float, why: str) -> None:
        change = got / asked - 1 if asked else 0.0
        if abs(change) >= limit * (1 - 1e-9):
            said = f"{asked:.4g} was asked, {why} {got:.4g} ({change:+.0%})"
            found.append(Check(what, Verdict.warning, said, size=abs(change)))

    if rung is not None and params is not None:
        shape = f"the feasible shape {rung.width} x {rung.depth} has"
        compare("parameters", params, rung.params, shape)
    count = recipe.packs_per_step
    packs = f"{counted(count, 'whole pack')} of {recipe.pack_tokens} {makes(count)}"
    compare("batch in tokens", recipe.asked_batch, recipe.batch_tokens, packs)
    steps = recipe.steps(tokens)
    made = f"{counted(steps, 'whole step')} {makes(steps)}"
    compare("training tokens", tokens, steps * recipe.batch_tokens, made)
    compare("learning rate", recipe.asked_lr, recipe.lr, "its bounds give")
    return found


def describe(config: RecipeConfig) -> str:
    """Say the recipe in one sentence."""
    rule, ours = rule_of(config), config.preset is RecipePreset.own
    bounds = f"within {config.lr_min:g} to {config.lr_max:g}"
    rate = bounds if ours else "the same for all parameters (muP roles off)"
    own, base = [], ["constant and linear decay to zero"]
    if config.weight_timescale:
        tau = f"tau = {config.weight_timescale:g} of the steps"
        own.append(f"weight decay 1 / (lr tau) with {tau} (Wang and Aitchison 2024)")
    else:
        base.insert(0, "weight decay")
    if config.warmup_per_param:
        most = f"at most {config.warmup_max:g} of the run"
        own.append(f"warm-up over {config.warmup_per_param:g} tokens a parameter, {most}")
    else:
        base.insert(0, "warm-up")
    parts = [
        f"Peak learning rate {rule.lr}, {rate}",
        f"batch {rule.batch} tokens in whole packs of {config.pack_tokens}",
        *own,
        f"{', '.join(base)} as in the base run",
        f"source: {rule.source}",
    ]
    return "; ".join(parts) + "."
