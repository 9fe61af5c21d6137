"""The compute ladder: held-out prompts, one noise, a column a budget."""

import json
from pathlib import Path

import pytest

from data.dataset.shards import ShardWriter, read_index, write_manifest
from sweeps.kinds.compose import compose_study
from sweeps.kinds.isoflop.config import StudyConfig
from sweeps.study.samples import choose_prompts, plan_samples

CLIPS = [  # source, frames, height, width
    ("rooms/a", 17, 64, 112), ("rooms/b", 17, 64, 112), ("rooms/c", 17, 120, 80),
    ("rooms/d", 13, 96, 96), ("doom/MAP1", 9, 120, 160), ("doom/MAP2", 5, 144, 256),
    ("rooms/e", 1, 64, 64), ("rooms/f", 5, 72, 112),
]  # fmt: skip
BEST = [
    {"name": f"grid-{n}", "budget": 10.0 ** (9 + n), "params": 10**n, "loss": 1.0, "flops": 1e9}
    for n in (1, 2, 3)
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a data set with the clips in train and, from other sources, in val_worlds."""
    root = tmp_path_factory.mktemp("clips")
    for split in ("train", "val_worlds"):
        with ShardWriter(root, split, 1_000_000) as writer:
            for number, (source, frames, height, width) in enumerate(CLIPS):
                meta = {
                    "key": f"{split}-{number}", "media": "latent", "num_frames": frames,
                    "height": height, "width": width, "fps": 12.0,
                    "duration_seconds": frames / 12, "caption": f"clip {number} of {split}",
                    "source": f"{source}-{split}", "licence": "CC0", "rendered": True,
                    "original": {},
                }  # fmt: skip
                writer.write(meta, b"none", "safetensors")
    write_manifest(root, {"name": "clips"})
    return str(root)


@pytest.fixture
def study(tmp_path: Path) -> StudyConfig:
    return compose_study(["study=demo", f"root={tmp_path}"])


def test_prompts_are_held_out_moving_and_of_different_kinds(root: str) -> None:
    prompts = choose_prompts(root, "val_worlds", 4)
    assert [p.source.split("/")[0] for p in prompts] == ["rooms", "doom", "rooms", "rooms"]
    assert len({(p.num_frames, p.height, p.width) for p in prompts}) == 4
    assert [p.width > p.height for p in prompts] == [True, True, False, False]
    held_out = {info.key for info in read_index(root, "val_worlds")}
    assert {p.key for p in prompts} <= held_out
    assert all(p.num_frames > 1 for p in prompts)


def test_the_choice_is_the_same_every_time_and_holds_no_clip_twice(root: str) -> None:
    assert choose_prompts(root, "val_worlds", 4) == choose_prompts(root, "val_worlds", 4)
    everything = choose_prompts(root, "val_worlds", 99)
    assert len({p.key for p in everything}) == len(everything) == 7
    assert everything[:4] == choose_prompts(root, "val_worlds", 4)
    assert choose_prompts(root, "val_worlds", 0) == []


def test_budgets_are_asked_for_the_same_clips_but_for_the_file(
    root: str, study: StudyConfig
) -> None:
    jobs, _ = plan_samples(study, BEST, root, "val_worlds")
    asked = []
    for job in jobs:
        requests = json.loads((job.run_dir / "requests.json").read_text())
        asked.append([r for r in requests if "reference" not in r])
    outs = [request.pop("out") for requests in asked for request in requests]
    assert len(set(outs)) == 12
    assert asked[0] == asked[1] == asked[2]
    # Noise depends on seed, prompt and shape; no budget sets a seed of its own.
    assert all("seed" not in request for request in asked[0])


def test_the_ladder_names_every_file_that_the_jobs_write(root: str, study: StudyConfig) -> None:
    jobs, ladder = plan_samples(study, BEST, root, "val_worlds")
    folder = study.folder / "samples"
    asked = {
        Path(request["out"])
        for job in jobs
        for request in json.loads((job.run_dir / "requests.json").read_text())
    }
    named = [name for names in ladder["files"].values() for name in names]
    named += list(ladder["reference"].values())
    assert {folder / name for name in named} == asked
    assert [column["run"] for column in ladder["columns"]] == ["grid-1", "grid-2", "grid-3"]
    assert all(job.done_marker in asked for job in jobs)


def test_clips_of_another_best_run_are_drawn_anew_and_others_kept(
    root: str, study: StudyConfig
) -> None:
    jobs, _ = plan_samples(study, BEST, root, "val_worlds")
    for job in jobs:
        job.done_marker.parent.mkdir(parents=True, exist_ok=True)
        job.done_marker.write_bytes(b"clip")
    plan_samples(study, BEST, root, "val_worlds")
    assert all(job.done_marker.exists() for job in jobs)
    other = [BEST[0] | {"name": "grid-better"}, *BEST[1:]]
    plan_samples(study, other, root, "val_worlds")
    assert [job.done_marker.exists() for job in jobs] == [False, True, True]
