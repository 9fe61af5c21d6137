"""The recipe: parameters and tokens in, batch, learning rate, warm-up and weight decay out."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fit_data
from sweeps.kinds.compose import compose_study
from sweeps.ladder.shapes import Rung
from sweeps.study.config import RecipeConfig, RecipePreset
from sweeps.study.freeze import freeze_study
from sweeps.study.recipe import (
    PUBLISHED,
    decay_for,
    describe,
    dry_run,
    recipe_for,
    rounding_warnings,
)
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


RUNG = Rung(width=128, depth=4, head_dim=64, params=1_000_000)


def test_our_own_rule_may_depend_on_parameters() -> None:
    config = replace(CONFIG, lr_params=1e5, lr_params_power=0.5, lr_min=1e-4,
                     batch_at_params=1e5, batch_params_power=0.25)  # fmt: skip
    recipe = recipe_for(config, 1e6, replace(RUNG, params=1_600_000))
    assert recipe.lr == pytest.approx(1e-3)
    assert recipe.packs_per_step == 8


def test_step_law_at_a_billion_parameters_and_a_hundred_billion_tokens() -> None:
    # 1.79 10^(-.713 9 + .307 11) = 1.79 10^-3.04 and .58 10^(.571 11) = .58 10^6.281
    config = RecipeConfig(preset=RecipePreset.step_law, pack_tokens=4096)
    recipe = recipe_for(config, 1e11, replace(RUNG, params=10**9))
    assert recipe.lr == pytest.approx(1.79 * 10**-3.04)
    assert recipe.batch_tokens == pytest.approx(0.58 * 10**6.281, rel=2e-3)


def test_the_video_law_has_its_coefficients_at_a_billion_parameters_and_tokens() -> None:
    config = RecipeConfig(preset=RecipePreset.video, pack_tokens=100)
    recipe = recipe_for(config, 1e9, replace(RUNG, params=10**9))
    assert (recipe.lr, recipe.batch_tokens) == (2e-4, 21_800)
    larger = recipe_for(config, 1e10, replace(RUNG, params=10**10))
    assert larger.lr == pytest.approx(2e-4 * 10**-0.207)
    assert larger.asked_batch == pytest.approx(2.18e5)  # .81 + .19 = 1


@pytest.mark.skipif(not fit_data.present(), reason=fit_data.ABSENT)
def test_step_law_picks_grid_points_as_good_as_its_authors_state() -> None:
    columns = fit_data.steplaw()
    law, regrets = PUBLISHED[RecipePreset.step_law], []
    for params, tokens in sorted(set(zip(columns["params"], columns["tokens"], strict=True))):
        here = (columns["params"] == params) & (columns["tokens"] == tokens)
        batch = law.batch.at(params, tokens) / 2048  # in sequences
        away = np.log(columns["lr"][here] / law.lr.at(params, tokens)) ** 2
        away += np.log(columns["batch"][here] / batch) ** 2
        loss = columns["loss"][here]
        regrets.append(loss[np.argmin(away)] / loss.min() - 1)
    assert len(regrets) == 17
    assert 100 * np.mean(regrets) < 0.1  # .09 % in the abstract; .0957 on what was published


@pytest.mark.parametrize("preset", [RecipePreset.step_law, RecipePreset.video])
def test_a_published_law_trains_with_one_rate_for_all_parameters(preset: RecipePreset) -> None:
    recipe = recipe_for(RecipeConfig(preset=preset), 1e6, RUNG)
    run = compose_run([*recipe.overrides(), "model.width=192", "horizon.steps=1"])
    assert run.model.base_width == run.model.width == 192
    assert run.optim.lr == pytest.approx(recipe.lr, rel=1e-3)


def test_a_law_of_parameters_asks_for_the_rung() -> None:
    with pytest.raises(ValueError, match=r"recipe\.preset=video: .* Give a rung\."):
        recipe_for(RecipeConfig(preset=RecipePreset.video), 1e6)


def test_warm_up_takes_as_many_tokens_as_the_model_has_parameters() -> None:
    config = RecipeConfig(warmup_per_param=1.0)
    assert recipe_for(config, 2e7, RUNG).warmup == pytest.approx(0.05)
    assert recipe_for(config, 2e6, RUNG).warmup == config.warmup_max
    assert "optim.warmup=0.05" in recipe_for(config, 2e7, RUNG).overrides()


def test_adamw_averages_over_the_stated_share_of_the_run_at_any_width_and_length() -> None:
    config = RecipeConfig(lr=4e-3, weight_timescale=0.25, batch_tokens=1024, pack_tokens=1024)
    for width, steps in ((64, 1000), (256, 1000), (256, 4000)):
        recipe = recipe_for(config, 1024.0 * steps, replace(RUNG, width=width), base_width=64)
        assert recipe.weight_decay is not None
        matrix_lr = recipe.lr * 64 / width
        assert 1 / (matrix_lr * recipe.weight_decay) == pytest.approx(0.25 * steps)


def test_weight_decay_shrinks_a_weight_to_a_third_within_its_timescale() -> None:
    lr, timescale = 1e-3, 500
    kept = (1 - lr * decay_for(lr, timescale)) ** timescale
    assert kept == pytest.approx(np.exp(-1), rel=2e-3)


def test_a_recipe_that_rounds_to_what_was_asked_gives_no_warning() -> None:
    recipe = recipe_for(CONFIG, 1e6)
    assert rounding_warnings(recipe, 1e6, RUNG, RUNG.params) == []


FIXED = RecipeConfig(batch_tokens=2048, pack_tokens=512)


@pytest.mark.parametrize(
    ("config", "tokens", "params", "said"),
    [
        (FIXED, 1e6, 8.9e5, r"parameters: 8\.9e\+05 .* 128 x 4 has 1e\+06 \(\+12%\)"),
        (FIXED, 1e6, 1.12e6, r"parameters: .* has 1e\+06 \(-11%\)"),
        (replace(FIXED, batch_tokens=800), 1e6, 1e6, r"batch in tokens: 800 .* 1024 \(\+28%\)"),
        (FIXED, 2900.0, 1e6, r"training tokens: 2900 .* 1 whole step makes 2048 \(-29%\)"),
        (replace(FIXED, lr=3e-2), 1e6, 1e6, r"learning rate: 0\.03 .* bounds give 0\.02 \(-33%\)"),
    ],
)
def test_what_rounding_moves_by_a_tenth_is_said(
    config: RecipeConfig, tokens: float, params: float, said: str
) -> None:
    found = rounding_warnings(recipe_for(config, tokens), tokens, RUNG, params)
    assert len(found) == 1
    assert re.search(said, found[0].text)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"lr": 0.0}, r"recipe\.lr=0: must be above 0\. Use 0\.005\."),
        ({"pack_tokens": -1}, r"recipe\.pack_tokens=-1: must be at least 1"),
        ({"lr_min": 1.0}, r"recipe\.lr_max=0\.02: must be at least recipe\.lr_min=1\. Use 10\."),
        ({"weight_timescale": -1.0}, r"recipe\.weight_timescale=-1: must be at least 0"),
        ({"warmup_max": 1.5}, r"recipe\.warmup_max=1\.5: must be at most 1"),
    ],
)
def test_values_that_give_no_recipe_are_refused(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        recipe_for(replace(RecipeConfig(), **wrong), 1e6)


def test_a_timescale_and_a_decay_that_ignores_the_width_are_refused_together() -> None:
    base = compose_run(["horizon.steps=1", "optim.decay_by_width=false"])
    recipe = recipe_for(replace(CONFIG, weight_timescale=0.25), 1e6, RUNG)
    with pytest.raises(ValueError, match=r"^optim\.decay_by_width=false: .*weight_timescale=0"):
        dry_run(base, RUNG, recipe)


def test_tokens_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tokens=0: must be positive"):
        recipe_for(RecipeConfig(), 0)


def test_a_study_frozen_before_a_key_existed_goes_on(tmp_path: Path) -> None:
    study = compose_study(["study=smoke", f"root={tmp_path}"])
    freeze_study(study)
    path = study.folder / "study.yaml"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "weight_timescale" not in line))
    assert path.read_text().count("\n") == len(lines) - 1
    freeze_study(study)
    path.write_text(path.read_text().replace("lr: 0.004", "lr: 0.005"))
    with pytest.raises(ValueError, match="holds a study with other settings"):
        freeze_study(study)


def test_the_sentence_names_the_source_of_a_published_law() -> None:
    text = describe(RecipeConfig(preset=RecipePreset.step_law, weight_timescale=0.2))
    for part in ("1.79 N^-0.713 D^0.307", "0.58 D^0.571", "Li et al. 2025", "tau = 0.2"):
        assert part in text
