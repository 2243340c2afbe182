"""Events, versions and counted answers, as a verifier knows them once their openings hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vault.encoding import JsonObject
from vault.proof.errors import InvalidProof
from vault.proof.leaf import LeafKind
from vault.schema.consent import ConsentVersion

CHAINED: Final = (LeafKind.CONSENT_REQUEST, LeafKind.CONSENT, LeafKind.ANSWER, LeafKind.DENIAL)
"""Events that are numbered and chained in their consent."""

LAST_S: Final = 2**32
"""Unix second from which on no time is one."""


@dataclass(frozen=True)
class Event:
    """One leaf with what its openings show; `personal` is empty where the holder may not open it."""

    index: int
    kind: LeafKind
    public: JsonObject
    personal: JsonObject
    personal_body: bytes | None

    @property
    def consent(self) -> str:
        """The consent that it is about."""
        return str(self.personal.get("consent"))

    @property
    def at(self) -> int:
        """When it happened, unix seconds.

        Raises:
            InvalidProof: The leaf does not say.
        """
        if self.said_at is None:
            raise InvalidProof("The leaf does not say when its event happened.")
        return self.said_at

    @property
    def said_at(self) -> int | None:
        """When it happened, if it says so."""
        at = self.personal.get("at", self.public.get("at"))
        return at if isinstance(at, int) and 0 <= at < LAST_S else None


@dataclass(frozen=True)
class Version:
    """One verified version of a consent and where it is logged."""

    index: int
    version: ConsentVersion
    envelope_sha256: bytes


@dataclass(frozen=True, slots=True)
class Counted:
    """An answer as its consent's quota counted it.

    Args:
        index: Its leaf.
        at: When it was asked for, unix seconds.
        month: In which month it was counted: never an earlier one than the answer before.
        number: Which of its month it was, from 1.
    """

    index: int
    at: int
    month: str
    number: int

    def used_in(self, period: str) -> int:
        """Return how many answers of a month are used after this one."""
        return self.number if self.month >= period else 0


NOTHING_COUNTED: Final = Counted(-1, 0, "", 0)
