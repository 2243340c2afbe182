"""Orders to erase, and the certificate of what an erasure destroyed.

An order names compartments one by one, never "whatever lies there now": sent again later, it destroys nothing
that came after it. A certificate is the service's signed word; the leaf that it names is in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from vault.encoding import JsonObject, b64u
from vault.seal.dsse import Envelope, PayloadType, sign_record, verify_envelope
from vault.seal.errors import SealError
from vault.seal.fields import Fields, parse_id
from vault.seal.ids import HASH_BYTES, CompartmentId, VaultId
from vault.seal.signing import Signer

MAX_COMPARTMENTS: Final = 20_000
MAX_REASON: Final = 200
MAX_MODELS: Final = 1_000
ENTRY_BYTES: Final = 65


class Author(StrEnum):
    """On whose word something is erased."""

    OWNER = "owner"
    EXECUTORS = "executors"
    OPERATOR = "operator"
    RETENTION = "retention"


class Counted(StrEnum):
    """What a certificate counts."""

    COMPARTMENTS = "compartments"
    BATCHES = "batches"
    ROWS = "rows"
    CONSENTS = "consents"
    ANSWERS = "answers"


@dataclass(frozen=True, slots=True)
class Scope:
    """What is to be erased.

    Args:
        vault: Whose.
        compartments: These; None for everything that is kept about the person.

    Raises:
        SealError: No compartment at all, one twice, or too many.
    """

    vault: VaultId
    compartments: tuple[CompartmentId, ...] | None

    def __post_init__(self) -> None:
        named = self.compartments
        if named is not None and not (0 < len(named) == len(set(named)) <= MAX_COMPARTMENTS):
            raise SealError(f"An erasure names 1 to {MAX_COMPARTMENTS} compartments, each once, or the whole person.")

    @property
    def whole(self) -> bool:
        """Whether nothing of the person stays."""
        return self.compartments is None


@dataclass(frozen=True, slots=True)
class Order:
    """An owner's order.

    Args:
        erasure_id: 16 random bytes; whoever knows it may fetch the certificate.
        scope: What to erase.
        reason: In the owner's words, may be empty.
        issued_at: Unix seconds.
    """

    erasure_id: bytes
    scope: Scope
    reason: str
    issued_at: int


@dataclass(frozen=True, slots=True)
class TouchedModel:
    """A model that may have been trained on what is erased. It stays: person-level privacy is why it may.

    Args:
        manifest: SHA-256 of its manifest, 32 bytes.
        epsilon_ppm: What it can say about any one person, in millionths.
        delta_inverse: 1 / delta of that epsilon.
    """

    manifest: bytes
    epsilon_ppm: int
    delta_inverse: int


@dataclass(frozen=True, slots=True)
class ErasureCertificate:
    """What was destroyed, on whose word.

    Args:
        erasure_id: Of the order.
        scope: What was erased.
        author: On whose word.
        reason: Why.
        identity_check: SHA-256 of the record of how the operator checked who asked; empty for an owner's order.
        order_sha256: Digest of the owner's signed order; empty where there was none.
        entry: The log entry of the erasure, 65 bytes.
        at: Unix seconds.
        destroyed: How many of each.
        models: Released models that may have learned from it; each stays, under its privacy guarantee.
    """

    erasure_id: bytes
    scope: Scope
    author: Author
    reason: str
    identity_check: bytes
    order_sha256: bytes
    entry: bytes
    at: int
    destroyed: Mapping[Counted, int]
    models: tuple[TouchedModel, ...]


def sign_order(order: Order, owner: Signer) -> Envelope:
    """Return an order under the owner's key."""
    record: JsonObject = {
        **dump_scope(order.scope),
        "erasure": b64u(order.erasure_id),
        "reason": order.reason,
        "issued_at": order.issued_at,
    }
    return sign_record(PayloadType.ERASURE, record, owner)


def verify_order(envelope: Envelope, owner_key: bytes, vault: VaultId) -> Order:
    """Return an owner's order; its age is the receiver's to check.

    Args:
        envelope: What arrived.
        owner_key: The owner's signing key in force.
        vault: The vault it must be about.

    Raises:
        SealError: Malformed, signed by another key, or about another vault.
    """
    fields = Fields(verify_envelope(envelope, PayloadType.ERASURE, owner_key))
    scope = parse_scope(fields)
    order = Order(fields.id("erasure"), scope, fields.text("reason", most=MAX_REASON), fields.integer("issued_at"))
    fields.end()
    if scope.vault != vault:
        raise SealError("The order is about another vault.")
    return order


def sign_certificate(certificate: ErasureCertificate, service: Signer) -> Envelope:
    """Return a certificate under the service's key."""
    record: JsonObject = {
        **dump_scope(certificate.scope),
        "erasure": b64u(certificate.erasure_id),
        "author": str(certificate.author),
        "reason": certificate.reason,
        "identity_check": b64u(certificate.identity_check),
        "order": b64u(certificate.order_sha256),
        "entry": b64u(certificate.entry),
        "at": certificate.at,
        "destroyed": {str(name): certificate.destroyed[name] for name in Counted},
        "models": [
            {"manifest": b64u(one.manifest), "epsilon_ppm": one.epsilon_ppm, "delta_inverse": one.delta_inverse}
            for one in certificate.models
        ],
    }
    return sign_record(PayloadType.ERASED, record, service)


def verify_certificate(envelope: Envelope, service_key: bytes) -> ErasureCertificate:
    """Return what the service certifies.

    Raises:
        SealError: Malformed, or signed by another key.
    """
    fields = Fields(verify_envelope(envelope, PayloadType.ERASED, service_key))
    scope, author = parse_scope(fields), fields.text("author")
    if author not in set(Author):
        raise SealError("A certificate names an author that TwinVault does not know.")
    counts = Fields(fields.object("destroyed"))
    certificate = ErasureCertificate(
        erasure_id=fields.id("erasure"),
        scope=scope,
        author=Author(author),
        reason=fields.text("reason", most=MAX_REASON),
        identity_check=_hash_or_nothing(fields, "identity_check"),
        order_sha256=_hash_or_nothing(fields, "order"),
        entry=fields.binary("entry", size=ENTRY_BYTES),
        at=fields.integer("at"),
        destroyed={name: counts.integer(name) for name in Counted},
        models=tuple(_model(Fields(item)) for item in fields.items("models")[:MAX_MODELS]),
    )
    counts.end()
    fields.end()
    return certificate


def parse_scope(fields: Fields) -> Scope:
    """Take a scope's fields out of a record.

    Raises:
        SealError: They contradict each other.
    """
    vault, whole, named = VaultId(fields.id("vault")), fields.integer("whole"), fields.items("compartments")
    if whole not in {0, 1} or (whole == 1) is not (not named):
        raise SealError("An erasure is of the whole person, or names compartments.")
    ids = tuple(CompartmentId(parse_id(str(name))) for name in named[: MAX_COMPARTMENTS + 1])
    return Scope(vault, ids or None)


def dump_scope(scope: Scope) -> JsonObject:
    """Return a scope's fields as `parse_scope` reads them."""
    return {
        "vault": b64u(scope.vault),
        "whole": int(scope.whole),
        "compartments": [b64u(name) for name in sorted(scope.compartments or ())],
    }


def _hash_or_nothing(fields: Fields, name: str) -> bytes:
    found = fields.binary(name)
    if len(found) not in {0, HASH_BYTES}:
        raise SealError(f"The field {name} is neither empty nor a SHA-256 value.")
    return found


def _model(fields: Fields) -> TouchedModel:
    found = TouchedModel(
        fields.hash("manifest"), fields.integer("epsilon_ppm"), fields.integer("delta_inverse", least=1)
    )
    fields.end()
    return found
