"""Refusals about legacies."""

from __future__ import annotations

from vault.errors import VaultError


class BadPlan(VaultError):
    """A plan that verifies but cannot be put in force."""

    slug = "bad-plan"
    title = "Legacy plan is not acceptable"
    status = 422


class BadStatement(VaultError):
    """A statement that verifies but may not be followed now."""

    slug = "bad-statement"
    title = "Legacy statement is not acceptable"
    status = 409


class OwnerIsHere(VaultError):
    """A declaration about an owner who is signed in."""

    slug = "owner-is-here"
    title = "Owner is here"
    status = 409


class UnknownLegacy(VaultError):
    """No plan in force has this legacy key."""

    slug = "unknown-legacy"
    title = "Unknown legacy"
    status = 404
