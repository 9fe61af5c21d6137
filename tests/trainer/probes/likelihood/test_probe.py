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
from trainer.probes.likelihood.closed_form import ExactDenoiser, GaussianDenoiser, Places
from trainer.probes.likelihood.measure import STRATA, Look, measure_pairs
from trainer.probes.likelihood.pairs import (
    draw_pairs,
    first_tokens,
    lawful_clips,
    reversed_pairs,
    stacked,
)
from trainer.probes.likelihood.probe import main
from trainer.probes.likelihood.report import UNSEEN, table, verdict
from trainer.probes.likelihood.subject import Subject, backwards, closed_forms, looks_at, taught

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
    for row in (row[mode] for row in found["properties"] for mode in ("joint", "given")):
        margins, learned = row["margins"], row["differences"]["learned"]
        assert set(margins) == {"run", "untrained", "twin", "gaussian", "reversed"}
        assert learned["value"] == pytest.approx(margins["run"]["value"] - margins["twin"]["value"])
        assert len(margins["run"]["by_time"]) == STRATA
        assert row["verdict"] in printed
        percents = (f"{100 * margins[name]['value']:+.3f} " for name in margins)
        assert all(percent in printed for percent in percents)
    # Two steps teach nothing.
    colour = found["properties"][0]
    assert "not shown to be learned" in colour["joint"]["verdict"]
    for name, joint in colour["joint"]["margins"].items():
        assert joint["value"] != colour["given"]["margins"][name]["value"]
    # Text to video alone never had a frame given, which is said.
    assert found["taught"] == []
    assert UNSEEN in printed
    assert colour["given"]["verdict"].startswith(UNSEEN)
    assert UNSEEN not in colour["joint"]["verdict"]
    before = (strips / "probes.json").read_text()
    assert main([*words, f"out={strips / 'again.json'}"]) == 0
    assert (strips / "again.json").read_text() == before


def test_couples_are_asked_in_turn_and_each_as_if_alone(
    strips: Path, lawless_strips: Path, tmp_path: Path, capsys
) -> None:
    asked = ["properties=[colour]", "looks=[given]", *FEW]
    assert main([f"run={strips}", f"twin={lawless_strips}", f"out={tmp_path}/alone", *asked]) == 0
    names = ("first", "second", "kept")
    (tmp_path / "kept").write_text("as it was")
    couples = [
        {"run": str(strips), "twin": str(lawless_strips), "out": str(tmp_path / name)}
        for name in names
    ]
    broken = {"run": str(tmp_path / "none"), "twin": "", "out": str(tmp_path / "never")}
    (tmp_path / "couples.json").write_text(json.dumps([broken, *couples]))
    assert main([f"couples={tmp_path}/couples.json", *asked]) == 2
    assert "1 not asked" in capsys.readouterr().err
    alone = (tmp_path / "alone").read_text()
    (row,) = json.loads(alone)["properties"]
    assert set(row) == {"world", "property", "law", "given"}
    # What no training changes was measured once, for the first; the second has it all the same.
    assert [(tmp_path / name).read_text() for name in names] == [alone, alone, "as it was"]


@pytest.mark.parametrize("text", ["{", '[{"run": "a"}]', '[{"run": 1, "twin": "", "out": ""}]'])
def test_a_list_of_couples_that_is_none_is_refused(text: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "couples.json").write_text(text)
    assert main([f"couples={tmp_path}/couples.json"]) == 2
    assert capsys.readouterr().err.startswith("error: couples=")


class FewStrips(FiniteStrip):
    """A strip of 100 clips."""

    lights, speeds, offsets = (0.16,), (2.6,), (0.1,)


@pytest.mark.heavy
@pytest.mark.parametrize("mode", ["joint", "given"])
def test_the_exact_denoiser_of_a_finite_world_knows_its_law(mode: str) -> None:
    """It knows as well that no law binds the lamp."""
    run, world = strip_config(Path("none")), FewStrips()
    collator = Collator(run.codec, run.text)
    clips = lawful_clips(run, collator.codec, world, 1, 0)
    look = looks_at(0, run.codec.stride[0])[mode]
    valid = collator.pack(clips, [CaptionUse.dropped]).valid
    places = Places.of(valid, first_tokens(clips[0], look.frames))
    exact = ExactDenoiser.build(run, collator.codec, world, places)
    assert len(exact.clips) == 100
    margins = {}
    for prop in ("colour", "lamp"):
        pairs = draw_pairs(run, collator.codec, world, prop, 8, 0)
        errors = measure_pairs(exact, build_objective(run.objective), collator, pairs, look)
        margins[prop] = errors.margin(), errors.margin(0)
    whole, near_noise = margins["colour"]
    assert whole.accuracy == 1
    assert near_noise.value > 0
    # The lamps' halves are independent, so that all four clips of a pair err alike near noise.
    assert margins["lamp"][1].value == pytest.approx(0, abs=1e-6)


@pytest.mark.heavy
def test_a_switch_has_no_margin_by_covariance_and_a_lane_that_is_kept_has() -> None:
    run = strip_config(Path("none"))
    collator = Collator(run.codec, run.text)
    found = {}
    for name in ("strip", "switch"):
        clips = lawful_clips(run, collator.codec, tiny_world(name), 512, 0)
        linear = GaussianDenoiser.fit(
            stacked(clips), Places.of(collator.pack(clips[:1], [CaptionUse.dropped]).valid, 0)
        )
        pairs = draw_pairs(run, collator.codec, tiny_world(name), "lane", 32, 0)
        objective = build_objective(run.objective)
        found[name] = measure_pairs(linear, objective, collator, pairs, Look(0)).margin()
    low, high = found["switch"].interval
    assert low < 0 < high
    assert found["strip"].value > 20 * abs(found["switch"].value)


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


def test_given_frames_stand_clean_and_carry_no_loss() -> None:
    run = strip_config(Path("none"))
    collator = Collator(run.codec, run.text)
    pairs = draw_pairs(run, collator.codec, tiny_world("strip"), "colour", 2, 0)
    objective, seen = build_objective(run.objective), []

    def predict(pack, x_t, t):
        seen.append((x_t.view(len(pack.lengths), -1, x_t.shape[1]), t.view(-1, 2)))
        return x_t * 0

    def wild(pack, x_t, t):
        """Say anything of what is given."""
        return torch.where(pack.spans.given[pack.span].unsqueeze(-1), 1e3, x_t * 0)

    looks = looks_at(0, 2)
    given = measure_pairs(predict, objective, collator, pairs, looks["given"])
    x_t, t = seen[0]
    assert torch.all(t[:, 1] == 1)  # the second span
    assert torch.all(t[:, 0] < 1)
    latent = torch.stack([p.clips[n].tokens for p in pairs for n in ("aa", "bb", "ab", "ba")])
    latent = latent.view(2, 1, 4, *latent.shape[1:]).expand(-1, STRATA, -1, -1, -1).flatten(0, 2)
    # The splice lies after five frames, which are three latent ones of 2 x 8 tokens.
    assert torch.equal(x_t[:, :48], latent[:, :48])
    assert not torch.any((x_t == latent)[:, 48:].all((1, 2)))
    again = measure_pairs(wild, objective, collator, pairs, looks["given"])
    assert np.array_equal(again.kept, given.kept)
    assert np.array_equal(again.broken, given.broken)

    def joint(pack, x_t, t):
        return x_t * 0

    # Errors of the other frames are those that they have jointly, where nothing is predicted.
    whole = measure_pairs(joint, objective, collator, pairs, looks["joint"])
    assert np.all((given.kept > 0) & (given.kept < whole.kept))


def test_closed_forms_condition_on_what_is_given_alone() -> None:
    run = strip_config(Path("none"))
    collator, world = Collator(run.codec, run.text), tiny_world("strip")
    subject = Subject(run, {}, build_objective(run.objective), collator)
    clips, looks = lawful_clips(run, collator.codec, world, 8, 0), looks_at(0, 2)
    known = {
        m: closed_forms(subject, world, clips, k)["gaussian"].places.known for m, k in looks.items()
    }
    assert not known["joint"].any()
    # 16 tokens of 96 values a latent frame, of which half the first one's lie before the clip.
    assert known["given"].sum() == 2.5 * 16 * 96


def test_clips_played_backwards_are_given_nothing_from_beyond_their_splice() -> None:
    run = strip_config(Path("none"))
    collator = Collator(run.codec, run.text)
    # Its ball is in sight at the splice.
    pairs = draw_pairs(run, collator.codec, tiny_world("uniform"), "colour", 1, 0)
    look = backwards(looks_at(0, 2)["given"], 2)
    assert backwards(Look(0), 2) == Look(0)
    clips = reversed_pairs(pairs, collator.codec, run.text.width)[0].clips
    first = first_tokens(clips["aa"], look.frames)
    assert first > 0
    # AB ends as BB does, and so begins as it does when it is played backwards.
    assert torch.equal(clips["ab"].tokens[:first], clips["bb"].tokens[:first])
    after = first_tokens(clips["aa"], look.frames + 1)
    assert not torch.equal(clips["ab"].tokens[:after], clips["bb"].tokens[:after])


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ({}, []),
        ({"text_to_video": 1.0, "extend_forwards": 0.0}, []),
        ({"text_to_video": 1.0, "extend_forwards": 1.0}, ["extend_forwards"]),
        ({"diffusion_forcing": 1.0}, ["diffusion_forcing"]),
    ],
)
def test_a_table_says_by_what_given_frames_were_trained(tasks, words) -> None:
    run = strip_config(Path("none"))
    run.objective.tasks = tasks
    assert taught(run) == words
    result = {"run": "a", "twin": None, "pairs": 8, "taught": taught(run), "properties": []}
    assert (words[0] if words else UNSEEN) in table(result).splitlines()[-1]


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
    found = {"margins": {"run": {"low": 1, "high": 2}}, "differences": differences}
    assert words in verdict(True, found)


def test_a_control_that_is_not_zero_is_said() -> None:
    own = {"run": {"low": -0.1, "high": 0.1}}
    found = {"margins": own, "differences": {}}
    assert verdict(False, found) == "no law, and none is seen"
    found["differences"] = {"learned": {"low": 0.1, "high": 0.2}}
    assert "control is not zero" in verdict(False, found)


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
        (["run={strips}", "twin={other}"], "its objective differs"),
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
    other = shutil.copytree(strips, tmp_path / "other")
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("caption_dropout: 0.1", "caption_dropout: 1"))
    given = {"strips": strips, "blobs": trained, "empty": empty, "other": other}
    assert main([word.format(**given) for word in arguments]) in (0, 2)
    captured = capsys.readouterr()
    assert message in captured.err + captured.out


@pytest.mark.heavy
def test_a_run_that_always_had_captions_is_refused(tmp_path: Path, group: None, capsys) -> None:
    run = train_strips(tmp_path, "objective.caption_dropout=0")
    assert main([f"run={run}"]) == 2
    assert "caption_dropout=0: the run never saw" in capsys.readouterr().err
