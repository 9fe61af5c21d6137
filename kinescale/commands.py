"""The map of all commands, in the order in which a study needs the rooms."""

import data.__main__ as data_room
import launch.__main__ as launch_room
import sweeps.__main__ as sweeps_room
import trainer.__main__ as trainer_room
from data.command_table import Row, listing

_ROOMS = {
    "data": data_room,
    "trainer": trainer_room,
    "launch": launch_room,
    "sweeps": sweeps_room,
}
ROOMS: dict[str, tuple[Row, ...]] = {name: room.COMMANDS for name, room in _ROOMS.items()}
COMMANDS: dict[str, Row] = {row.name: row for rows in ROOMS.values() for row in rows}


def map_of_commands() -> str:
    """Return what ``kinescale`` prints: how it is used, and every room with its commands."""
    width = max(map(len, COMMANDS))
    parts = [
        "kinescale: scaling laws for video diffusion transformers",
        "usage: kinescale COMMAND [key=value ...]\n"
        "       kinescale COMMAND --help      what it does, with examples and its keys",
    ]
    for name, rows in ROOMS.items():
        says = (_ROOMS[name].__doc__ or "").strip()
        parts.append(f"{name}: {says[0].lower()}{says[1:].rstrip('.')}\n{listing(rows, width)}")
    parts.append(
        "Begin with:\n"
        "  kinescale demo                    clips, trainings, a law and its page: half an hour\n"
        "  kinescale plan-study study=demo   what that would cost; nothing starts\n"
        "Every command is safe to interrupt: run it again, and it goes on.\n"
        "Completion by Tab: see kinescale completion --help"
    )
    return "\n\n".join(parts)
