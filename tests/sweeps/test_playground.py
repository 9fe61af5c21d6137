"""Which runs the playground offers."""

import json
from pathlib import Path

import pytest

from sweeps.playground import best_of, found_in, main
from trainer.config import compose_run
from trainer.identity import freeze


def run_of(folder: Path, flops: float, loss: float | None, checkpoint: bool = True) -> None:
    """Write a run's folder as it stands after its training, but for what its checkpoint holds."""
    folder.mkdir(parents=True)
    words = ["experiment=cpu_smoke", "data.root=d", f"horizon.flops={flops}", "horizon.steps=0"]
    freeze(compose_run(words), folder)
    if checkpoint:
        (folder / "checkpoints").mkdir()
    if loss is not None:
        result = {"flops": 1.01 * flops, "params": 12345, "loss": loss}
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def test_a_study_offers_the_best_run_of_each_budget_or_all(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    run_of(runs / "worse", 1e9, 0.6)
    run_of(runs / "better", 1e9, 0.5)
    run_of(runs / "large", 4e9, 0.4)
    run_of(runs / "going", 9e9, None)
    run_of(runs / "planned", 1e8, None, checkpoint=False)
    found = found_in(tmp_path)
    assert [one.run.name for one in found] == ["better", "worse", "large", "going"]
    assert [one.run.name for one in best_of(found)] == ["better", "large", "going"]
    assert [one.title for one in best_of(found)] == ["1e9 FLOPs", "4e9 FLOPs", "9e9 FLOPs"]
    assert found[0].note == "12,345 parameters, loss 0.5"
    assert found[-1].note == "not finished"
    assert [one.run.name for one in found_in(runs / "large")] == ["large"]


BAD = {
    "": "study= or run=: one of them must name a folder",
    "study={0} run={0}": "study= or run=: one of them must name a folder",
    "study={0}": "none of its runs has a checkpoint to draw with",
    "study={0}/none": "holds no runs",
    "run={0} port=99999": "port=99999: must be at most 65535",
    "run={0} rungs=few": "rungs=few: ",
}


@pytest.mark.parametrize("words", BAD)
def test_what_cannot_be_served_is_refused_in_words(
    tmp_path: Path, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_of(tmp_path / "runs" / "planned", 1e8, None, checkpoint=False)
    assert main(words.format(tmp_path).split(" ") if words else ["out=x"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert BAD[words] in said
