"""What consents refuse."""

from __future__ import annotations

from vault.errors import VaultError


class UnknownConsent(VaultError):
    """No such consent, or none that the caller may know of."""

    slug = "unknown-consent"
    title = "Unknown consent"
    status = 404


class ConsentConflict(VaultError):
    """A consent of that id exists already; versions are appended, never given twice."""

    slug = "consent-exists"
    title = "Consent exists"
    status = 409


class BadHandover(VaultError):
    """The keys that come with a consent are not exactly what the consent allows."""

    slug = "bad-handover"
    title = "Handover is not acceptable"
    status = 422


class StaleRecipient(BadHandover):
    """Keys sealed to a key of the service that is not in force any more."""

    slug = "stale-recipient"
    title = "Keys are sealed to a former key"
    status = 409


class NotSpent(VaultError):
    """The consent did not allow an answer at the moment it was to be recorded; nothing was recorded."""

    slug = "not-spent"
    title = "Consent does not allow an answer now"
    status = 409


class KeysGone(VaultError):
    """The keys of a consent were taken away."""

    slug = "keys-gone"
    title = "Keys are gone"
    status = 409
