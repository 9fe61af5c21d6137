"""The bounds and sentences that config schemas declare beside their fields, and their one check.

A schema is a dataclass whose fields are annotated (PEP 593, ``annotated_types``)::

    lr: Annotated[float, Gt(0), Doc("Peak learning rate at model.base_width.")] = 5e-3
    stride: Annotated[list[Annotated[int, Ge(1)]], Len(3, 3), Doc("Source pixels ...")] = ...

A bound stands on the number that it bounds: in a list or dict on its items, whose number ``Len``
bounds. Every number must be finite, unless its bound names infinity, as ``Le(inf)`` does.
"""

import dataclasses
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from enum import Enum
from functools import cache
from types import UnionType
from typing import Annotated, Any

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt, MaxLen, MinLen, MultipleOf
from typing_extensions import Doc

Bound = Ge | Gt | Le | Lt | MultipleOf | MinLen | MaxLen


@dataclass(frozen=True)
class Kind:
    """A field's type with its bounds; ``item``: of what a list or dict holds, else None."""

    type: Any
    bounds: tuple[Bound, ...]
    item: "Kind | None"

    @property
    def is_number(self) -> bool:
        """Tell whether values are numbers."""
        return self.type in (int, float)


@dataclass(frozen=True)
class Field:
    """A key of a schema; ``sentence`` is empty where none is declared."""

    name: str
    kind: Kind
    sentence: str
    default: Any

    @property
    def is_section(self) -> bool:
        """Tell whether the key holds keys of its own."""
        return is_dataclass(self.kind.type)


@cache
def fields_of(schema: type) -> tuple[Field, ...]:
    """Return the fields of a schema in the order in which it declares them."""
    hints = typing.get_type_hints(schema, include_extras=True)
    return tuple(_field(field, hints[field.name]) for field in dataclasses.fields(schema))


def check_bounds(config: object, path: str = "") -> None:
    """Raise ValueError for the first number of a config, or of its sections, that is out of bounds.

    config: an instance of a schema. path: where it stands in the whole, as in ``"model."``.
    """
    schema: type = type(config)
    for field in fields_of(schema):
        _check(getattr(config, field.name), field.kind, f"{path}{field.name}", field.default)


def words(kind: Kind) -> str:
    """Return the bounds of a kind as a reader sees them; empty where it has none."""
    if kind.item is not None:
        each = words(kind.item)
        return ", ".join(filter(None, (_count(kind), each and f"each {each}")))
    match kind.bounds:
        case (Ge(ge=low), Le(le=high)) if math.isfinite(high):  # type: ignore[arg-type]
            return f"from {shown(low)} to {shown(high)}"
    return ", ".join(dict.fromkeys(map(_rule, kind.bounds)))


def shown(value: object) -> str:
    """Return a value as it is written on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if not math.isfinite(value) or float(short) == value else repr(value)
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {shown(part)}' for key, part in value.items())}}}"
    return str(value)


def _field(field: "dataclasses.Field[Any]", hint: Any) -> Field:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    extras = hint.__metadata__ if typing.get_origin(hint) is Annotated else ()
    said = [extra.documentation for extra in extras if isinstance(extra, Doc)]
    return Field(field.name, _kind(hint), " ".join(said), default)


def _kind(hint: Any) -> Kind:
    bounds: tuple[Bound, ...] = ()
    if typing.get_origin(hint) is Annotated:
        bounds = tuple(_bounds(hint.__metadata__))
        hint = hint.__origin__
    if typing.get_origin(hint) in (UnionType, typing.Union):  # X | None: None has no bounds
        (inner,) = (part for part in typing.get_args(hint) if part is not type(None))
        found = _kind(inner)
        return Kind(found.type, (*bounds, *found.bounds), found.item)
    if typing.get_origin(hint) in (list, dict):
        return Kind(hint, bounds, _kind(typing.get_args(hint)[-1]))
    return Kind(hint, bounds, None)


def _bounds(extras: tuple[Any, ...]) -> Iterator[Bound]:
    for extra in extras:
        if isinstance(extra, GroupedMetadata):
            yield from _bounds(tuple(extra))
        elif isinstance(extra, Bound):
            yield extra


def _check(value: Any, kind: Kind, key: str, default: Any) -> None:
    if value is None:
        return
    if is_dataclass(value):
        check_bounds(value, f"{key}.")
    elif kind.item is not None:
        _check_items(value, kind, kind.item, key, default)
    elif kind.is_number and not isinstance(value, bool):
        rule = broken_rule(value, kind)
        if rule:
            remedy = default if _holds(default, kind) else _nearest(value, kind)
            raise ValueError(f"{key}={shown(value)}: must be {rule}. Use {shown(remedy)}.")


def _check_items(value: Any, kind: Kind, item: Kind, key: str, default: Any) -> None:
    size = len(value)
    if any(size < b.min_length for b in kind.bounds if isinstance(b, MinLen)) or any(
        size > b.max_length for b in kind.bounds if isinstance(b, MaxLen)
    ):
        remedy = f"Use {shown(default)}." if default else "Give so many."
        raise ValueError(f"{key}={shown(value)}: must hold {_count(kind)}. {remedy}")
    if isinstance(value, dict):
        for name, part in value.items():
            _check(part, item, f"{key}.{name}", (default or {}).get(name))
        return
    for index, part in enumerate(value):
        instead = default[min(index, len(default) - 1)] if default else None
        _check(part, item, f"{key}[{index}]", instead)


def broken_rule(value: float, kind: Kind) -> str:
    """Return the rule of a number that a value breaks, in words; empty where it holds all."""
    if math.isnan(value):
        return "a number"
    if math.isinf(value) and not any(_edge(bound) == value for bound in kind.bounds):
        return " and ".join([*(_rule(b) for b in kind.bounds if not _obeys(value, b)), "finite"])
    return next((_rule(bound) for bound in kind.bounds if not _obeys(value, bound)), "")


def _obeys(value: float, bound: Bound) -> bool:
    match bound:
        case Ge():
            return value >= bound.ge  # type: ignore[operator]
        case Gt():
            return value > bound.gt  # type: ignore[operator]
        case Le():
            return value <= bound.le  # type: ignore[operator]
        case Lt():
            return value < bound.lt  # type: ignore[operator]
        case MultipleOf():
            return math.isfinite(value) and value % bound.multiple_of == 0  # type: ignore[operator]
    return True


def _edge(bound: Bound) -> Any:
    match bound:
        case Ge():
            return bound.ge
        case Gt():
            return bound.gt
        case Le():
            return bound.le
        case Lt():
            return bound.lt
    return None


def _rule(bound: Bound) -> str:
    match bound:
        case Gt(gt=edge) | Lt(lt=edge) if math.isinf(edge):  # type: ignore[arg-type]
            return "finite"
        case Ge(ge=edge) | Le(le=edge) if math.isinf(edge):  # type: ignore[arg-type]
            return "finite or not"
        case Ge():
            return f"at least {shown(bound.ge)}"
        case Gt():
            return f"above {shown(bound.gt)}"
        case Le():
            return f"at most {shown(bound.le)}"
        case Lt():
            return f"below {shown(bound.lt)}"
        case MultipleOf():
            return f"a multiple of {shown(bound.multiple_of)}"
    return ""


def _count(kind: Kind) -> str:
    least = max((b.min_length for b in kind.bounds if isinstance(b, MinLen)), default=0)
    most = min((b.max_length for b in kind.bounds if isinstance(b, MaxLen)), default=None)
    if most is None:
        return f"at least {least} value{'s' * (least != 1)}" if least else ""
    numbers = f"{least}" if least == most else f"{least} to {most}"
    return f"{numbers} value{'s' * (most != 1)}"


def _holds(value: Any, kind: Kind) -> bool:
    return isinstance(value, int | float) and not broken_rule(value, kind)


def _nearest(value: float, kind: Kind) -> float:
    """Return an allowed value: the broken bound, or beyond it where it is open."""
    bounds = [b for b in kind.bounds if _edge(b) is not None and math.isfinite(_edge(b))]
    bounds.sort(key=lambda bound: _obeys(value, bound))  # the broken one first
    edges = [_edge(bound) for bound in bounds]
    steps = [{Gt: 1, Lt: -1}.get(type(bound), 0) for bound in bounds]
    candidates = [edge + step for edge, step in zip(edges, steps, strict=True)]
    if edges:
        candidates.append(sum(edges) / len(edges))  # of two open bounds less than one apart
    return next((c for c in candidates if _holds(c, kind)), 0.0)
