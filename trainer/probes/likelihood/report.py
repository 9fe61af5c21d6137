"""What a probe found: margins, their differences, a verdict in words, and a table."""

from typing import Any

from data.worlds.tiny.world import World
from trainer.probes.likelihood.margins import PairErrors, described

# What the run's margin is compared with: each is a claim where the difference excludes zero.
AGAINST = {"learned": "twin", "beyond": "gaussian"}
COLUMNS = ("run", "twin", "learned", "gaussian", "beyond", "untrained", "above", "reversed")
# Ways of looking at a pair: at one time, and with the frames before the splice given clean.
MODES = ("joint", "given")
UNSEEN = "the run never trained with given frames, and is asked what it has not seen"
_HEADS = {"learned": "run - twin", "beyond": "run - gaussian", "above": "run - untrained"}


def summarise(
    world: World[Any], prop: str, errors: dict[str, dict[str, PairErrors]], taught: list[str]
) -> dict[str, Any]:
    """Return the margins of one property in each way of looking, and what they say, as JSON.

    errors: by the way of looking, of the run, of every control, and of the twin where there is one.
    taught: tasks by which the run saw parts of a clip at other times.
    """
    law = prop in world.laws
    row: dict[str, Any] = {"world": world.name, "property": prop, "law": law}
    for mode, own in errors.items():
        found = {
            "margins": {name: described(of) for name, of in own.items()},
            "differences": {
                name: described(own["run"], own[other])
                for name, other in AGAINST.items()
                if other in own
            },
        }
        said = verdict(law, found)
        unseen = mode == "given" and not taught
        row[mode] = found | {"verdict": f"{UNSEEN}; {said}" if unseen else said}
    return row


def summarise_rendered(
    world: str, prop: str, errors: dict[str, dict[str, PairErrors]], taught: list[str]
) -> dict[str, Any]:
    """Return the same of a 3-D world, which has no twin: whether the run is above an untrained one.

    Reached says that broken clips err more than to a network that learned nothing, and no more:
    a covariance may do that, too.
    """
    row: dict[str, Any] = {"world": world, "property": prop, "law": True}
    for mode, own in errors.items():
        above = described(own["run"], own["untrained"])
        said = "reached: above an untrained network" if sign(above) > 0 else "not reached"
        unseen = mode == "given" and not taught
        row[mode] = {
            "margins": {name: described(of) for name, of in own.items()},
            "differences": {"above": above},
            "verdict": f"{UNSEEN}; {said}" if unseen else said,
        }
    return row


def sign(measured: dict[str, Any]) -> int:
    """Return on which side of zero a 95 % interval lies, 0 where it holds zero."""
    return int(measured["low"] > 0) - int(measured["high"] < 0)


def verdict(law: bool, found: dict[str, Any]) -> str:
    """Say in words what margins and differences of a property show."""
    own, differences = found["margins"]["run"], found["differences"]
    if not law:
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
    trained = f"trained by {', '.join(result['taught'])}" if result["taught"] else UNSEEN
    lines = [
        f"run {result['run']}, twin {result['twin'] or 'none'}, {result['pairs']} pairs a property",
        "margins in % of L(AA) + L(BB), 95 % interval over pairs; accuracy and z of the run",
        "joint: a whole clip at one time",
        f"given: the frames before the splice clean, errors of the others alone; {trained}",
    ]
    for row in result["properties"]:
        kind = "law" if row["law"] else "no law"
        lines += ["", f"{row['world']} {row['property']} ({kind})"]
        modes = {mode: row[mode] for mode in MODES if mode in row}
        lines += [f"  {mode}: {of['verdict']}" for mode, of in modes.items()]
        modes = {mode: of["margins"] | of["differences"] for mode, of in modes.items()}
        lines += _columns(modes)
        for mode, found in modes.items():
            best = next((name for name in ("learned", "above") if name in found), "run")
            strata = " ".join(f"{100 * part['value']:+.2f}" for part in found[best]["by_time"])
            lines.append(f"  {_HEADS.get(best, best)} from noise to data, {mode}: {strata}")
        if "trace" in row:
            lines.append(f"  trace of the first half in the latents after it: {row['trace']:.2f}")
    return "\n".join(lines)


def _columns(looks: dict[str, dict[str, Any]]) -> list[str]:
    """Lay margins out, a column for each way of looking."""
    modes = list(looks.values())

    def line(head: str, cells: list[str]) -> str:
        return f"  {head:<15} " + " ".join(f"{cell:<30}" for cell in cells).rstrip()

    lines = [line("", list(looks))]
    for name in COLUMNS:
        if name in modes[0]:
            lines.append(line(_HEADS.get(name, name), [_percent(found[name]) for found in modes]))
    # The exact denoiser's own errors vanish near data, and every ratio to them explodes.
    for name in ("exact", "run"):
        if name in modes[0]:
            shares = [f"{found[name]['accuracy']:8.2f}" for found in modes]
            lines.append(line(f"{name}, accuracy", shares))
    return [*lines, line("run, z", [f"{found['run']['z']:8.1f}" for found in modes])]


def _percent(measured: dict[str, Any]) -> str:
    low, high = 100 * measured["low"], 100 * measured["high"]
    return f"{100 * measured['value']:+8.3f}   {low:+.3f} to {high:+.3f}"
