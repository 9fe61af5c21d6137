"""A study as a list of runs, its configuration and what it refuses."""

from copy import deepcopy
from itertools import pairwise
from math import exp, log
from pathlib import Path
from statistics import fmean

import pytest

from data.dataset.shards import ShardWriter, write_manifest
from models.count import count_params
from sweeps.fit.forms.catalogue import LOSS_FORMS
from sweeps.kinds.arms.config import ArmsConfig
from sweeps.kinds.arms.plan import ArmsPlan
from sweeps.kinds.compose import CONF_DIR, compose_any, compose_study
from sweeps.kinds.emergence.config import EmergenceConfig
from sweeps.kinds.isoflop.config import LawForm, StudyConfig
from sweeps.kinds.isoflop.plan import StudyPlan
from sweeps.study.freeze import freeze_study
from sweeps.study.spec import no_length
from trainer import kinds
from trainer.config import RunKind
from trainer.diffusion.horizon import plan_horizon

SIZES = [(17, 64, 112), (9, 120, 80), (5, 96, 96), (1, 128, 96), (13, 72, 112), (17, 112, 64)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of which only the index is real."""
    root = tmp_path_factory.mktemp("clips")
    with ShardWriter(root, "train", 1_000_000) as writer:
        for number in range(90):
            frames, height, width = SIZES[number % len(SIZES)]
            meta = {
                "key": f"clip-{number}", "media": "latent", "num_frames": frames,
                "height": height, "width": width, "fps": 12.0 if frames > 1 else 0.0,
                "duration_seconds": frames / 12, "caption": "a clip",
                "source": f"rooms/{number // 5}", "licence": "CC0", "rendered": True,
                "original": {}, "caption_tokens": 5 + number % 7,
            }  # fmt: skip
            writer.write(meta, b"none", "safetensors")
    write_manifest(root, {"name": "clips"})
    return root


@pytest.fixture(scope="module")
def planned(root: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyPlan:
    """Return the plan of the demo study, made once: composing is what takes time."""
    base = f'base=["experiment=cpu_demo","data.root={root}","validation.splits=[train]"]'
    folder = tmp_path_factory.mktemp("studies")
    return StudyPlan(compose_study(["study=demo", base, f"root={folder}"]))


@pytest.fixture
def plan(planned: StudyPlan) -> StudyPlan:
    """Return a plan whose study a test may change."""
    return deepcopy(planned)


@pytest.mark.heavy
@pytest.mark.parametrize("name", sorted(p.stem for p in (CONF_DIR / "study").glob("*.yaml")))
def test_every_study_composes_and_so_does_its_base_run(name: str) -> None:
    study = compose_any([f"study={name}"])
    assert study.name == name
    assert study.question.endswith("?")
    if isinstance(study, StudyConfig):
        assert StudyPlan(study).base.horizon.flops == 1
        return
    assert study.cost
    assert study.expected
    if isinstance(study, ArmsConfig):
        plan = ArmsPlan(study)
        one_of_each = {spec.arm: spec for spec in plan.specs}  # seeds differ in their seed alone
        found = {plan.compose(spec).horizon.flops for spec in one_of_each.values()}
        assert found == {study.flops}
    elif isinstance(study, EmergenceConfig):
        assert (
            kinds.compose_any([*study.base, *no_length(RunKind.diffusion), "horizon.flops=1"]).kind
            is RunKind.diffusion
        )
    else:
        for arm in study.arms.values() or [[]]:
            kind = kinds.kind_of([*study.base, *arm])
            some = f"{next(iter(kinds.KINDS[kind].lengths.values()))}=1"
            assert kinds.compose_any([*study.base, *no_length(kind), some, *arm]).kind is kind


def test_a_sitting_trains_the_smaller_budgets_of_one_and_the_same_study(
    plan: StudyPlan, tmp_path: Path
) -> None:
    study = plan.study
    study.root, study.replicates.budgets = str(tmp_path), study.budgets
    whole = {spec.name for spec in plan.grid(1e5)}
    study.up_to = study.budgets[-2]
    sitting = plan.grid(1e5)
    assert {spec.budget for spec in sitting} == set(study.budgets[:-1])
    assert {spec.name for spec in sitting} < whole  # the same runs, which the next one finds
    freeze_study(study)
    study.up_to, study.held_out = 0, 2
    study.check()
    freeze_study(study)  # goes on
    study.up_to = study.budgets[0]
    with pytest.raises(ValueError, match=r"^up_to=.* must leave at least two of budgets="):
        study.check()
    study.up_to, study.held_out = 0, len(study.budgets)
    with pytest.raises(ValueError, match=r"^held_out=.* must leave one of budgets="):
        study.check()


def test_a_base_with_a_length_of_its_own_gives_way_to_the_point(root: Path) -> None:
    base = f'base=["experiment=cpu_smoke","data.root={root}","horizon.tokens=5"]'
    plan = StudyPlan(compose_study(["study=smoke", base]))
    run = plan.compose(plan.pilot()[0])
    assert (run.horizon.flops, run.horizon.tokens, run.horizon.steps) == (2e8, 0, 0)


@pytest.mark.heavy
def test_a_grid_is_centred_and_its_sizes_are_distinct_and_rising(plan: StudyPlan) -> None:
    grid = plan.study.grid
    rungs = plan.sizes_around(1e5)
    sizes = [rung.params for rung in rungs]
    assert len(sizes) == grid.sizes
    assert all(small < large for small, large in pairwise(sizes))
    middle = (sizes[0] * sizes[-1]) ** 0.5
    assert 1 / 1.35 < middle / 1e5 < 1.35


def test_a_grid_below_the_smallest_size_is_shifted_up(plan: StudyPlan) -> None:
    sizes = [rung.params for rung in plan.sizes_around(1e3)]
    assert len(set(sizes)) == plan.study.grid.sizes
    assert min(sizes) > plan.study.grid.min_params / 1.6


@pytest.mark.heavy
def test_grids_of_all_budgets_have_runs_with_names_of_their_own(plan: StudyPlan) -> None:
    specs = [*plan.pilot(), *plan.grid(4e4)]
    study = plan.study
    assert len({spec.name for spec in specs}) == len(specs)
    grid = [spec for spec in specs if spec.phase == "grid"]
    assert [spec.budget for spec in grid] == [
        budget for budget in study.budgets for _ in range(study.grid.sizes)
    ]
    sizes = [log(count_params(plan.compose(spec).model).total) for spec in grid]
    each = study.grid.sizes
    grown = exp(fmean(sizes[-each:]) - fmean(sizes[:each]))  # of the grids' geometric means
    stated = (study.budgets[-1] / study.budgets[0]) ** study.pilot.exponent
    assert 1 / 1.5 < grown / stated < 1.5


def test_an_extension_goes_one_step_beyond_the_edge_it_is_asked_for(plan: StudyPlan) -> None:
    sizes = [float(rung.params) for rung in plan.sizes_around(1e5)]
    budget = plan.study.budgets[2]
    for upward in (True, False):
        spec = plan.extension(budget, sizes, upward)
        assert spec is not None
        assert (spec.phase, spec.budget) == ("extend", budget)
        params = count_params(plan.compose(spec).model).total
        assert params > max(sizes) if upward else params < min(sizes)


def test_there_is_no_extension_below_the_smallest_size(plan: StudyPlan) -> None:
    smallest = plan.study.grid.min_params
    assert plan.extension(plan.study.budgets[0], [smallest, 4e4], upward=False) is None


def test_replicates_differ_from_the_point_in_seed_and_name_alone(plan: StudyPlan) -> None:
    rung = plan.rung(4e4)
    budget = plan.study.replicates.budgets[0]
    point = plan.point("grid", budget, rung)
    replicates = plan.replicates(budget, [rung])
    assert [spec.phase for spec in replicates] == ["replicate", "replicate"]
    runs = [plan.compose(spec) for spec in (point, *replicates)]
    assert [run.seed for run in runs] == [0, 1, 2]
    same = [[o for o in s.overrides if not o.startswith("seed=")] for s in (point, *replicates)]
    assert same[0] == same[1] == same[2]
    assert len({spec.name for spec in (point, *replicates)}) == 3


def test_a_study_may_choose_any_form_of_a_loss_in_params_and_tokens() -> None:
    assert [form.value for form in LawForm] == list(LOSS_FORMS)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("sizes", "chosen"), [(1, [2]), (2, [2, 3]), (3, [1, 2, 3]), (9, [0, 1, 2, 3, 4])]
)
def test_replicates_are_of_the_middle_sizes(plan: StudyPlan, sizes: int, chosen: list[int]) -> None:
    rungs = [plan.rung(params) for params in (2.4e4, 4.6e4, 7e4, 1.1e5, 2.6e5)]
    assert len({rung.width for rung in rungs}) == 5
    plan.study.replicates.sizes = sizes
    specs = plan.replicates(plan.study.budgets[0], rungs)
    widths = [plan.compose(spec).model.width for spec in specs[::2]]
    assert widths == [rungs[i].width for i in chosen]
    assert [plan.compose(spec).seed for spec in specs] == [1, 2] * len(chosen)


def test_twins_are_one_experiment_in_two_layouts(plan: StudyPlan) -> None:
    one, two = (plan.compose(spec) for spec in plan.twins())
    assert (one.parallel.processes, one.parallel.zero_stage) == (1, 0)
    assert (two.parallel.processes, two.parallel.zero_stage) == (2, 1)
    one.parallel, one.name = two.parallel, two.name
    assert one == two
    plan.study.twin.enabled = False
    assert plan.twins() == []


def test_tokens_of_a_budget_are_those_that_training_will_see(plan: StudyPlan) -> None:
    for flops, params in ((5.5e11, 3e4), (2.5e12, 1.5e5)):
        rung = plan.rung(params)
        run = plan.compose(plan.point("grid", flops, rung))
        horizon = plan_horizon(run, plan.index)
        assert horizon.steps * horizon.step_tokens == pytest.approx(
            plan.tokens_for(rung, flops), rel=0.01
        )
        assert horizon.steps * horizon.step_flops == pytest.approx(flops, rel=0.01)


def test_a_job_is_frozen_and_marked_done_by_its_result(plan: StudyPlan) -> None:
    job = plan.job(plan.pilot()[0])
    assert (job.run_dir / "config.yaml").is_file()
    assert job.run_dir.parent == plan.study.folder / "runs"
    assert job.done_marker == job.run_dir / "result.json"
    twin = plan.job(plan.twins()[1])
    assert twin.num_processes == 2
    assert twin.cost > 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "budgetz=1",
            r"^budgetz: unknown key\. .*Allowed: base, budgets, .*twin, up_to, y_axis\.$",
        ),
        ("+extra=1", r"^extra: unknown key\. .*Allowed: base, budgets, "),
        (
            "grid.size=4",
            r"^grid\.size: unknown key\. .*Allowed: heads, max_depth, max_extensions, ",
        ),
        (
            "+grid.size=4",
            r"^grid\.size: unknown key\. .*Allowed: heads, max_depth, max_extensions, ",
        ),
        ("grid.sizes=many", r"^grid\.sizes: Value 'many' .* could not be converted to Integer\.$"),
        ("grid=3", r"^grid: holds keys, not a value\. Allowed: grid\.heads, grid\.max_depth, "),
        (
            "study=none",
            r"study=none: unknown choice\. .*Allowed: arms_smoke, captions, .*smoke\.$",
        ),
        ("base=[seed=1]", r"cannot be read\. .* need quotes, as in 'base=\[\""),
        ("budgets=[2.4e11,1e11]", r"^budgets=\[2\.4e\+11,1e\+11\]: .* in rising order\. Use for"),
        ("pilot.flops=0", r"^pilot\.flops=0: must be above 0\. Use 8e\+10\.$"),
        ("grid.spacing=1", r"^grid\.spacing=1: must be above 1\. Use 1\.6\.$"),
        ("replicates.budgets=[7]", r"^replicates\.budgets=\[7\]: must be .*budgets=\[1e\+11,2\.1e"),
        ("replicates.sizes=0", r"^replicates\.sizes=0: must be at least 1\. Use 1"),
        ("form=cubic", r"^form: Invalid value 'cubic'"),
    ],
)
def test_a_wrong_key_or_value_is_told_what_is_allowed(override: str, message: str) -> None:
    chosen = [] if override.startswith("study=") else ["study=demo"]
    with pytest.raises(ValueError, match=message) as caught:
        compose_study([*chosen, override])
    assert "http" not in str(caught.value)


def test_a_command_without_a_study_is_told_the_studies() -> None:
    with pytest.raises(ValueError, match=r"^study: must be chosen\. .*: study=.*\|demo\|"):
        compose_study([])


@pytest.mark.heavy
def test_a_folder_keeps_one_study_whatever_cluster_carries_it_out(
    root: Path, tmp_path: Path
) -> None:
    base = f'base=["experiment=cpu_demo","data.root={root}"]'

    def ask(*overrides: str) -> StudyConfig:
        return compose_study(["study=demo", base, f"root={tmp_path}", *overrides])

    freeze_study(ask())
    freeze_study(ask("cluster.slots=1", "cluster.retries=0", "resamples=10", "samples.steps=4"))
    frozen = (tmp_path / "demo/study.yaml").read_text()
    for change in ("recipe.lr=1.1e-3", "pilot.flops=6.7e10", "grid.sizes=9", "twin.steps=3"):
        with pytest.raises(ValueError, match=r"holds a study with other settings\. Choose another"):
            freeze_study(ask(change))
    assert (tmp_path / "demo/study.yaml").read_text() == frozen
    freeze_study(ask("name=other", "recipe.lr=1.1e-3"))
