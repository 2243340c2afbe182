"""A handover: the keys of one consent, signed by the owner and sealed to one identity; and its reseals.

The terms are the signed record without the ciphertext's hash. They go whole through HPKE's `info`,
and the signature covers terms and SHA-256(ciphertext): a ciphertext opens under its own terms only,
and no other ciphertext can stand beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NewType

from vault.encoding import JsonObject, b64u, dump_json
from vault.seal.dsse import Envelope, PayloadType, parse_envelope, sign_record, unverified_record, verify_envelope
from vault.seal.errors import SealError, as_seal_error
from vault.seal.fields import Fields, parse_id
from vault.seal.framing import Reader, frames
from vault.seal.ids import CompartmentId, ConsentId, VaultId, sha256
from vault.seal.recipient import SUITE_NAME, Opener, Recipient
from vault.seal.ring import Compartment, checked_seed
from vault.seal.signing import Signer
from vault.seal.wrap import KEY_BYTES

MAX_HANDOVER_BYTES: Final = 2 << 20
MAX_KEYS: Final = 16_384
_VERSION: Final = 1


class KeyKind(StrEnum):
    """Which keys are handed over."""

    RAW = "raw"
    """Compartment seeds, which open traces and rows: to the processor."""

    IMPRINT = "imprint"
    """Imprint keys, which open rows only: to the serving identity."""


@dataclass(frozen=True, slots=True)
class HandoverTerms:
    """What a handover is about.

    Args:
        vault: Whose.
        consent: Under which consent.
        kind: Which keys.
        compartments: Of which compartments, in the order of the keys.
        to: SHA-256 of the public key it is sealed to.
        not_before_s: Unix seconds from which the keys may be used.
        not_after_s: Unix seconds until which they may be used.
        ring_version: The ring that the owner took the keys from.
        prev: Digest of the handover or reseal that a reseal replaces; None in an owner's handover.
    """

    vault: VaultId
    consent: ConsentId
    kind: KeyKind
    compartments: tuple[CompartmentId, ...]
    to: bytes
    not_before_s: int
    not_after_s: int
    ring_version: int
    prev: bytes | None = None


@dataclass(frozen=True, slots=True)
class Handover:
    """A handover or reseal.

    Args:
        envelope: The signed record.
        terms: What it says it is about.
        ciphertext: One HPKE message with all keys in order.
    """

    envelope: Envelope
    terms: HandoverTerms
    ciphertext: bytes

    @property
    def encoded(self) -> bytes:
        """The one binary encoding: envelope frame, ciphertext frame."""
        return frames(self.envelope.encoded, self.ciphertext)


VerifiedHandover = NewType("VerifiedHandover", Handover)
"""A handover that `verify_handover` or `verify_reseal` returned."""


def seal_handover(
    terms: HandoverTerms, keys: Mapping[CompartmentId, bytes], recipient: Recipient, owner: Signer
) -> Handover:
    """Return the keys sealed to a recipient under the owner's signature.

    Args:
        terms: What is handed over; `to` must be the recipient's key hash.
        keys: At least one per compartment of the terms: its seed, or its imprint key.
        recipient: From a key statement that the operator signed and the log holds.
        owner: The owner's signing key.

    Raises:
        SealError: Terms that no receiver would accept, or a missing key.

    Guarantees:
        No key outside `terms.compartments` is in the message.
    """
    return _seal(PayloadType.HANDOVER, terms, keys, recipient, owner)


def reseal(previous: VerifiedHandover, keys: Mapping[CompartmentId, bytes], to: Recipient, signer: Signer) -> Handover:
    """Return the same keys, or fewer, sealed to the next epoch's identity under the signature of who opened them.

    Args:
        previous: What it replaces.
        keys: The keys to keep: after an erasure, all but the erased compartments'.
        to: The next identity.
        signer: The worker's signing key for seeds, the app's for imprint keys.

    Raises:
        SealError: No key is kept.
    """
    kept = tuple(name for name in previous.terms.compartments if name in keys)
    terms = replace(previous.terms, compartments=kept, to=to.key_hash, prev=previous.envelope.digest)
    return _seal(PayloadType.RESEAL, terms, keys, to, signer)


def parse_handover(data: bytes) -> Handover:
    """Parse a handover or reseal; its signature is not checked.

    Raises:
        SealError: The bytes are not the one encoding of one.
    """
    reader = Reader(data, MAX_HANDOVER_BYTES)
    envelope, ciphertext = parse_envelope(reader.frame()), reader.frame()
    reader.end()
    link = parse_link(envelope)
    if unverified_record(envelope)["ciphertext"] != b64u(sha256(ciphertext)):
        raise SealError("A handover's ciphertext is not the one that was signed.")
    return replace(link, ciphertext=ciphertext)


def parse_link(envelope: Envelope) -> Handover:
    """Parse the signed record of a handover or reseal whose ciphertext is not kept; its signature is not checked.

    Raises:
        SealError: It is another record.
    """
    if envelope.payload_type not in {PayloadType.HANDOVER, PayloadType.RESEAL}:
        raise SealError("A signed record is not a handover.")
    fields = Fields(unverified_record(envelope))
    fields.hash("ciphertext")
    terms = _parse_terms(fields, resealed=envelope.payload_type is PayloadType.RESEAL)
    return Handover(envelope, terms, b"")


def verify_handover(handover: Handover, vault: VaultId, owner_key: bytes) -> VerifiedHandover:
    """Check that the owner of this vault signed a handover.

    Args:
        handover: What arrived.
        vault: Whose keys it is to hand over.
        owner_key: The owner's Ed25519 key in force, 32 bytes.

    Raises:
        SealError: Another vault, a reseal, or a bad signature.
    """
    verify_envelope(handover.envelope, PayloadType.HANDOVER, owner_key)
    if handover.terms.vault != vault:
        raise SealError("A handover belongs to another vault.")
    return VerifiedHandover(handover)


def verify_reseal(resealed: Handover, previous: VerifiedHandover, signer_key: bytes) -> VerifiedHandover:
    """Check that a reseal continues an unbroken chain from the owner's handover.

    Args:
        resealed: What arrived.
        previous: The handover or reseal that it must replace, verified.
        signer_key: Signing key of the process whose identity opened the one before: the worker's for seeds,
            the app's for imprint keys.

    Raises:
        SealError: A bad signature, another predecessor, or terms wider than before.
    """
    verify_envelope(resealed.envelope, PayloadType.RESEAL, signer_key)
    kept = set(resealed.terms.compartments)
    allowed = tuple(name for name in previous.terms.compartments if name in kept)
    expected = replace(previous.terms, compartments=allowed, to=resealed.terms.to, prev=previous.envelope.digest)
    if resealed.terms != expected:
        raise SealError("A reseal does not carry on the terms of the handover it replaces.")
    return VerifiedHandover(resealed)


def open_handover(
    handover: VerifiedHandover, opener: Opener, compartments: Mapping[CompartmentId, Compartment]
) -> dict[CompartmentId, bytes]:
    """Return the keys by compartment.

    Args:
        handover: Verified.
        opener: The identity it is sealed to.
        compartments: From the verified ring; all that the handover names.

    Raises:
        SealError: Sealed to another identity, a compartment the ring does not list, or a seed
            whose public key is not the ring's. A wrong imprint key shows when a row does not open.
    """
    terms = handover.terms
    if opener.recipient.key_hash != terms.to:
        raise SealError("A handover is sealed to another identity.")
    if not compartments.keys() >= set(terms.compartments):
        raise SealError("A handover names a compartment that the ring does not list.")
    joined = opener.open(handover.ciphertext, _info(handover.envelope.payload_type, _dump_terms(terms)))
    if len(joined) != KEY_BYTES * len(terms.compartments):
        raise SealError("A handover holds another number of keys than it names.")
    keys = {name: joined[i * KEY_BYTES : (i + 1) * KEY_BYTES] for i, name in enumerate(terms.compartments)}
    if terms.kind is KeyKind.RAW:
        for name, seed in keys.items():
            checked_seed(seed, compartments[name])
    return keys


def _seal(
    payload_type: PayloadType,
    terms: HandoverTerms,
    keys: Mapping[CompartmentId, bytes],
    recipient: Recipient,
    signer: Signer,
) -> Handover:
    if terms.to != recipient.key_hash or not keys.keys() >= set(terms.compartments):
        raise SealError("A handover needs its recipient's key hash and a key for each compartment.")
    record = _dump_terms(terms)
    joined = b"".join(keys[name] for name in terms.compartments)
    ciphertext = recipient.seal(joined, _info(payload_type, record))
    envelope = sign_record(payload_type, {**record, "ciphertext": b64u(sha256(ciphertext))}, signer)
    return parse_handover(Handover(envelope, terms, ciphertext).encoded)


def _info(payload_type: PayloadType, record: JsonObject) -> bytes:
    with as_seal_error():
        return frames(payload_type.encode(), dump_json(record))


def _dump_terms(terms: HandoverTerms) -> JsonObject:
    record: JsonObject = {
        "v": _VERSION,
        "suite": SUITE_NAME,
        "vault": b64u(terms.vault),
        "consent": b64u(terms.consent),
        "kind": str(terms.kind),
        "compartments": [b64u(name) for name in terms.compartments],
        "to": b64u(terms.to),
        "not_before": terms.not_before_s,
        "not_after": terms.not_after_s,
        "ring": terms.ring_version,
    }
    return record if terms.prev is None else {**record, "prev": b64u(terms.prev)}


def _parse_terms(fields: Fields, *, resealed: bool) -> HandoverTerms:
    if fields.integer("v") != _VERSION or fields.text("suite") != SUITE_NAME:
        raise SealError("A handover has a version or suite that TwinVault does not know.")
    kind = fields.text("kind")
    if kind not in set(KeyKind):
        raise SealError("A handover has a kind of keys that TwinVault does not know.")
    names = tuple(CompartmentId(parse_id(str(name))) for name in fields.items("compartments"))
    if not 0 < len(names) <= MAX_KEYS or len(set(names)) != len(names):
        raise SealError("A handover names no compartment, too many, or one twice.")
    terms = HandoverTerms(
        VaultId(fields.id("vault")),
        ConsentId(fields.id("consent")),
        KeyKind(kind),
        names,
        fields.hash("to"),
        fields.integer("not_before"),
        fields.integer("not_after"),
        fields.integer("ring", least=1),
        fields.hash("prev") if resealed else None,
    )
    fields.end()
    if terms.not_after_s <= terms.not_before_s:
        raise SealError("A handover ends before it begins.")
    return terms
