"""When one's days close, as the service states it: what reaches it after a day's row is made is in no answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from twinvault.api import ApiError, field
from vault.schema.freshness import Freshness


@dataclass(frozen=True, slots=True)
class Closing:
    """Which days are closed, and which close next.

    Args:
        choice: What the owner chose.
        monthly: Whether the installation makes a row a month, so that days close with theirs whatever was chosen.
        closed: The last local date that is closed.
        following: The last of those that close next.
        at: When they do.
    """

    choice: Freshness
    monthly: bool
    closed: date
    following: date
    at: datetime

    @classmethod
    def of(cls, said: Any) -> Closing:
        """Return what the service said.

        Raises:
            ApiError: It said something else.
        """
        try:
            return cls(
                Freshness(field(said, "choice")),
                field(said, "cadence") == "monthly",
                date.fromisoformat(field(said, "closed")),
                date.fromisoformat(field(said, "next")),
                datetime.fromtimestamp(field(said, "at", int), UTC),
            )
        except (ValueError, OverflowError, OSError) as error:
            raise ApiError("unexpected-answer", 200, "The service's answer does not say when days close.") from error
