"""Captions of the craft world: what the figure did and what lies around, chosen by seed."""

import numpy as np

from data.worlds.truth import Track
from data.worlds.words import (
    MAX_NAMED,
    article,
    introduce,
    listing,
    pick,
    place_of,
    prominent,
    upper,
)

# How materials are called where they lie around; a material counts from this share of the window.
AROUND = {
    "grass": "grass",
    "sand": "sand",
    "water": "water",
    "stone": "grey stone",
    "path": "bare path",
    "tree": "trees",
    "coal": "coal",
    "iron": "iron",
    "diamond": "diamonds",
    "lava": "red lava",
    "table": "a table",
}
SHARE = 0.04
CAMERA = "follows the figure from above"


def time_of(daylight: float) -> str:
    """Name the time of day."""
    return "day" if daylight > 0.6 else "dusk" if daylight > 0.25 else "night"


def movement(track: Track) -> str:
    """Say where a figure went, from its first and last place on the map."""
    places = [p for p in track.positions if p is not None]
    dx, dy = places[-1][0] - places[0][0], places[-1][1] - places[0][1]
    if max(abs(dx), abs(dy)) < 0.5:
        return "stands still"
    if abs(dx) >= abs(dy):
        return f"walks to the {'right' if dx > 0 else 'left'}"
    return f"walks {'down' if dy > 0 else 'up'}"


def describe(
    tracks: list[Track],
    events: list[str],
    materials: dict[str, float],
    daylight: float,
    height: int,
    width: int,
    rng: np.random.Generator,
) -> tuple[dict[str, str | list[str]], str, str]:
    """Return a clip's attributes, its dense caption and its short one."""
    seen = prominent(tracks, height, width)
    named = seen[: MAX_NAMED + 1]
    around = [AROUND[name] for name, share in materials.items() if share > SHARE and name in AROUND]
    told = list(dict.fromkeys(events))[:3]
    attributes: dict[str, str | list[str]] = {
        "objects": [track.name() for track in seen],
        "named": [track.name() for track in named],
        "actions": [movement(track) for track in named],
        "places": [place_of(track, width) for track in named],
        "events": told,
        "floor": around[0] if around else "bare ground",
        "around": around[1:4],
        "light": time_of(daylight),
        "camera": CAMERA,
        "style": "pixel game",
        "place": "open land",
    }
    act = told[0] if told else str(attributes["actions"][0])
    ground = "the map" if not around else around[0]
    short = f"a small figure {act} on {ground} by {attributes['light']}"
    return attributes, dense_caption(attributes, rng), short


def dense_caption(attributes: dict[str, str | list[str]], rng: np.random.Generator) -> str:
    """Write the sentences: what the figure does, who is near, the land, the view."""
    a = attributes
    chain = listing([a["actions"][0], *a["events"]])
    figure = article(a["named"][0])
    happens = pick(
        rng,
        [
            f"{upper(figure)} {chain}.",
            f"Here {figure} {chain}.",
            f"The player, {figure}, {chain}.",
        ],
    )
    rest = [
        pick(rng, [f"{name} {does} {where}", f"{where} {name} {does}"])
        for name, does, where in list(
            zip(introduce([*a["named"]]), a["actions"], a["places"], strict=True)
        )[1:]
    ]
    others = f"{upper(' and '.join(rest))}." if rest else ""
    lies = f"the ground is {a['floor']}"
    near = listing([*a["around"]])
    land = pick(
        rng,
        [
            f"{upper(lies)}" + (f", with {near} around." if near else "."),
            f"{upper(lies)}" + (f"; near by lie {near}." if near else " everywhere."),
        ],
    )
    light = pick(rng, [f"It is {a['light']}.", f"The time is {a['light']}."])
    camera = f"The view {a['camera']}"
    style = pick(
        rng,
        [
            f"{camera} in a {a['style']} made of square tiles.",
            f"{camera}, drawn as a {a['style']} with square tiles.",
            f"This is a {a['style']} of square tiles, and the view {a['camera']}.",
        ],
    )
    orders = [
        (happens, others, land, light, style),
        (style, happens, others, land, light),
        (light, happens, land, others, style),
    ]
    return " ".join(part for part in orders[int(rng.integers(len(orders)))] if part)
