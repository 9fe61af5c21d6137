"""What an answer of the checklist is."""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How an item stands: known and harmless, known and a reason for care, or not known."""

    answered = "answered"
    caution = "caution"
    unknown = "not known"


Found = tuple[str, Status]
UNKNOWN: Found = ("not known", Status.unknown)


@dataclass(frozen=True)
class Answer:
    """An item of the checklist; ``section`` is the anchor of the page that has the details."""

    question: str
    text: str
    status: Status
    section: str
