"""Refusals of the verifier: one family, whatever the bytes were."""

from __future__ import annotations

from vault.errors import VaultError


class InvalidProof(VaultError):
    """A proof, signature or opening that does not show what it claims."""

    slug = "invalid-proof"
    title = "Invalid proof"
    status = 422


class MalformedProof(InvalidProof):
    """Text or bytes that are not a note, checkpoint, receipt, tile or entry in their one spelling."""

    slug = "malformed-proof"
    title = "Malformed proof"
