"""What an owner signs about the vault itself: genesis, succession, profile, freeze, signing in.

Genesis makes the vault id. Profile and freeze carry one growing sequence number per vault, so that
none of them can be replayed after a later one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from vault.encoding import JsonObject, b64u
from vault.seal.dsse import Envelope, PayloadType, sign_record, unverified_record, verify_envelope
from vault.seal.errors import SealError
from vault.seal.fields import Fields
from vault.seal.ids import DeviceId, VaultId, key_id, sha256
from vault.seal.signing import Signer

NONCE_BYTES: Final = 32
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]{0,63}")


class Role(StrEnum):
    """As what a session speaks; a watcher is the owner's program without the owner: it reads what happened, no more."""

    OWNER = "owner"
    DEVICE = "device"
    WATCHER = "watcher"


@dataclass(frozen=True, slots=True)
class Profile:
    """What policy must know about the person; an adult and alive unless said otherwise.

    Args:
        minor: Under the age at which the person may consent alone.
        guardian_ok: Whether a guardian agreed.
        deceased: Whether the person has died.
    """

    minor: bool = False
    guardian_ok: bool = False
    deceased: bool = False


@dataclass(frozen=True, slots=True)
class Genesis:
    """The first record of a vault.

    Args:
        vault_id: First 16 bytes of SHA-256 of the payload.
        owner_key: Ed25519 public key, 32 bytes.
        next_owner_key_hash: SHA-256 of the public key that alone may succeed it.
        created_at: Unix seconds.
        time_zone: IANA name; decides the local date of every trace, for good.
        profile: As the owner declares it.
    """

    vault_id: VaultId
    owner_key: bytes
    next_owner_key_hash: bytes
    created_at: int
    time_zone: str
    profile: Profile


@dataclass(frozen=True, slots=True)
class Succession:
    """A new owner key for the same vault.

    Args:
        owner_key: The key from now on: the one whose hash the record before named.
        next_owner_key_hash: SHA-256 of the key after it.
    """

    owner_key: bytes
    next_owner_key_hash: bytes


@dataclass(frozen=True, slots=True)
class SignIn:
    """An answer to a challenge.

    Args:
        vault_id: Whose session it is to be.
        role: Owner, device or watcher.
        device_id: Which device; None for the owner and a watcher, whose key is the owner's.
        nonce: The challenge, 32 bytes.
        origin: The issuer URL of the server that set it, so that no other server can use the answer.
    """

    vault_id: VaultId
    role: Role
    device_id: DeviceId | None
    nonce: bytes
    origin: str


def sign_genesis(
    owner: Signer, next_owner_key: bytes, *, created_at: int, time_zone: str, profile: Profile | None = None
) -> Envelope:
    """Return the genesis of a new vault.

    Args:
        owner: The first owner key.
        next_owner_key: Public key that lies in the recovery kit.
        created_at: Unix seconds.
        time_zone: IANA name.
        profile: Adult and alive if not given.
    """
    record: JsonObject = {
        "owner_key": b64u(owner.public_key),
        "next_owner_key_hash": b64u(sha256(next_owner_key)),
        "created_at": created_at,
        "time_zone": time_zone,
        "profile": _profile_json(profile or Profile()),
    }
    return sign_record(PayloadType.GENESIS, record, owner)


def verify_genesis(envelope: Envelope) -> Genesis:
    """Return the genesis; it is signed by the owner key it names.

    Raises:
        SealError: Malformed, signed by another key, or a time zone that does not exist.
    """
    owner_key = Fields(unverified_record(envelope)).public_key("owner_key")
    fields = Fields(verify_envelope(envelope, PayloadType.GENESIS, owner_key))
    genesis = Genesis(
        vault_id=VaultId(key_id(envelope.payload)),
        owner_key=fields.public_key("owner_key"),
        next_owner_key_hash=fields.hash("next_owner_key_hash"),
        created_at=fields.integer("created_at"),
        time_zone=_parse_zone(fields.text("time_zone")),
        profile=_parse_profile(fields.object("profile")),
    )
    fields.end()
    return genesis


def sign_succession(next_owner: Signer, next_owner_key: bytes, *, vault_id: VaultId, prev: bytes) -> Envelope:
    """Return the record that makes the kit's key the owner key.

    Args:
        next_owner: The key from the recovery kit.
        next_owner_key: Public key of the kit made now.
        vault_id: The vault, which keeps its id.
        prev: SHA-256 of the envelope of the genesis or succession before.
    """
    record: JsonObject = {
        "vault": b64u(vault_id),
        "owner_key": b64u(next_owner.public_key),
        "next_owner_key_hash": b64u(sha256(next_owner_key)),
        "prev": b64u(prev),
    }
    return sign_record(PayloadType.SUCCESSION, record, next_owner)


def verify_succession(envelope: Envelope, *, vault_id: VaultId, prev: bytes, next_owner_key_hash: bytes) -> Succession:
    """Return the succession.

    Args:
        envelope: What arrived.
        vault_id: The vault it must be about.
        prev: Digest of the genesis or succession it must follow.
        next_owner_key_hash: What that record committed to.

    Raises:
        SealError: Malformed, about another vault, out of order, or not by the key committed to.
    """
    owner_key = Fields(unverified_record(envelope)).public_key("owner_key")
    if sha256(owner_key) != next_owner_key_hash:
        raise SealError("The succession is not by the key that the record before it committed to.")
    fields = Fields(verify_envelope(envelope, PayloadType.SUCCESSION, owner_key))
    if fields.id("vault") != vault_id or fields.hash("prev") != prev:
        raise SealError("The succession is about another vault or does not follow its newest record.")
    succession = Succession(fields.public_key("owner_key"), fields.hash("next_owner_key_hash"))
    fields.end()
    return succession


def verify_identity(records: Sequence[Envelope], vault_id: VaultId) -> list[bytes]:
    """Return every owner key that a vault has had, oldest first.

    Args:
        records: Genesis, then the successions in their order.
        vault_id: The vault that they must be about.

    Raises:
        SealError: No genesis of this vault, or a succession that does not follow.
    """
    if not records:
        raise SealError("No genesis shows whose vault this is.")
    first, *successions = records
    genesis = verify_genesis(first)
    if genesis.vault_id != vault_id:
        raise SealError("The genesis is another vault's.")
    keys, next_hash, prev = [genesis.owner_key], genesis.next_owner_key_hash, first.digest
    for record in successions:
        new = verify_succession(record, vault_id=vault_id, prev=prev, next_owner_key_hash=next_hash)
        keys.append(new.owner_key)
        next_hash, prev = new.next_owner_key_hash, record.digest
    return keys


def sign_profile(owner: Signer, profile: Profile, *, vault_id: VaultId, sequence: int) -> Envelope:
    """Return a new profile; `sequence` is one above the vault's last."""
    record: JsonObject = {"vault": b64u(vault_id), "sequence": sequence, "profile": _profile_json(profile)}
    return sign_record(PayloadType.PROFILE, record, owner)


def verify_profile(envelope: Envelope, *, owner_key: bytes, vault_id: VaultId, sequence: int) -> Profile:
    """Return the profile.

    Args:
        envelope: What arrived.
        owner_key: The owner's Ed25519 key in force, 32 bytes.
        vault_id: Whose.
        sequence: One above that of the vault's last order or profile.

    Raises:
        SealError: Malformed, by another key, about another vault, or not of this sequence number.
    """
    fields = _in_sequence(envelope, PayloadType.PROFILE, owner_key, vault_id, sequence)
    profile = _parse_profile(fields.object("profile"))
    fields.end()
    return profile


def sign_freeze(owner: Signer, *, frozen: bool, vault_id: VaultId, sequence: int) -> Envelope:
    """Return an order to freeze or unfreeze; `sequence` is one above the vault's last."""
    record: JsonObject = {"vault": b64u(vault_id), "sequence": sequence, "frozen": int(frozen)}
    return sign_record(PayloadType.FREEZE, record, owner)


def verify_freeze(envelope: Envelope, *, owner_key: bytes, vault_id: VaultId, sequence: int) -> bool:
    """Return whether the vault is to be frozen.

    Args:
        envelope: What arrived.
        owner_key: The owner's Ed25519 key in force, 32 bytes.
        vault_id: Whose.
        sequence: One above that of the vault's last order or profile.

    Raises:
        SealError: Malformed, by another key, about another vault, or not of this sequence number.
    """
    fields = _in_sequence(envelope, PayloadType.FREEZE, owner_key, vault_id, sequence)
    frozen = _flag(fields, "frozen")
    fields.end()
    return frozen


def sign_sign_in(signer: Signer, sign_in: SignIn) -> Envelope:
    """Return a signed answer to a challenge."""
    record: JsonObject = {
        "vault": b64u(sign_in.vault_id),
        "role": sign_in.role,
        "device": b64u(sign_in.device_id or b""),
        "nonce": b64u(sign_in.nonce),
        "origin": sign_in.origin,
    }
    return sign_record(PayloadType.SIGN_IN, record, signer)


def parse_sign_in(unverified: JsonObject) -> SignIn:
    """Return what a sign-in record says; whether its signature holds is the caller's to check.

    Raises:
        SealError: Malformed, or a device without its id.
    """
    fields = Fields(unverified)
    vault_id, role = VaultId(fields.id("vault")), fields.text("role")
    device = fields.binary("device")
    if role not in set(Role) or len(device) != (16 if role == Role.DEVICE else 0):
        raise SealError("A sign-in is as the owner or a watcher, without a device, or as a device, with its id.")
    nonce, origin = fields.binary("nonce", size=NONCE_BYTES), fields.text("origin")
    fields.end()
    return SignIn(vault_id, Role(role), DeviceId(device) if device else None, nonce, origin)


def _in_sequence(
    envelope: Envelope, payload_type: PayloadType, owner_key: bytes, vault_id: VaultId, sequence: int
) -> Fields:
    fields = Fields(verify_envelope(envelope, payload_type, owner_key))
    if fields.id("vault") != vault_id or fields.integer("sequence") != sequence:
        raise SealError("The record is about another vault or does not have the vault's next sequence number.")
    return fields


def _profile_json(profile: Profile) -> JsonObject:
    return {
        "minor": int(profile.minor),
        "guardian_ok": int(profile.guardian_ok),
        "deceased": int(profile.deceased),
    }


def _parse_profile(record: JsonObject) -> Profile:
    fields = Fields(record)
    profile = Profile(*(_flag(fields, name) for name in ("minor", "guardian_ok", "deceased")))
    fields.end()
    return profile


def _flag(fields: Fields, name: str) -> bool:
    value = fields.integer(name)
    if value > 1:
        raise SealError(f"The field {name} is neither 0 nor 1.")
    return value == 1


def _parse_zone(name: str) -> str:
    refusal = SealError("The time zone is not a name of the IANA database.")
    if _ZONE.fullmatch(name) is None:  # ZoneInfo opens a file of that name
        raise refusal
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise refusal from error
    return name
