"""The whole probe on runs of two steps, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from data.worlds.tiny.registry import tiny_world
from data.worlds.tiny.strip import FiniteStrip
from models.objective import build_objective
from trainer.config import CaptionUse
from trainer.diffusion.collate import Collator
from trainer.probes.likelihood.closed_form import ExactDenoiser, Places
from trainer.probes.likelihood.measure import STRATA, Look, measure_pairs
from trainer.probes.likelihood.pairs import draw_pairs, lawful_clips
from trainer.probes.likelihood.probe import main
from trainer.probes.likelihood.report import verdict

from .conftest import strip_config, train_strips

FEW = ["pairs=8", "clips=64"]


@pytest.mark.heavy
def test_a_run_is_asked_beside_its_twin_and_its_controls(
    strips: Path, lawless_strips: Path, capsys
) -> None:
    words = [f"run={strips}", f"twin={lawless_strips}", "properties=[colour,lamp]", *FEW]
    assert main(words) == 0
    found = json.loads((strips / "probes.json").read_text())
    printed = capsys.readouterr().out
    assert [(row["property"], row["law"]) for row in found["properties"]] == [
        ("colour", True),
        ("lamp", False),
    ]
    for row in found["properties"]:
        margins, learned = row["margins"], row["differences"]["learned"]
        assert set(margins) == {"run", "untrained", "twin", "gaussian", "reversed"}
        assert learned["value"] == pytest.approx(margins["run"]["value"] - margins["twin"]["value"])
        assert len(margins["run"]["by_time"]) == STRATA
        assert row["verdict"] in printed
    # Two steps teach nothing.
    assert "not shown to be learned" in found["properties"][0]["verdict"]
    before = (strips / "probes.json").read_text()
    assert main([*words, f"out={strips / 'again.json'}"]) == 0
    assert (strips / "again.json").read_text() == before


class FewStrips(FiniteStrip):
    """A strip of 100 clips."""

    lights, speeds, offsets = (0.16,), (2.6,), (0.1,)


@pytest.mark.heavy
def test_the_exact_denoiser_of_a_finite_world_knows_its_law() -> None:
    """It knows as well that no law binds the lamp."""
    run, world = strip_config(Path("none")), FewStrips()
    collator = Collator(run.codec, run.text)
    clips = lawful_clips(run, collator.codec, world, 1, 0)
    places = Places.of(collator.pack(clips, [CaptionUse.dropped]).valid, 0)
    exact = ExactDenoiser.build(run, collator.codec, world, places)
    assert len(exact.clips) == 100
    margins = {}
    for prop in ("colour", "lamp"):
        pairs = draw_pairs(run, collator.codec, world, prop, 8, 0)
        errors = measure_pairs(exact, build_objective(run.objective), collator, pairs, Look(0))
        margins[prop] = errors.margin(), errors.margin(0)
    whole, near_noise = margins["colour"]
    assert whole.accuracy == 1
    assert near_noise.value > 0
    # The lamps' halves are independent, so that all four clips of a pair err alike near noise.
    assert margins["lamp"][1].value == pytest.approx(0, abs=1e-6)


def test_four_clips_of_a_pair_share_noise_and_times() -> None:
    run = strip_config(Path("none"))
    collator = Collator(run.codec, run.text)
    pairs = draw_pairs(run, collator.codec, tiny_world("strip"), "colour", 2, 0)
    seen = []

    def predict(pack, x_t, t):
        seen.append((x_t.view(len(pack.lengths), -1), t))
        return torch.zeros_like(x_t)

    objective = build_objective(run.objective)
    errors = measure_pairs(predict, objective, collator, pairs, Look(0))
    x_t, t = seen[0]
    t = t.view(2, STRATA, 4)
    assert torch.equal(t, t[:, :, :1].expand_as(t))
    assert (t[0, :, 0] * STRATA).long().tolist() == list(range(STRATA))
    latent = torch.stack([p.clips[n].tokens for p in pairs for n in ("aa", "bb", "ab", "ba")])
    latent = latent.view(2, 1, 4, -1)
    noise = (x_t.view(2, STRATA, 4, -1) - t.unsqueeze(-1) * latent) / (1 - t.unsqueeze(-1))
    assert torch.allclose(noise, noise[:, :, :1].expand_as(noise), atol=1e-4)
    # What looks at each value alone has no margin, since all four are made of the same halves.
    assert errors.margin().value == pytest.approx(0, abs=1e-6)
    assert np.all(errors.kept > 0)


@pytest.mark.parametrize(
    ("learned", "beyond", "words"),
    [
        ((0.1, 0.2), (0.1, 0.2), "learned from data; beyond pairwise"),
        ((0.1, 0.2), (-0.1, 0.2), "learned from data; not beyond pairwise"),
        ((-0.1, 0.2), (0.1, 0.2), "not shown to be learned; beyond"),
        ((-0.2, -0.1), (0.1, 0.2), "likelier than to the twin"),
        (None, (0.1, 0.2), "nothing is claimed without a twin"),
    ],
)
def test_a_law_is_learned_where_run_minus_twin_excludes_zero(learned, beyond, words) -> None:
    spans = {"learned": learned, "beyond": beyond}
    differences = {k: {"low": v[0], "high": v[1]} for k, v in spans.items() if v}
    row = {"law": True, "margins": {"run": {"low": 1, "high": 2}}, "differences": differences}
    assert words in verdict(row)


def test_a_control_that_is_not_zero_is_said() -> None:
    own = {"run": {"low": -0.1, "high": 0.1}}
    row = {"law": False, "margins": own, "differences": {}}
    assert verdict(row) == "no law, and none is seen"
    row["differences"] = {"learned": {"low": 0.1, "high": 0.2}}
    assert "control is not zero" in verdict(row)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage"),
        (["pairs=8"], "run=: must be given"),
        (["run={blobs}"], "never saw a tiny world"),
        (["run={strips}", "worlds=[rotor]"], "worlds=rotor: the run never saw it. Use strip."),
        (["run={strips}", "properties=[mass]"], "property=mass: is none of strip"),
        (["run={strips}", "twin={strips}"], "was not trained on lawless clips"),
        (["run={strips}", "twin={blobs}"], "its model differs"),
        (["run={empty}"], "has no checkpoint. Train it first"),
        (["run={strips}", "pairs=2"], "pairs=2: must be at least 8"),
    ],
)
@pytest.mark.heavy
def test_what_cannot_be_asked_is_refused(
    strips: Path, trained: Path, tmp_path: Path, arguments, message, capsys
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(strips / "config.yaml", empty)
    given = {"strips": strips, "blobs": trained, "empty": empty}
    assert main([word.format(**given) for word in arguments]) in (0, 2)
    captured = capsys.readouterr()
    assert message in captured.err + captured.out


@pytest.mark.heavy
def test_a_run_that_always_had_captions_is_refused(tmp_path: Path, group: None, capsys) -> None:
    run = train_strips(tmp_path, "objective.caption_dropout=0")
    assert main([f"run={run}"]) == 2
    assert "caption_dropout=0: the run never saw" in capsys.readouterr().err
