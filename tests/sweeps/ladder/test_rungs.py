"""Every rung of every shipped study is dry-run: its run composes, and rounding is named."""

from pathlib import Path

import pytest

from data.dataset.shards import ShardWriter, write_manifest
from sweeps.kinds.compose import CONF_DIR, compose_any
from sweeps.kinds.isoflop.config import StudyConfig
from sweeps.kinds.isoflop.plan import StudyPlan
from sweeps.study.recipe import dry_run, rounding_warnings

FILES = sorted((CONF_DIR / "study").glob("*.yaml"))
# Those with a ladder: studies of a law, whose YAML names no other schema.
TEXTS = {path.stem: path.read_text() for path in FILES}
STUDIES = [name for name, t in TEXTS.items() if "\nbudgets:" in t and "override /schema" not in t]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of which only the index is real: FLOPs a token come from it."""
    root = tmp_path_factory.mktemp("clips")
    with ShardWriter(root, "train", 1_000_000) as writer:
        for number, (frames, height, width) in enumerate([(17, 64, 112), (9, 112, 64)] * 4):
            meta = {
                "key": f"clip-{number}", "media": "latent", "num_frames": frames,
                "height": height, "width": width, "fps": 12.0, "duration_seconds": frames / 12,
                "caption": "a clip", "source": f"rooms/{number}", "licence": "CC0",
                "rendered": True, "original": {}, "caption_tokens": 9,
            }  # fmt: skip
            writer.write(meta, b"none", "safetensors")
    write_manifest(root, {"name": "clips"})
    return root


def asked(study: StudyConfig) -> list[tuple[float, float]]:
    """Return (parameters, FLOPs) of each point that the pilot and the grids begin with."""
    pilot, grid = study.pilot, study.grid
    points = [(params, pilot.flops) for params in pilot.params]
    for budget in study.budgets:
        centre = pilot.params[0] * 2 * (budget / pilot.flops) ** pilot.exponent
        sizes = [centre * grid.spacing ** (i - (grid.sizes - 1) / 2) for i in range(grid.sizes)]
        points += [(max(size, grid.min_params), budget) for size in sizes]
    return points


@pytest.mark.heavy
@pytest.mark.parametrize("name", STUDIES)
def test_every_rung_of_a_study_composes_and_says_what_rounding_moved(
    name: str, root: Path, tmp_path: Path
) -> None:
    study = compose_any([f"study={name}", f"root={tmp_path}"])
    assert isinstance(study, StudyConfig)
    study.base.append(f"data.root={root}")
    plan = StudyPlan(study)
    points = asked(study)
    assert points
    for params, flops in points:
        rung = plan.rung(params)
        recipe, tokens = plan.recipe(rung, flops), plan.tokens_for(rung, flops)
        run = dry_run(plan.base, rung, recipe)
        assert (run.model.width, run.model.depth) == (rung.width, rung.depth)
        warnings = rounding_warnings(recipe, tokens, rung, params)
        moved = abs(rung.params / params - 1) >= 0.1
        assert moved == any(check.name == "parameters" for check in warnings), (params, rung)
    composed = plan.compose(plan.point("grid", flops, rung))
    for key in ("model", "optim", "data"):
        assert getattr(composed, key) == getattr(run, key)
