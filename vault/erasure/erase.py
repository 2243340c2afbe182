"""Erasing: one transaction that destroys, logs and certifies; then the keys, the log, and only then the acknowledgement.

The order of locks is that of everybody else: the person, consents by their ids, the ring. What erasing leaves
is what names nobody once the rest is gone: consent ids without content, charges under the vault's id, entries
of the log with their public halves, tombstones, and the certificate.

Source: DESIGN section 9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from sqlalchemy import insert, select
from sqlmodel import Session

from vault.answers import records
from vault.clock import unix_s
from vault.consent import changes, consents, handovers
from vault.db import Database
from vault.encoding import JsonObject, b64u
from vault.erasure.models import erasure
from vault.erasure.survey import Survey, survey
from vault.errors import VaultError
from vault.oauth import authorizations, families
from vault.parties import people
from vault.proof.leaf import LeafKind
from vault.proof.ordered import author_of
from vault.seal.erasure import Author, ErasureCertificate, Scope, dump_scope, parse_scope, sign_certificate
from vault.seal.fields import Fields
from vault.seal.ids import ConsentId, SubjectId
from vault.seal.signing import Signer
from vault.store import accounts, rings, slots
from vault.tlog import log, tombstones
from vault.tlog.log import Pending, PendingId, append
from vault.twin import requests, rows

Forget: TypeAlias = Callable[[Session, Scope], None]
"""What a domain above this one destroys of a scope."""


class NothingToErase(VaultError):
    """A scope in which nothing lies."""

    slug = "nothing-to-erase"
    title = "Nothing to erase"
    status = 409


class ErasureConflict(VaultError):
    """An erasure id that stands for another order."""

    slug = "erasure-conflict"
    title = "Erasure id is used"
    status = 409


class SubjectsMissing(VaultError):
    """An owner's order to erase everything without the word of each pairwise key that it is about."""

    slug = "subjects-missing"
    title = "Order lacks subjects"
    status = 422


@dataclass(frozen=True, slots=True)
class ErasureRequest:
    """Who wants what erased.

    Args:
        erasure_id: 16 random bytes.
        scope: What.
        author: On whose word; the caller has checked it.
        reason: Why, at most 200 characters.
        order_sha256: Digest of the owner's signed order; empty where there is none.
        identity_check: SHA-256 of the operator's record of how the person was identified; empty for an owner.
        signed: Where an owner erases everything: the order under each pairwise key, by subject, verified by the caller.
    """

    erasure_id: bytes
    scope: Scope
    author: Author
    reason: str
    order_sha256: bytes = b""
    identity_check: bytes = b""
    signed: Mapping[SubjectId, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Erased:
    """An erasure that is certified; it is acknowledged once the log shows `leaf_id` and the short keys are gone.

    Args:
        leaf_id: The pending id of its leaf.
        certificate: The signed certificate's bytes.
        consents: Whose opened keys every process drops from its memory.
    """

    leaf_id: PendingId
    certificate: bytes
    consents: tuple[ConsentId, ...]


def erase(
    session: Session,
    short_keys: Database,
    asked: ErasureRequest,
    *,
    service: Signer,
    now: datetime,
    also: Iterable[Forget] = (),
) -> Erased:
    """Destroy what a scope holds, log it and certify it; asking again returns the same certificate.

    The caller then runs `shortkeys.delete_scheduled`, waits for the leaf, and acknowledges.

    Args:
        session: An open writing transaction.
        short_keys: Database of the short keys.
        asked: What and why.
        service: The service's signing key.
        now: The current time.
        also: What domains above this one destroy.

    Raises:
        NothingToErase: Nothing of the scope is left.
        ErasureConflict: The id stands for another order.
        SubjectsMissing: An owner's consents were signed by a pairwise key of which the order says nothing.

    Guarantees: after the commit nothing of the scope can be read through this database or answered from; after
        `delete_scheduled` its seeds and handovers cannot be read from a backup either. Charges stay.
    """
    known = find(session, asked.erasure_id)
    if known is not None:
        if known[1] != asked.order_sha256:
            raise ErasureConflict("This erasure id stands for another order; choose a new random one.")
        return known[0]
    held, found = _take(session, short_keys, asked.scope)
    if found is None:
        raise NothingToErase("Nothing of this is left to erase.")
    ordered = _require_subjects(session, asked) if asked.author is Author.OWNER and asked.scope.whole else {}
    public, pending = _log(session, asked, now)
    with _followed(session, asked.scope, pending, public, ordered):
        _destroy(session, asked.scope, found, held, also)
    certificate = ErasureCertificate(
        erasure_id=asked.erasure_id,
        scope=asked.scope,
        author=asked.author,
        reason=asked.reason,
        identity_check=asked.identity_check,
        order_sha256=asked.order_sha256,
        entry=pending.entry,
        at=unix_s(now),
        destroyed=found.counts,
        models=found.models,
    )
    signed = sign_certificate(certificate, service).encoded
    values = {
        "erasure_id": asked.erasure_id,
        "order_sha256": asked.order_sha256,
        "leaf_id": pending.id,
        "certificate": signed,
    }
    session.connection().execute(insert(erasure), values)
    return Erased(pending.id, signed, found.consents)


def erase_again(
    session: Session, short_keys: Database, public: JsonObject, personal: JsonObject, *, also: Iterable[Forget] = ()
) -> bool:
    """Destroy once more what a restored backup brought back; the journal still has the erasure's leaf.

    Args:
        session: An open writing transaction; `shortkeys.delete_scheduled` follows.
        short_keys: Database of the short keys.
        public: The public half of the erasure's leaf, which a database that was set back has no more.
        personal: The personal half.
        also: As for `erase`.

    Returns:
        Whether there was anything; then it is logged once more. Repeating it is harmless.
    """
    fields = Fields(personal)
    scope = parse_scope(fields)
    held, found = _take(session, short_keys, scope)
    if found is None:
        return False
    said = {**{name: value for name, value in public.items() if name != "kind"}, "again": 1}
    pending = _append(session, LeafKind(str(public["kind"])), said, personal, scope)
    with _followed(session, scope, pending, said, {}):
        _destroy(session, scope, found, held, also)
    return True


def find(session: Session, erasure_id: bytes) -> tuple[Erased, bytes] | None:
    """Return an erasure that was carried out, and the digest of its order."""
    query = select(erasure).where(erasure.c.erasure_id == erasure_id)
    row = session.connection().execute(query).one_or_none()
    return None if row is None else (Erased(PendingId(row.leaf_id), row.certificate, ()), row.order_sha256)


def _take(session: Session, short_keys: Database, scope: Scope) -> tuple[list[ConsentId], Survey | None]:
    """Lock all that an erasure touches; return the vault's consents, and what lies in the scope, if anything."""
    here = people.lock(session, scope.vault)
    held = consents.lock_all(session, scope.vault)
    rings.lock(session, scope.vault)
    found = survey(session, short_keys, scope)
    return held, found if found.compartments or (scope.whole and here) else None


def _require_subjects(session: Session, asked: ErasureRequest) -> dict[SubjectId, bytes]:
    """Return what was signed as each subject that there is, and nothing else: the rest of it would only join people."""
    subjects = {consent.subject for consent in consents.list_for(session, asked.scope.vault)}
    if not subjects <= asked.signed.keys():
        raise SubjectsMissing(
            "Nothing was erased: an order to erase everything is signed by the pairwise key of every consent that was "
            "ever given, so that auditors can tell it from one that nobody gave, and one was given meanwhile. Order again."
        )
    return {subject: asked.signed[subject] for subject in sorted(subjects)}


def _log(session: Session, asked: ErasureRequest, now: datetime) -> tuple[JsonObject, Pending]:
    kind = LeafKind.RETENTION if asked.author is Author.RETENTION else LeafKind.ERASURE
    public: JsonObject = {
        "scope": "person" if asked.scope.whole else "compartments",
        "author": str(asked.author),
        "period": f"{now:%Y-%m}",
    }
    personal: JsonObject = {
        **dump_scope(asked.scope),
        "erasure": b64u(asked.erasure_id),
        "order": b64u(asked.order_sha256),
        "reason": asked.reason,
        "identity_check": b64u(asked.identity_check),
        "at": unix_s(now),
    }
    return public, _append(session, kind, public, personal, asked.scope)


def _append(session: Session, kind: LeafKind, public: JsonObject, personal: JsonObject, scope: Scope) -> Pending:
    """Write the leaf, before anything is destroyed: the order of ids is the order of events."""
    return append(session, kind, public, personal, about=None if scope.whole else scope.vault)


def _followed(
    session: Session, scope: Scope, pending: Pending, public: JsonObject, signed: Mapping[SubjectId, bytes]
) -> AbstractContextManager[None]:
    if not scope.whole:
        return nullcontext()
    return tombstones.following(session, pending.id, author_of(public), signed)


def _destroy(session: Session, scope: Scope, found: Survey, held: list[ConsentId], also: Iterable[Forget]) -> None:
    vault = scope.vault
    if scope.whole:
        log.delete_personal_openings(session, records.forget(session, held))
        authorizations.forget(session, vault)
        families.forget(session, held)
        changes.forget(session, vault)
        rows.forget(session, vault)
        requests.forget(session, vault)
        rings.forget(session, vault)
        slots.forget(session, vault)
        accounts.forget(session, vault)
        people.forget(session, vault)
        log.forget_about(session, vault)
    else:
        for consent_id in found.consents:
            handovers.close(session, consent_id)
        rows.forget(session, vault, found.compartments)
        rings.forget(session, vault, found.compartments)
    for forget in also:
        forget(session, scope)
