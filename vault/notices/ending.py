"""Notices of what has not happened yet: consents that end soon unless their owner renews them.

They are read off the consents themselves and stand in no leaf: the log tells what was, and an end that a renewal,
a narrowing or a withdrawal moves tomorrow was not. The end itself is logged, when it comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlmodel import Session

from vault.consent import consents
from vault.notices.feed import party_of
from vault.seal.ids import ConsentId, VaultId


@dataclass(frozen=True, slots=True)
class EndingNotice:
    """A consent that ends within a week.

    Args:
        consent_id: Which.
        version: Which version's end it is: whoever was told of it once need not be told again.
        ends_at_s: Unix second from which on nothing is answered under it.
        sentence: The same in plain words.
    """

    consent_id: ConsentId
    version: int
    ends_at_s: int
    sentence: str


def ending(session: Session, vault_id: VaultId, *, now: datetime) -> list[EndingNotice]:
    """Return what ends within a week, the first to end first.

    Args:
        session: A snapshot.
        vault_id: Whose consents.
        now: The current time.
    """
    found = []
    for item in consents.list_ending(session, vault_id, now=now):
        ends_at_s = item.current.terms.not_after
        day = datetime.fromtimestamp(ends_at_s, UTC).strftime("%Y-%m-%d")
        party = party_of(session, item.current.terms.grantee)
        said = f"{party}: your consent ends on {day} unless you renew it."
        found.append(EndingNotice(item.consent_id, item.current.version, ends_at_s, said))
    return found
