"""The diffusion transformer's numbers stay what they were, whatever file they are derived in.

``dit_facts.json`` was written before its facts came from one specification. To accept a change of
the network, write ``facts()`` of ``dit_facts.py`` there again, and say in the commit what changed.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from .dit_facts import facts

KNOWN = json.loads(Path(__file__).with_name("dit_facts.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Return the facts of the code as it stands."""
    return json.loads(json.dumps(facts()))


@pytest.mark.heavy
@pytest.mark.parametrize("part", list(KNOWN))
def test_what_is_known_of_the_network_does_not_change(part: str, found: dict[str, Any]) -> None:
    assert sorted(_leaves(found[part]), key=str) == sorted(_leaves(KNOWN[part]), key=str)


def _leaves(value: Any, path: str = "") -> Any:
    """Yield (path, leaf); floats to six digits, since processors round sums their own way."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}/{index}")
    else:
        yield path, float(f"{value:.6g}") if isinstance(value, float) else value
