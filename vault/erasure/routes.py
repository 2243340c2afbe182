"""Routes to look at an erasure beforehand, to order it, and to fetch its certificate."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from vault.clock import DAY_S, unix_s
from vault.consent.handovers import Custody
from vault.consent.routes import CustodyDep
from vault.db import Database
from vault.encoding import b64u
from vault.erasure import erase as erasing
from vault.erasure.erase import Erased, ErasureRequest
from vault.erasure.retention import oldest_kept
from vault.erasure.survey import Survey, survey
from vault.errors import VaultError
from vault.http.edge import ClockDep, DatabaseDep, documented, read_late
from vault.parties import people
from vault.parties.routes import OwnVault
from vault.seal.dsse import parse_envelope_text
from vault.seal.erasure import MAX_COMPARTMENTS, Author, Scope, verify_order
from vault.seal.fields import parse_id
from vault.seal.ids import CompartmentId, SubjectId
from vault.seal.subject_erasure import verify_subject_erasure
from vault.store import shortkeys
from vault.tlog import log

erasure_router = APIRouter(prefix="/v1/vaults/{vault}/erasures", tags=["erasure"])
certificates_router = APIRouter(prefix="/v1/erasures", tags=["erasure"])
retention_router = APIRouter(prefix="/v1/retention", tags=["erasure"])

_FRESH_S: Final = DAY_S
_CLOCK_SKEW_S: Final = 300


class StaleOrder(VaultError):
    """An order that was signed too long ago, or in the future."""

    slug = "stale-order"
    title = "Order is not fresh"
    status = 422


class UnknownErasure(VaultError):
    """No erasure of that id was carried out here."""

    slug = "unknown-erasure"
    title = "Unknown erasure"
    status = 404


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class ScopeBody(_Body):
    """The compartments to erase, by id; none at all for the whole person."""

    compartments: list[str] | None = Field(default=None, max_length=MAX_COMPARTMENTS)


class OrderBody(_Body):
    """An owner's signed order."""

    order: str = Field(max_length=1_400_000)
    subjects: list[Annotated[str, Field(max_length=1_000)]] = Field(
        default=[],
        max_length=10_000,
        description="For the whole person: the order under each pairwise key that ever signed a consent.",
    )


_SCOPE = documented(takes="application/json", body=ScopeBody.model_json_schema())
_ORDER = documented(takes="application/json", body=OrderBody.model_json_schema())


@erasure_router.post("/preview", openapi_extra=_SCOPE)
def preview(
    *, owner: OwnVault, body: Annotated[ScopeBody, read_late(ScopeBody)], custody: CustodyDep, database: DatabaseDep
) -> dict[str, Any]:
    """Say what an erasure would destroy, whose consents lose keys, and which models may have learned from it."""
    named = None if body.compartments is None else tuple(CompartmentId(parse_id(name)) for name in body.compartments)
    with database.snapshot() as session:
        found = survey(session, custody.short_keys, Scope(owner.vault_id, named))
    return _survey_json(found)


@erasure_router.post("", status_code=201, openapi_extra=_ORDER)
def order(
    *, owner: OwnVault, body: Annotated[OrderBody, read_late(OrderBody)], custody: CustodyDep, request: Request,
    database: DatabaseDep, clock: ClockDep,
) -> dict[str, Any]:  # fmt: skip
    """Erase what the owner's signed order names; acknowledged once keys are gone and the log shows it.

    The same order again returns the same certificate.
    """
    envelope = parse_envelope_text(body.order)
    subjects = _subjects(body, request.app.state.settings.log_origin)  # before anybody waits for this one to write
    now = clock.now()
    with database.transaction() as session:
        owner_key = people.get(session, owner.vault_id).owner_key
        signed = verify_order(envelope, owner_key, owner.vault_id)
        if not -_CLOCK_SKEW_S <= unix_s(now) - signed.issued_at <= _FRESH_S:
            raise StaleOrder("An order to erase is sent within a day of being signed; check the clock and sign again.")
        asked = ErasureRequest(
            signed.erasure_id,
            signed.scope,
            Author.OWNER,
            signed.reason,
            envelope.digest,
            signed=_of_day(subjects, signed.issued_at // DAY_S),
        )
        state = request.app.state
        erased = erasing.erase(session, custody.short_keys, asked, service=state.service, now=now, also=state.also)
    return acknowledged(request, database, custody, erased)


@certificates_router.get("/{erasure}")
def certificate(erasure: str, custody: CustodyDep, request: Request, database: DatabaseDep) -> dict[str, Any]:
    """Return the certificate of an erasure to whoever knows its id: a person who was erased has no session."""
    with database.snapshot() as session:
        found = erasing.find(session, parse_id(erasure))
    if found is None:
        raise UnknownErasure("No erasure of this id was carried out here.")
    return acknowledged(request, database, custody, found[0])


@retention_router.get("")
def published(request: Request, clock: ClockDep) -> dict[str, Any]:
    """Say how many months before the current one are kept here, and which is the oldest; null where all are."""
    months = request.app.state.settings.retention_months
    return {"months": months, "oldest": None if months is None else oldest_kept(months, clock.now())}


def acknowledged(request: Request, database: Database, custody: Custody, erased: Erased) -> dict[str, Any]:
    """Drop opened keys, delete the short keys, wait for the log and its journal: only now is it acknowledged."""
    for consent_id in erased.consents:
        custody.forget(consent_id)
    shortkeys.delete_scheduled(database, custody.short_keys)
    state = request.app.state
    index = state.sequencer.wait(erased.leaf_id, state.settings.checkpoint_wait_s)
    state.sequencer.forget_erased()
    with database.snapshot() as session:
        proof = log.receipt_for(session, index)
    return {"certificate": b64u(erased.certificate), "proof": proof}


def _subjects(body: OrderBody, log_origin: str) -> dict[SubjectId, tuple[int, bytes]]:
    """Return the order as each subject signed it, with the day that it says."""
    found = {}
    for text in body.subjects:
        envelope = parse_envelope_text(text)
        said = verify_subject_erasure(envelope, log_origin)
        found[said.subject] = said.day, envelope.encoded
    return found


def _of_day(subjects: dict[SubjectId, tuple[int, bytes]], day: int) -> dict[SubjectId, bytes]:
    if any(said != day for said, _ in subjects.values()):
        raise StaleOrder("What is signed as each subject names the day of the order itself; sign both again.")
    return {subject: encoded for subject, (_, encoded) in subjects.items()}


def _survey_json(found: Survey) -> dict[str, Any]:
    return {
        "destroys": {str(name): count for name, count in found.counts.items()},
        "consents": [b64u(consent_id) for consent_id in found.consents],
        "models": [
            {"manifest": b64u(one.manifest), "epsilon_ppm": one.epsilon_ppm, "delta_inverse": one.delta_inverse}
            for one in found.models
        ],
    }
