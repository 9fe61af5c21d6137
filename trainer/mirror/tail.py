"""What a mirror has sent, and what of metrics.jsonl is new to it; torch-free."""

import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data.files import write_json
from data.reading import parse_object, read_object, read_tail

STATE_FILE = Path("wandb") / "mirror.json"


@dataclass
class Sent:
    """What was handed to W&B of a run; kept over attempts, so that nothing is sent twice.

    id: of the W&B run; two people who train one config have two. step: the last that was sent;
    keys: what was sent of it. finished: the result was sent too. offline: the last records went to
    offline files. Of an online run the server knows better: ``at`` takes its word.
    """

    id: str
    step: int = -1
    keys: list[str] = field(default_factory=list)
    finished: bool = False
    offline: bool = False

    def at(self, step: int) -> None:
        """Take a server's word that it holds all before ``step``, and nothing from there on."""
        self.step, self.keys = step, []

    def note(self, record: dict[str, Any]) -> None:
        """Note that a record was sent."""
        if record["step"] != self.step:
            self.step, self.keys = record["step"], []
        self.keys = sorted({*self.keys, *record})

    def knows(self, record: dict[str, Any]) -> bool:
        """Tell whether a record was sent, perhaps before a rollback that repeated its step."""
        step = record["step"]
        return step < self.step or (step == self.step and set(record) <= set(self.keys))


def read_sent(folder: Path) -> Sent:
    """Read what was sent of a run; a new id where nothing was."""
    try:
        return Sent(**read_object(folder / STATE_FILE).values)
    except TypeError:
        return Sent(f"{folder.resolve().name[-55:]}-{secrets.token_hex(4)}")


def write_sent(folder: Path, sent: Sent) -> None:
    """Write what was sent. Raises OSError (a full disk)."""
    path = folder / STATE_FILE
    path.parent.mkdir(exist_ok=True)
    write_json(path, asdict(sent), synced=False)


def last_step(folder: Path) -> int:
    """Return the last step that a run logged, 0 before the first."""
    lines = read_tail(folder / "metrics.jsonl", 1 << 16)[0].splitlines()
    steps = [found["step"] for line in lines if (found := _record(line.encode())) is not None]
    return steps[-1] if steps else 0


class Tail:
    """Read the lines that a growing file of lines, such as metrics.jsonl, got since the last look.

    A resume or a rewind replaces the file by one that ends earlier: it is read again from the
    start, and ``beginnings`` counts how often a start was read.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._inode, self._offset = path, 0, 0
        self.beginnings = 0

    def read(self) -> list[dict[str, Any]]:
        """Return the new whole records; a line that is still being written waits."""
        try:
            with self._path.open("rb") as stream:
                status = self._path.stat()
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset = status.st_ino, 0
                    self.beginnings += 1
                stream.seek(self._offset)
                content = stream.read()
        except OSError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [record for line in whole.splitlines() if (record := _record(line))]


def _record(line: bytes) -> dict[str, Any] | None:
    found = parse_object(line.decode("utf-8", errors="replace"))
    return found if found is not None and isinstance(found.get("step"), int) else None
