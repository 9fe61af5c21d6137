"""The recipe: tokens in, learning rate and batch out."""

import pytest

from sweeps.config import RecipeConfig
from sweeps.recipe import describe, recipe_for
from trainer.config import compose_run

CONFIG = RecipeConfig(
    lr=4e-3, lr_tokens=1e6, lr_power=0.25, lr_min=1e-3, lr_max=8e-3,
    batch_tokens=2048, batch_at_tokens=1e6, batch_power=0.5, pack_tokens=512,
)  # fmt: skip


def test_the_reference_point_gets_the_reference_settings() -> None:
    recipe = recipe_for(CONFIG, 1e6)
    assert (recipe.lr, recipe.pack_tokens, recipe.packs_per_step) == (4e-3, 512, 4)


def test_rate_and_batch_follow_their_powers() -> None:
    recipe = recipe_for(CONFIG, 16e6)
    assert recipe.lr == pytest.approx(2e-3)
    assert recipe.packs_per_step == 16


@pytest.mark.parametrize(("tokens", "lr"), [(1.0, 8e-3), (1e12, 1e-3)])
def test_the_rate_keeps_within_its_bounds(tokens: float, lr: float) -> None:
    assert recipe_for(CONFIG, tokens).lr == lr


def test_a_batch_is_whole_packs_and_at_least_one() -> None:
    for tokens in (1e2, 3e5, 7.7e5, 5e6):
        packs = recipe_for(CONFIG, tokens).packs_per_step
        assert isinstance(packs, int)
        assert packs >= 1
    assert recipe_for(CONFIG, 1e2).packs_per_step == 1


def test_without_powers_all_runs_get_one_recipe() -> None:
    config = RecipeConfig()
    assert recipe_for(config, 1e5) == recipe_for(config, 1e9)


def test_overrides_are_a_runs_own_keys() -> None:
    run = compose_run([*recipe_for(CONFIG, 16e6).overrides(), "horizon.steps=1"])
    assert (run.optim.lr, run.data.pack_tokens, run.batch_tokens) == (2e-3, 512, 8192)


def test_the_sentence_states_every_number_of_the_rule() -> None:
    text = describe(CONFIG)
    for number in ("0.004", "1e+06", "0.25", "0.001", "0.008", "2048", "0.5", "512"):
        assert number in text
