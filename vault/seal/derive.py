"""Keys derived from independent secrets, each under its own label. Source: RFC 5869 (HKDF-SHA256)."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vault.seal.errors import SealError
from vault.seal.framing import frames
from vault.seal.ids import SubjectId, key_id
from vault.seal.signing import SigningKey


def derive(secret: bytes, label: str, *about: bytes, size: int = 32) -> bytes:
    """Return a key for one use of a secret.

    Args:
        secret: At least 16 bytes with full entropy, or the output of Argon2id.
        label: The use; two uses never share one.
        *about: What else sets this key apart.
        size: Bytes wanted.

    Raises:
        SealError: The secret is too short to be one.
    """
    if len(secret) < 16:
        raise SealError("A secret is too short to derive keys from.")
    info = frames(b"twinvault/" + label.encode() + b"/v1", *about)
    return HKDF(algorithm=SHA256(), length=size, salt=None, info=info).derive(secret)


def imprint_key(compartment_seed: bytes) -> bytes:
    """Return the key that opens a compartment's imprint rows and nothing else."""
    return derive(compartment_seed, "imprint")


def chain_key(compartment_seed: bytes) -> bytes:
    """Return the key of what chains of rows go on with: as private as the traces, so only their seed gives it."""
    return derive(compartment_seed, "chain")


def pairwise_key(pairwise_seed: bytes, grantee: str) -> SigningKey:
    """Return the key with which an owner signs towards one grantee: companies cannot join people by it."""
    return SigningKey(derive(pairwise_seed, "pairwise", grantee.encode()))


def subject_of(pairwise_public_key: bytes) -> SubjectId:
    """Return the pseudonym of an owner towards the grantee whose pairwise public key this is."""
    return SubjectId(key_id(pairwise_public_key))
