"""The account record: the owner's signing and pairwise seeds under the root. Succession replaces it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vault.encoding import b64u
from vault.seal.dsse import Envelope, PayloadType, sign_record, verify_envelope
from vault.seal.errors import SealError
from vault.seal.fields import Fields
from vault.seal.framing import frames
from vault.seal.ids import VaultId
from vault.seal.signing import SEED_BYTES, SigningKey
from vault.seal.version import parse_version
from vault.seal.wrap import WRAP_OVERHEAD_BYTES, lock, unlock

_LOCKED_BYTES: Final = SEED_BYTES + WRAP_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True, repr=False)
class OwnerSeeds:
    """What only the owner has.

    Args:
        signing: Seed of the owner's current signing key.
        pairwise: Seed of all pairwise keys.
    """

    signing: bytes
    pairwise: bytes


@dataclass(frozen=True, slots=True)
class Account:
    """A verified account record.

    Args:
        vault: Whose.
        version: 1, 2, ...
        prev: Digest of the envelope of the version before.
        locked_signing: The signing seed under the root.
        locked_pairwise: The pairwise seed under the root.
    """

    vault: VaultId
    version: int
    prev: bytes
    locked_signing: bytes
    locked_pairwise: bytes


def seal_account(seeds: OwnerSeeds, root: bytes, *, vault: VaultId, version: int, prev: bytes) -> Envelope:
    """Return the seeds locked under the root, signed by the owner key among them.

    Args:
        seeds: The owner's.
        root: 32 bytes.
        vault: Whose.
        version: One above the stored record's; 1 for the first.
        prev: Digest of the stored record's envelope; zeros for the first.

    Raises:
        SealError: A seed or the root has another length.
    """
    locked_signing = lock(root, seeds.signing, _context(vault, b"signing"))
    locked_pairwise = lock(root, seeds.pairwise, _context(vault, b"pairwise"))
    return sign_record(
        PayloadType.ACCOUNT,
        {
            "vault": b64u(vault),
            "version": version,
            "prev": b64u(prev),
            "signing": b64u(locked_signing),
            "pairwise": b64u(locked_pairwise),
        },
        SigningKey(seeds.signing),
    )


def verify_account(envelope: Envelope, owner_key: bytes, vault: VaultId) -> Account:
    """Return an account record that its owner signed.

    Args:
        envelope: What the server gave.
        owner_key: The owner's Ed25519 key in force, 32 bytes.
        vault: Whose record is asked for.

    Raises:
        SealError: Another vault's, not signed by the owner, or malformed.
    """
    fields = Fields(verify_envelope(envelope, PayloadType.ACCOUNT, owner_key))
    version, prev = parse_version(fields, vault)
    signing, pairwise = (fields.binary(name, size=_LOCKED_BYTES) for name in ("signing", "pairwise"))
    fields.end()
    return Account(vault, version, prev, signing, pairwise)


def open_account(account: Account, root: bytes, owner_key: bytes) -> OwnerSeeds:
    """Return the owner's seeds.

    Args:
        account: Verified.
        root: 32 bytes, from a slot.
        owner_key: The owner's Ed25519 key in force, 32 bytes.

    Raises:
        SealError: Another root, or the signing seed is not the owner key's.
    """
    signing = unlock(root, account.locked_signing, _context(account.vault, b"signing"))
    if SigningKey(signing).public_key != owner_key:
        raise SealError("The account record holds another signing seed than the owner key's.")
    return OwnerSeeds(signing, unlock(root, account.locked_pairwise, _context(account.vault, b"pairwise")))


def _context(vault: VaultId, use: bytes) -> bytes:
    return frames(b"twinvault/account/v1", vault, use)
