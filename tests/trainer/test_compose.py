"""Names that come from a command line and become folders; compositions that share nothing."""

import pytest

from sweeps.kinds.compose import compose_any
from trainer.captioner.config import compose_captioner
from trainer.compose import check_name
from trainer.config import compose_run
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


def test_what_is_composed_next_does_not_see_changes_of_what_was_composed() -> None:
    run = compose_run(["horizon.steps=1"])
    run.validation.splits.append("other")
    run.model.width += 64
    assert compose_run(["horizon.steps=1"]) != run
    assert compose_run(["horizon.steps=1"]) == compose_run(["horizon.steps=1"])
    study = compose_any(["study=smoke"])
    study.base.append("optim.lr=1")
    assert compose_any(["study=smoke"]).base == study.base[:-1]
