"""Every field of every schema has its bounds and its sentence, and no value beyond them passes."""

import ast
import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, MultipleOf

from benchmarks import captioner, ingest, vae
from data.bounds import Field, Kind, check_bounds, fields_of, words
from data.keys import sections
from sweeps.keys import Schema, page, schemas

ROOT = Path(__file__).parents[1]
ROOMS = ("models", "data", "trainer", "launch", "sweeps", "benchmarks")
BENCHMARKS = [Schema(m.__name__, m.BenchConfig, m.__name__) for m in (captioner, ingest, vae)]
SCHEMAS = [*schemas(), *BENCHMARKS]
each_schema = pytest.mark.parametrize("root", SCHEMAS, ids=lambda root: root.title)


def number_of(kind: Kind) -> Kind | None:
    """Return the kind of the numbers that a field holds, itself or in its lists; None without."""
    while kind.item is not None:
        kind = kind.item
    return kind if kind.is_number else None


def edges(kind: Kind) -> dict[type, float]:
    """Return the bounds of a number by their class."""
    names = {Ge: "ge", Gt: "gt", Le: "le", Lt: "lt", MultipleOf: "multiple_of"}
    return {type(b): getattr(b, names[type(b)]) for b in kind.bounds if type(b) in names}


def outside(kind: Kind) -> Iterator[float]:
    """Yield a value just outside each bound of a number, and those that are no numbers."""
    step = 1 if kind.type is int else 1e-9
    for bound, edge in edges(kind).items():
        if bound is MultipleOf:
            yield 6 * edge + 1
        elif math.isfinite(edge):
            beyond = {Ge: edge - step, Gt: edge, Le: edge + step, Lt: edge}[bound]
            yield beyond if kind.type is int else float(beyond)
    if kind.type is float:
        yield from (math.nan, math.inf, -math.inf)


def wrong_values(field: Field) -> Iterator[tuple[str, Any]]:
    """Yield what to add to a field's key, and a value of it that its bounds do not allow."""
    kind = field.kind
    if kind.item is None:
        yield from (("", value) for value in outside(kind)) if kind.is_number else ()
        return
    default = field.default
    for bound in kind.bounds:
        if isinstance(bound, MinLen) and bound.min_length:
            short: Any = {} if isinstance(default, dict) else list(default)[: bound.min_length - 1]
            yield "", short
        if isinstance(bound, MaxLen):
            yield "", [*default, default[0]]
    if kind.item.is_number and isinstance(default, dict):
        yield from ((f".{k}", {**default, k: v}) for k in default for v in outside(kind.item))
    elif kind.item.is_number:
        first = len(default) // 2
        rest = list(default[first + 1 :])
        for value in outside(kind.item):
            yield f"[{first}]", [*default[:first], value, *rest]


def places(config: Any, path: str) -> Iterator[tuple[Any, str]]:
    """Yield a config and its sections, each with the path before its keys; one of a list's."""
    yield config, path
    for field in fields_of(type(config)):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from places(value, f"{path}{field.name}.")
        elif isinstance(value, list) and field.kind.item and is_dataclass(field.kind.item.type):
            value.append(field.kind.item.type())
            yield from places(value[-1], f"{path}{field.name}[{len(value) - 1}].")


@each_schema
def test_one_value_outside_each_bound_of_every_field_is_refused(root: Schema) -> None:
    config = root.schema()
    tried = 0
    for part, path in places(config, root.path):
        for field in fields_of(type(part)):
            allowed = getattr(part, field.name)
            for place, value in wrong_values(field):
                setattr(part, field.name, value)
                key = f"{path}{field.name}{place}"
                with pytest.raises(ValueError) as caught:  # the message is compared below
                    check_bounds(config, root.path)
                told = str(caught.value)
                assert told.startswith(f"{key}="), (key, value)
                assert ": must " in told, told
                assert ". Use " in told, told
                tried += 1
            setattr(part, field.name, allowed)
    assert tried > 0
    check_bounds(config, root.path)


@each_schema
def test_a_remedy_is_itself_allowed(root: Schema) -> None:
    """The value after "Use" is the default, or lies inside of the bounds."""
    config = root.schema()
    for part, _ in places(config, root.path):
        for field in fields_of(type(part)):
            allowed = getattr(part, field.name)
            for place, value in wrong_values(field):
                if not place or not field.kind.item or isinstance(value, dict):
                    continue
                setattr(part, field.name, value)
                with pytest.raises(ValueError) as caught:  # the remedy is tried below
                    check_bounds(config, root.path)
                remedy = float(str(caught.value).rpartition("Use ")[2].rstrip("."))
                number = number_of(field.kind)
                assert number is not None
                setattr(part, field.name, [number.type(remedy)] * len(value))
                check_bounds(config, root.path)
            setattr(part, field.name, allowed)


@each_schema
def test_every_number_has_a_bound_and_every_key_a_sentence(root: Schema) -> None:
    for section in sections(root.schema, root.path):
        assert section.sentence, section.path
        for field in section.fields:
            key = f"{section.path}{field.name}"
            assert field.sentence.endswith("."), key
            number = number_of(field.kind)
            if number is not None:
                assert edges(number), f"{key}: has no bound"
                assert words(field.kind), key


@each_schema
def test_the_defaults_lie_inside_of_the_bounds(root: Schema) -> None:
    check_bounds(root.schema(), root.path)


def test_no_schema_of_the_rooms_is_left_out() -> None:
    """Classes by the names that schemas have: each is walked by these tests."""
    walked = {s.schema.__name__ for root in SCHEMAS for s in sections(root.schema, root.path)}
    parents = {base.__name__ for root in SCHEMAS for base in root.schema.__mro__}
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and node.name.endswith(("Config", "Job", "Run")):
                    if any("frozen" in ast.unparse(d) for d in node.decorator_list):
                        continue  # made by the code, not composed
                    if any("dataclass" in ast.unparse(d) for d in node.decorator_list):
                        assert node.name in walked | parents, f"{path}: {node.name}"


def test_the_reference_page_is_what_the_schemas_say() -> None:
    written = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert written == page(), "run: kinescale keys --markdown > docs/config.md"


def test_annotated_fields_stay_fields() -> None:
    """Bounds are read from annotations: no field may be lost by one."""
    for root in SCHEMAS:
        assert [f.name for f in fields_of(root.schema)] == [f.name for f in fields(root.schema)]
