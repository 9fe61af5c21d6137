"""Names that come from a command line and become folders; compositions that share nothing."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from sweeps.kinds.compose import compose_any
from trainer import compose
from trainer.captioner.config import compose_captioner
from trainer.compose import CONF_DIR, check_name, compose_values
from trainer.config import compose_run
from trainer.train import main
from trainer.vae.config import compose_vae

HOSTILE = [
    "../../escaped", "/etc/cron.d/x", "..", ".hidden", "a/b", "$(touch pwned)", "a;b", "a b", "-rf",
    "a'b", '"', "<b>", "a\nb", "", "x" * 200, "`id`", "a|b", "*",
]  # fmt: skip
COMPOSERS = {
    "run": lambda word: compose_run(["horizon.steps=1", word]),
    "compression network": lambda word: compose_vae(["experiment=vae_tiny", word]),
    "captioner": lambda word: compose_captioner(["experiment=captioner_tiny", word]),
    "study": lambda word: compose_any(["study=smoke", word]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_are_no_plain_folder_names_are_refused_with_the_remedy(name: str) -> None:
    with pytest.raises(ValueError, match=r"name=.*must begin with a letter.*Use for example"):
        check_name(name)


@pytest.mark.parametrize("kind", COMPOSERS)
def test_every_kind_of_run_and_study_checks_its_name(kind: str) -> None:
    with pytest.raises(ValueError, match=r"name='\.\./escaped': must begin with a letter"):
        COMPOSERS[kind]("name=../escaped")
    assert COMPOSERS[kind]("name=grid-c1e11_w64.d2").name == "grid-c1e11_w64.d2"


@pytest.mark.heavy
def test_what_is_composed_next_does_not_see_changes_of_what_was_composed() -> None:
    run = compose_run(["horizon.steps=1"])
    run.validation.splits.append("other")
    run.model.width += 64
    assert compose_run(["horizon.steps=1"]) != run
    assert compose_run(["horizon.steps=1"]) == compose_run(["horizon.steps=1"])
    study = compose_any(["study=smoke"])
    study.base.append("optim.lr=1")
    assert compose_any(["study=smoke"]).base == study.base[:-1]


def test_runs_that_differ_in_values_are_what_hydra_composes_and_share_their_choices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [
        "experiment=cpu_demo", "model=w64d2", "seed=3", "name=x", "data.root='a b'",
        "optim.lr=1e-3", "validation.splits=[a,b]", "model.options.x=1", "horizon.flops=1e11",
        "data={pool: 77}", "model.width=128", "data.pool=78",
    ]  # fmt: skip
    compose_run(["horizon.steps=1"])  # registers the schema
    whole, composed = compose._composed, []

    def counted(folder: Path, name: str, chosen: Sequence[str]) -> DictConfig:
        composed.append(chosen)
        return whole(folder, name, chosen)

    monkeypatch.setattr(compose, "_composed", counted)
    compose._chosen.cache_clear()
    for lr in ("optim.lr=1", "optim.lr=2.5"):
        found = compose_values(CONF_DIR, "run", [*words, lr])
        assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(whole(CONF_DIR, "run", [*words, lr]))
    assert composed == [("experiment=cpu_demo", "model=w64d2")]
    with pytest.raises(HydraException, match=r"Could not override 'optim\.lrr'"):
        compose_values(CONF_DIR, "run", [*words, "optim.lrr=1"])
    assert composed[1:] == [[*words, "optim.lrr=1"]]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--multirun", "--multirun: one command is one run. Many runs are a study"),
        ("-m", "-m: one command is one run."),
        ("--info", "--info: is no flag here. --help teaches"),
        ("hydra.run.dir=x", "hydra.run.dir=x: Hydra's own keys do nothing here."),
        ("seed=0,1", "seed=0,1: is several values. A list is key=[a,b]"),
        ("modle=w64d2", "modle: unknown key. Did you mean model? Allowed: branch"),
        ("model=w64d22", "model=w64d22: unknown choice. Did you mean w64d2? Allowed: w128d5"),
        ("optim.lrr=1", "optim.lrr: unknown key. Did you mean lr? Allowed: beta1"),
    ],
)
def test_what_users_of_hydra_try_is_answered_in_a_line(word: str, said: str) -> None:
    with pytest.raises(ValueError) as found:
        compose_run(["experiment=cpu_smoke", word])
    assert str(found.value).startswith(said)
    assert "\n" not in str(found.value)


@pytest.mark.heavy
def test_cfg_job_prints_the_composed_run_wherever_it_stands(capsys) -> None:
    for words in (["--cfg", "job", "seed=7"], ["seed=7", "-c", "job"], ["--cfg", "seed=7"]):
        assert main(["experiment=cpu_smoke", *words]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["seed"] == 7
    assert main(["--cfg", "hydra", "seed=7"]) == 2
    assert "Hydra's own config is not used. Use --cfg job." in capsys.readouterr().err
