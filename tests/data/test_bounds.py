"""Bounds beside fields: what breaks one is refused by key, value, rule and remedy."""

from dataclasses import dataclass, field
from math import inf, nan
from typing import Annotated

import pytest
from annotated_types import Ge, Gt, Le, Len, Lt, MinLen, MultipleOf
from omegaconf import OmegaConf
from typing_extensions import Doc

from data.bounds import check_bounds, fields_of, shown, words
from data.command_line import parse
from data.keys import all_lines, markdown_table, sections


@dataclass
class Part:
    """A part."""

    weight: Annotated[float, Gt(0), Doc("Its weight.")] = 1.0


@dataclass
class Whole:
    """A schema with a field of each form."""

    name: Annotated[str, Doc("What it is called.")] = "whole"
    share: Annotated[float, Ge(0), Lt(1), Doc("A share.")] = 0.98
    bits: Annotated[float, Ge(0), Le(inf), Doc("May be without end.")] = 8.0
    even: Annotated[int, Ge(6), MultipleOf(2), Doc("An even number.")] = 16
    stride: Annotated[list[Annotated[int, Ge(1)]], Len(3, 3), Doc("Three sizes.")] = field(
        default_factory=lambda: [4, 8, 8]
    )
    narrow: Annotated[list[Annotated[float, Gt(0), Lt(0.5)]], Doc("No default.")] = field(
        default_factory=list
    )
    seeds: Annotated[list[int], MinLen(1), Doc("At least one.")] = field(
        default_factory=lambda: [1]
    )
    shares: Annotated[dict[str, Annotated[float, Ge(0), Le(2)]], Doc("By name.")] = field(
        default_factory=lambda: {"a": 1.0}
    )
    maybe: Annotated[float | None, Gt(0), Doc("Nothing, or above 0.")] = None
    part: Part = field(default_factory=Part)
    parts: Annotated[list[Part], Doc("Several.")] = field(default_factory=list)


REFUSED = {
    "share=1": "share=1: must be below 1. Use 0.98.",
    "share=-0.1": "share=-0.1: must be at least 0. Use 0.98.",
    "share=nan": "share=nan: must be a number. Use 0.98.",
    "share=-inf": "share=-inf: must be at least 0 and finite. Use 0.98.",
    "bits=-1": "bits=-1: must be at least 0. Use 8.",
    "even=7": "even=7: must be a multiple of 2. Use 16.",
    "stride=[4,8]": "stride=[4, 8]: must hold 3 values. Use [4, 8, 8].",
    "stride=[4,8,0]": "stride[2]=0: must be at least 1. Use 8.",
    "narrow=[0.1,0.7]": "narrow[1]=0.7: must be below 0.5. Use 0.25.",
    "narrow=[nan]": "narrow[0]=nan: must be a number. Use 0.25.",
    "seeds=[]": "seeds=[]: must hold at least 1 value. Use [1].",
    "shares.b=-1": "shares.b=-1: must be at least 0. Use 0.",
    "shares.a=3": "shares.a=3: must be at most 2. Use 1.",
    "maybe=-1": "maybe=-1: must be above 0. Use 1.",
    "part.weight=inf": "part.weight=inf: must be finite. Use 1.",
    "parts=[{weight: 2},{weight: 0}]": "parts[1].weight=0: must be above 0. Use 1.",
}


@pytest.mark.parametrize("given", REFUSED)
def test_a_value_out_of_bounds_is_refused_with_rule_and_remedy(given: str) -> None:
    with pytest.raises(ValueError) as caught:  # the whole message is compared below
        parse(Whole, [given])
    assert str(caught.value) == REFUSED[given]


def test_a_path_stands_before_every_key() -> None:
    with pytest.raises(ValueError, match=r"^here\.part\.weight=0: "):
        check_bounds(Whole(part=Part(weight=0.0)), "here.")


@pytest.mark.parametrize(
    "given",
    ["share=0", "bits=inf", "even=6", "narrow=[0.4999]", "shares.c=2", "parts=[{}]", "maybe=null"],
)
def test_bounds_themselves_are_allowed_where_they_are_closed(given: str) -> None:
    parse(Whole, [given])


def test_annotations_leave_types_and_defaults_as_they_were() -> None:
    assert OmegaConf.to_object(OmegaConf.structured(Whole)) == Whole()
    with pytest.raises(ValueError, match="could not be converted to Float"):
        parse(Whole, ["share=much"])
    with pytest.raises(ValueError, match="could not be converted to Integer"):
        parse(Whole, ["stride=[a,b,c]"])


def test_bounds_are_told_in_words() -> None:
    told = {f.name: words(f.kind) for f in fields_of(Whole)}
    assert told["share"] == "at least 0, below 1"
    assert told["bits"] == "at least 0, finite or not"
    assert told["even"] == "at least 6, a multiple of 2"
    assert told["stride"] == "3 values, each at least 1"
    assert told["shares"] == "each from 0 to 2"
    assert told["name"] == ""


def test_a_float_is_shown_short_where_that_loses_nothing() -> None:
    assert [shown(x) for x in (2.0, 1e-8, 0.1234567891, inf, nan)] == [
        "2", "1e-08", "0.1234567891", "inf", "nan",
    ]  # fmt: skip
    assert shown([1.0, 2.5]) == "[1, 2.5]"


def test_a_table_tells_key_type_default_bounds_and_sentence() -> None:
    text = all_lines(Whole)
    assert "    share=0.98  (float: at least 0, below 1)\n        A share.\n" in text
    assert "\n\npart: A part.\n    part.weight=1  (float: above 0)\n        Its weight.\n" in text
    assert "    parts[N].weight=1  (float: above 0)\n" in text
    row = "| `stride` | list[int] | `[4, 8, 8]` | 3 values, each at least 1 | Three sizes. |"
    assert row in markdown_table(next(sections(Whole)))
