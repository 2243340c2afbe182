"""What the store answers when it does not have something or must not take it."""

from __future__ import annotations

from vault.errors import VaultError


class NotStored(VaultError):
    """Nothing lies under that name, or nothing that the caller may know of."""

    slug = "not-stored"
    title = "Not stored"
    status = 404


class AlreadyStored(VaultError):
    """Something lies under that name and may not be replaced."""

    slug = "already-stored"
    title = "Already stored"
    status = 409


class VersionConflict(VaultError):
    """Someone published another version first; read it, decide again, publish on top of it."""

    slug = "version-conflict"
    title = "Version conflict"
    status = 409


class ShortKeysNotErased(VaultError):
    """The withdrawal or erasure is recorded, but a reader still holds the old pages of the short keys."""

    slug = "short-keys-not-erased"
    title = "Short keys not erased yet"
    status = 503


class BadRing(VaultError):
    """A ring that its owner signed but that contradicts itself or what is stored."""

    slug = "bad-ring"
    title = "Ring is not acceptable"
    status = 422
