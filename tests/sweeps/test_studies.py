"""The command that makes a study from its films on: its parts, in order, with valid arguments."""

from importlib.util import find_spec

import pytest

from data.command_line import parse
from data.config import WorldsConfig
from data.derive.crop import CropConfig
from kinescale.commands import COMMANDS
from sweeps.kinds.arms.config import ArmsConfig
from sweeps.kinds.compose import compose_any
from sweeps.studies import main, steps
from trainer.config import RunConfig, compose_run


def composed(overrides: list[str]) -> RunConfig:
    """Compose a run as the commands do, with a horizon where they set none."""
    return compose_run(["horizon.steps=1", *overrides])


@pytest.mark.heavy
@pytest.mark.parametrize("smoke", [False, True])
@pytest.mark.parametrize("name", ["captions", "framing"])
def test_every_part_is_a_command_and_training_reads_what_encoding_wrote(
    name: str, smoke: bool
) -> None:
    parts = steps(name, smoke, ["seeds=[0,1]"])
    made, asked = set(), set()
    for _, (command, *arguments) in parts:
        assert find_spec(COMMANDS[command].module) is not None
        if command == "worlds":
            made.add(parse(WorldsConfig, arguments).root + "/video")
        elif command == "crop":
            crop = parse(CropConfig, arguments)
            assert crop.root in made
            made.add(crop.out)
        elif command == "encode":
            out = next(a.removeprefix("out=") for a in arguments if a.startswith("out="))
            encoded = composed([a for a in arguments if not a.startswith("out=")])
            assert encoded.data.root in made
            made.add(out)
        else:
            study = compose_any(arguments)
            assert isinstance(study, ArmsConfig)
            assert study.seeds == [0, 1]
            trained = composed(study.base)
            assert (trained.codec, trained.text) == (encoded.codec, encoded.text)
            roots = [o for group in (study.base, *study.arms.values()) for o in group]
            asked |= {o.removeprefix("data.root=") for o in roots if o.startswith("data.root=")}
            asked |= {root for root in (study.losses.root, study.draws.root) if root}
    assert asked <= made


def test_the_command_teaches_and_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "captions framing" in capsys.readouterr().out
    assert main(["smoke=true"]) == 2
    assert "NAME: must be given. Use captions or framing." in capsys.readouterr().err
    assert main(["caption"]) == 2
    assert "study=caption: is unknown. Use captions or framing." in capsys.readouterr().err
