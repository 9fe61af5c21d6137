"""What a probe found: margins, their differences, a verdict in words, and a table."""

from typing import Any

from data.worlds.tiny.world import World
from trainer.probes.likelihood.margins import PairErrors, described

# What the run's margin is compared with: each is a claim where the difference excludes zero.
AGAINST = {"learned": "twin", "beyond": "gaussian"}
COLUMNS = ("run", "twin", "learned", "gaussian", "beyond", "untrained", "reversed")
_HEADS = {"learned": "run - twin", "beyond": "run - gaussian"}


def summarise(
    world: World[Any], prop: str, mode: str, errors: dict[str, PairErrors]
) -> dict[str, Any]:
    """Return the margins of one property, and what they say, as JSON.

    errors: of the run, of every control, and of the twin where there is one.
    """
    margins = {name: described(found) for name, found in errors.items()}
    differences = {
        name: described(errors["run"], errors[other])
        for name, other in AGAINST.items()
        if other in errors
    }
    row = {
        "world": world.name,
        "property": prop,
        "law": prop in world.laws,
        "mode": mode,
        "margins": margins,
        "differences": differences,
    }
    return row | {"verdict": verdict(row)}


def sign(measured: dict[str, Any]) -> int:
    """Return on which side of zero a 95 % interval lies, 0 where it holds zero."""
    return int(measured["low"] > 0) - int(measured["high"] < 0)


def verdict(row: dict[str, Any]) -> str:
    """Say in words what a row of margins shows."""
    own, differences = row["margins"]["run"], row["differences"]
    if not row["law"]:
        side = sign(differences.get("learned", own))
        return "no law, and none is seen" if side == 0 else "no law, but the control is not zero"
    if "learned" not in differences:
        said = "nothing is claimed without a twin"
    elif sign(differences["learned"]) > 0:
        said = "learned from data"
    elif sign(differences["learned"]) < 0:
        said = "broken clips are likelier than to the twin"
    else:
        said = "not shown to be learned"
    beyond = sign(differences["beyond"]) > 0
    return f"{said}; {'beyond' if beyond else 'not beyond'} pairwise statistics"


def table(result: dict[str, Any]) -> str:
    """Lay a probe's result out in lines: margins in percent with 95 % intervals, then strata."""
    lines = [
        f"run {result['run']}, twin {result['twin'] or 'none'}, {result['pairs']} pairs a property",
        "margins in % of L(AA) + L(BB), 95 % interval over pairs; accuracy and z of the run",
    ]
    for row in result["properties"]:
        found = row["margins"] | row["differences"]
        own = row["margins"]["run"]
        kind = "law" if row["law"] else "no law"
        lines += ["", f"{row['world']} {row['property']} ({kind}, {row['mode']}): {row['verdict']}"]
        for name in COLUMNS:
            if name in found:
                lines.append(f"  {_HEADS.get(name, name):<15} {_percent(found[name])}")
        if "exact" in found:  # its own errors vanish near data, and every ratio to them explodes
            lines.append(f"  {'exact':<15} accuracy {found['exact']['accuracy']:.2f}")
        lines.append(f"  run: accuracy {own['accuracy']:.2f}, z {own['z']:.1f}")
        best = "learned" if "learned" in found else "run"
        strata = " ".join(f"{100 * part['value']:+.2f}" for part in found[best]["by_time"])
        lines.append(f"  {_HEADS.get(best, best)} from noise to data: {strata}")
    return "\n".join(lines)


def _percent(measured: dict[str, Any]) -> str:
    low, high = 100 * measured["low"], 100 * measured["high"]
    return f"{100 * measured['value']:+8.3f}   {low:+.3f} to {high:+.3f}"
