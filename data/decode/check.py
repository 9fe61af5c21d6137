"""Judge decoders on real files: ``kinescale decode-check FILE...``.

usage: kinescale decode-check FILE [FILE ...] [--timeout SECONDS] [--decoders NAME [NAME ...]]

``--timeout`` is what a decoder may take for a file (60 s), ``--decoders`` which are judged (all
that are installed).

PyAV, decoding from the start to the end and refusing damaged frames, is the judge. Each other
decoder reads the same bytes in a killable child; it is exact if every frame equals the judge's bit
for bit. What was learnt of a file holds for its signature (data/decode/signature.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from data.decode.child import ChildFailure, DecoderChild
from data.decode.decoders import Shape
from data.shell import OptionParser, command

JUDGE = "pyav"
# Clips of a signature that every decoder reads beside the judge before one of them is chosen.
JUDGED_CLIPS = 3
# Another decoder is used if its time is at most this share of the judge's. Above 1, because decord
# is this project's default (docs/decode.md) and repeated timings differ by about a tenth.
TIE = 1.1
# Signatures and digests remembered; beyond them the judge reads, which is never wrong.
MAX_SIGNATURES, MAX_DIGESTS = 10_000, 200_000
# Time for judging: so much at the start, then this share of the time spent on reading.
JUDGING_SECONDS, JUDGING_SHARE = 2.0, 0.02
# Frames of equal content through other colour arithmetic: found 20 levels with interlaced chroma.
COLOUR_LEVELS, COLOUR_MEAN = 24, 2.0

Frames = NDArray[np.uint8]
# Sends a request and a payload to a child; raises ChildFailure.
Ask = Callable[[dict[str, Any], bytes], tuple[dict[str, Any], Frames | None]]


class Outcome(StrEnum):
    """What came of one decoder on one file."""

    exact = "exact"
    colours = "colours"  # the right frames, other rounding of colours
    differs = "differs"
    refused = "refused"
    ended = "ended"  # its process crashed, or was killed at the time limit
    unjudged = "unjudged"  # it read what the judge refused


@dataclass(frozen=True)
class Verdict:
    """One decoder on one file; ``reason`` says what is wrong, ``seconds`` is for the whole clip."""

    decoder: str
    outcome: Outcome
    reason: str = ""
    seconds: float = 0.0
    num_frames: int = 0

    def text(self) -> str:
        """Return one line."""
        speed = f", {1e3 * self.seconds / self.num_frames:.2f} ms/frame" if self.num_frames else ""
        return f"{self.decoder}: {self.outcome}{speed}" + (
            f" ({self.reason})" if self.reason else ""
        )


def compare(name: str, frames: Frames, reference: Frames | None, seconds: float) -> Verdict:
    """Hold frames (F, H, W, 3) against the judge's, None where the judge refused the file."""
    num_frames = len(frames)
    if reference is None:
        reason = f"{num_frames} frames of a file that the judge refuses"
        return Verdict(name, Outcome.unjudged, reason, seconds, num_frames)
    if frames.shape != reference.shape:
        reason = f"{frames.shape[:3]} instead of {reference.shape[:3]}"
        return Verdict(name, Outcome.differs, reason, seconds, num_frames)
    wrong, largest, mean = 0, 0, 0.0
    for mine, theirs in zip(frames, reference, strict=True):  # one frame at a time: clips are large
        if np.array_equal(mine, theirs):
            continue
        apart = np.abs(mine.astype(np.int16) - theirs)
        wrong, largest, mean = wrong + 1, max(largest, int(apart.max())), max(mean, apart.mean())
    if not wrong:
        return Verdict(name, Outcome.exact, "", seconds, num_frames)
    close = largest <= COLOUR_LEVELS and mean <= COLOUR_MEAN
    reason = f"{wrong} of {num_frames} frames, by up to {largest} levels"
    return Verdict(name, Outcome.colours if close else Outcome.differs, reason, seconds, num_frames)


@dataclass
class Reading:
    """What a child made of a whole file with one decoder; ``ended`` if it did not survive."""

    frames: Frames | None
    seconds: float = 0.0
    reason: str = ""
    ended: bool = False


def reader(
    ask: Ask, payload: bytes, expected: Shape | None = None, repeats: int = 3
) -> Callable[[str], Reading]:
    """Return a function that reads a payload in a child by the decoder of a given name."""

    def read(name: str) -> Reading:
        request = {"verb": "decode", "decoders": [name], "expected": expected, "repeats": repeats}
        try:
            head, frames = ask(request, payload)
        except ChildFailure as failure:
            return Reading(None, reason=str(failure), ended=True)
        return Reading(frames, head.get("seconds", 0.0), "; ".join(head["reasons"]))

    return read


def judge(read: Callable[[str], Reading], decoders: Sequence[str]) -> list[Verdict]:
    """Return the judge's verdict on a file and then one for each of the other ``decoders``."""
    reference = read(JUDGE)
    verdicts = [verdict_on(JUDGE, reference, reference)]
    return verdicts + [verdict_on(n, read(n), reference) for n in decoders if n != JUDGE]


def verdict_on(name: str, found: Reading, reference: Reading) -> Verdict:
    """Return the verdict on a decoder's reading of a file that the judge read too."""
    if found.frames is None:
        outcome = Outcome.ended if found.ended else Outcome.refused
        return Verdict(name, outcome, found.reason.removeprefix(f"{name}: "))
    return compare(name, found.frames, reference.frames, found.seconds)


class OneChild:
    """A decoder process that is replaced when it ends, for one thread."""

    def __init__(self, decoders: Sequence[str], timeout_seconds: float) -> None:
        self.decoders, self.timeout_seconds = decoders, timeout_seconds
        self.child: DecoderChild | None = None

    def ask(self, request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], Frames | None]:
        """Send a request to a living child. Raises ChildFailure if it ends or takes too long."""
        if self.child is None or self.child.process.poll() is not None:
            self.close()
            self.child = DecoderChild(self.decoders)
        return self.child.ask(request, payload, self.timeout_seconds)

    def close(self) -> None:
        """End the child."""
        if self.child is not None:
            self.child.process.kill()
            self.child.kill()
            self.child = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class Choices:
    """Which decoder reads which kind of file, and why: learnt from verdicts, one by one.

    The first visit of a payload belongs to the judge, who alone says when a frame is damaged. On
    later visits the others are judged, until ``JUDGED_CLIPS`` of its kind have been; from then on
    it is read by the fastest that agreed on all of them. Judging takes a bounded share of the time.
    """

    judged: dict[str, list[list[Verdict]]] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    reading_seconds: float = 0.0
    judging_seconds: float = 0.0

    def is_whole(self, digest: str) -> bool:
        """Say whether the judge has read this payload (its SHA-256) to the end."""
        return digest in self.whole

    def note_read(self, digest: str, seconds: float) -> None:
        """Remember that a payload was read to the end; the first time that is by the judge."""
        self.reading_seconds += seconds
        if len(self.whole) < MAX_DIGESTS:
            self.whole.add(digest)

    def wants(self, kind: str) -> bool:
        """Say whether another clip of this signature should be judged."""
        if not kind or (kind not in self.judged and len(self.judged) >= MAX_SIGNATURES):
            return False
        if self.judging_seconds > JUDGING_SECONDS + JUDGING_SHARE * self.reading_seconds:
            return False
        return len(self.judged.get(kind, [])) < JUDGED_CLIPS

    def add(self, kind: str, verdicts: list[Verdict], seconds: float) -> str:
        """Learn from a clip judged in ``seconds``; return the choice and why once it is settled."""
        clips = self.judged.setdefault(kind, [])
        clips.append(verdicts)
        self.judging_seconds += seconds
        return self.line(kind) if len(clips) == JUDGED_CLIPS else ""

    def table(self) -> dict[str, str]:
        """Return the decoder of every signature for which it is another than the judge."""
        chosen = {kind: choose(clips) for kind, clips in list(self.judged.items())}
        return {kind: name for kind, name in chosen.items() if name != JUDGE}

    def line(self, kind: str) -> str:
        """Return what reads a signature, and what each decoder did on its judged clips."""
        clips = self.judged[kind]
        worst = [worst_of([clip[i] for clip in clips]).text() for i in range(len(clips[0]))]
        return f"{kind} by {choose(clips)} [{'; '.join(worst)}]"

    def text(self) -> str:
        """Return one line a signature, as :meth:`line`."""
        return "\n".join(self.line(kind) for kind in sorted(self.judged))


def worst_of(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the first verdict that is not exact, else the fastest."""
    bad = [verdict for verdict in verdicts if verdict.outcome != Outcome.exact]
    return bad[0] if bad else min(verdicts, key=lambda verdict: verdict.seconds)


def choose(clips: Sequence[Sequence[Verdict]]) -> str:
    """Return the decoder for a signature from the verdicts on its judged clips.

    That is the fastest over all of them among those exact on each; one within ``TIE`` of the judge
    is used, since ties go to the project's default.
    """
    if len(clips) < JUDGED_CLIPS:
        return JUDGE
    total = {JUDGE: sum(clip[0].seconds for clip in clips) * TIE}
    for i, verdict in enumerate(clips[0][1:], start=1):
        if all(clip[i].outcome == Outcome.exact for clip in clips):
            total[verdict.decoder] = sum(clip[i].seconds for clip in clips)
    return min(total, key=lambda name: total[name])


def installed() -> list[str]:
    """Return the video decoders that are installed, the judge first."""
    return [JUDGE, *(name for name in ("decord", "torchcodec") if find_spec(name))]


@command(__doc__, doing="judging the decoders")
def main(arguments: list[str]) -> int:
    """Judge every decoder on files and print the verdicts."""
    parser = OptionParser()
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--decoders", nargs="+", default=installed())
    options = parser.parse_args(arguments)
    names = options.decoders
    with OneChild(names, options.timeout) as child:
        for path in options.files:
            payload = path.read_bytes()
            print(path)
            for verdict in judge(reader(child.ask, payload), names):
                print(f"  {verdict.text()}")
    return 0


if __name__ == "__main__":
    main.run()
