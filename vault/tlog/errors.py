"""What the log answers when it cannot or must not go on."""

from __future__ import annotations

from vault.errors import VaultError


class LogBusy(VaultError):
    """The event is recorded and will be logged, but no checkpoint covered it in time."""

    slug = "log-busy"
    title = "Log busy"
    status = 503

    def __init__(self) -> None:
        super().__init__(
            "The event is recorded but not yet in the signed log; ask again for the same thing.", retry_after_s=1
        )


class LogDamaged(VaultError):
    """Leaves, tiles and head in the database do not make the tree that was signed."""

    slug = "log-damaged"
    title = "Log damaged"
    status = 503


class JournalMissing(VaultError):
    """The journal of withdrawals and charges is not where it was, so what a restored backup forgot is unknown."""

    slug = "journal-missing"
    title = "Journal missing"
    status = 503


class JournalDamaged(VaultError):
    """The journal of withdrawals and charges does not hold what was written into it."""

    slug = "journal-damaged"
    title = "Journal damaged"
    status = 503


class NotInLog(VaultError):
    """A leaf, tile or size that the log does not have."""

    slug = "not-in-log"
    title = "Not in the log"
    status = 404
