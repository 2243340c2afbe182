"""What a verifier reports: the numbered steps, what each looked at, and every failure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum


class Step(IntEnum):
    """What is checked, in order; 0 is whether the file can be read at all."""

    BUNDLE = 0
    CHECKPOINT = 1
    INCLUSION = 2
    OPENINGS = 3
    KEYS = 4
    CONSENT = 5
    ORDER = 6
    ANSWER = 7
    QUESTION = 8
    DECISION = 9
    CERTIFICATE = 10
    QUOTA = 11
    ERASURE = 12
    WITNESSES = 13
    TIME = 14
    RECORDS = 15
    LEDGER = 16
    LEGACY = 17
    GROUPS = 18
    LISTING = 19


@dataclass(frozen=True)
class Failure:
    """One thing that does not hold.

    Args:
        step: Which check.
        leaf_index: The leaf it is about; None for the bundle as a whole.
        detail: One sentence.
    """

    step: Step
    leaf_index: int | None
    detail: str


@dataclass(frozen=True)
class Report:
    """What was checked.

    Args:
        leaves: How many leaves the bundle holds.
        checked: How many things each step looked at.
        withheld: How many things each step could not look at, because the bundle says that it leaves
            out what they need; nothing is known about those.
        failures: What does not hold; empty means that everything checked holds.
        erased: How many events were erased, by who ordered it (`vault.proof.ordered.AUTHORS`). Only an owner's order
            was checked; what anybody else is said to have ordered is the service's word.
    """

    leaves: int
    checked: dict[Step, int]
    withheld: dict[Step, int]
    failures: tuple[Failure, ...]
    erased: dict[str, int] = field(default_factory=dict)
