"""Routes of an owner's plan, and of what executors do and see: who holds a share needs no account to look."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from vault.consent.routes import CustodyDep
from vault.db import Database
from vault.encoding import b64u, parse_b64u
from vault.erasure import erase as erasing
from vault.erasure.routes import acknowledged
from vault.http.edge import ClockDep, DatabaseDep, documented, read_late, returned
from vault.legacy import legacies, orders, shown, steps
from vault.legacy.errors import UnknownLegacy
from vault.legacy.shown import KeptSteps
from vault.legacy.steps import Legacy
from vault.parties import succession
from vault.parties.people import UnknownVault
from vault.parties.routes import OwnVault
from vault.seal.advance import parse_advance
from vault.seal.dsse import parse_envelope_text
from vault.seal.errors import as_seal_error
from vault.seal.fields import parse_id
from vault.seal.legacy import MOST_SEALED, unverified_claim
from vault.tlog.errors import LogBusy
from vault.tlog.log import PendingId
from vault.tlog.shown import receipt_json

plan_router = APIRouter(prefix="/v1/vaults/{vault}/legacy", tags=["legacy"])
executors_router = APIRouter(prefix="/v1/legacies/{legacy}", tags=["legacy"])


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class PlanBody(_Body):
    """An owner's signed plan."""

    plan: str = Field(max_length=8192)


class StatementBody(_Body):
    """What executors signed together."""

    statement: str = Field(max_length=4096)


class OpeningBody(StatementBody):
    """The same, with the consents that they opened."""

    sealed: list[Annotated[str, Field(max_length=1_400_000)]] = Field(min_length=1, max_length=MOST_SEALED)


@plan_router.put("")
def put_plan(
    body: PlanBody, owner: OwnVault, request: Request, database: DatabaseDep, clock: ClockDep
) -> dict[str, Any]:
    """Put the owner's next plan in force, or withdraw it; acknowledged once it is logged."""
    envelope = parse_envelope_text(body.plan)
    with database.transaction() as session:
        leaf_id = legacies.publish(session, owner.vault_id, envelope, now=clock.now())
    return {"receipt": _logged(request, database, leaf_id)}


@plan_router.get("")
def get_plan(owner: OwnVault, database: DatabaseDep) -> dict[str, Any]:
    """Return the owner's newest plan and how far it has come."""
    with database.snapshot() as session:
        found = steps.find(session, owner.vault_id)
    if found is None:
        raise UnknownLegacy("This vault has no legacy plan.")
    return _legacy_json(found)


@executors_router.get("")
def get_legacy(legacy: str, database: DatabaseDep) -> dict[str, Any]:
    """Return the plan that has this legacy key, how far it has come, and what proves whose it is."""
    with database.snapshot() as session:
        found = steps.get(session, parse_id(legacy))
        identity = [b64u(record) for record in succession.identity(session, found.vault_id)]
    return {**_legacy_json(found), "identity": identity}


@executors_router.post("/declarations", status_code=201)
def declare(
    legacy: str, body: StatementBody, request: Request, database: DatabaseDep, clock: ClockDep
) -> dict[str, Any]:
    """Start the waiting period; acknowledged once it is logged. The same declaration again changes nothing."""
    envelope = parse_envelope_text(body.statement)
    with database.transaction() as session:
        found = legacies.declare(session, parse_id(legacy), envelope, now=clock.now())
    return {**_legacy_json(found), "receipt": _logged(request, database, found.leaf_id)}


@executors_router.post("/freezes", status_code=201)
def freeze(
    legacy: str, body: StatementBody, request: Request, database: DatabaseDep, clock: ClockDep
) -> dict[str, Any]:
    """Freeze a vault that answers after death; acknowledged once it is logged."""
    envelope = parse_envelope_text(body.statement)
    with database.transaction() as session:
        leaf_id = orders.freeze(session, parse_id(legacy), envelope, now=clock.now())
    return {"receipt": _logged(request, database, leaf_id)}


def _known(legacy: str, database: DatabaseDep) -> bytes:
    """Return the id of a plan that there is: its executors know it, and nobody else."""
    legacy_id = parse_id(legacy)
    with database.snapshot() as session:
        steps.get(session, legacy_id)
    return legacy_id


@executors_router.post(
    "/openings",
    status_code=201,
    openapi_extra=documented(takes="application/json", body=OpeningBody.model_json_schema()),
)
def open_sealed(
    *,
    legacy_id: Annotated[bytes, Depends(_known)],
    body: Annotated[OpeningBody, read_late(OpeningBody)],
    custody: CustodyDep,
    request: Request,
    database: DatabaseDep,
    clock: ClockDep,
) -> dict[str, Any]:
    """Give consents that the owner sealed in advance, once the declaration is in force; acknowledged once logged.

    The same again changes nothing.
    """
    envelope = parse_envelope_text(body.statement)
    with as_seal_error():
        sealed = [parse_advance(parse_b64u(item)) for item in body.sealed]
    with database.transaction() as session:
        leaf_id = orders.open_sealed(session, legacy_id, envelope, sealed, custody=custody, now=clock.now())
    return {"receipt": _logged(request, database, leaf_id)}


@executors_router.post("/erasures", status_code=201)
def erase(
    *,
    legacy: str,
    body: StatementBody,
    custody: CustodyDep,
    request: Request,
    database: DatabaseDep,
    clock: ClockDep,
) -> dict[str, Any]:
    """Erase everything that is kept about the person, once the declaration is in force and if the plan allows it.

    Acknowledged once keys are gone and the log shows it, with a bundle that proves that it followed from the owner's
    plan: nobody else has it from then on. The same order again returns the same certificate, which lies under the
    claim's id, and no bundle.
    """
    envelope, state, now = parse_envelope_text(body.statement), request.app.state, clock.now()
    held: KeptSteps | None = None
    _wait_for_steps(request, database, parse_id(legacy))
    with database.transaction() as session:
        try:
            asked = orders.verify_erasing(session, parse_id(legacy), envelope, now=now)
        except (UnknownLegacy, UnknownVault):  # erased, perhaps by this very order, or while this one waited for it
            known = erasing.find(session, unverified_claim(envelope))
            if known is None or known[1] != envelope.digest:
                raise
            erased = known[0]
        else:
            if shown.waiting(session, asked.scope.vault) is not None:
                raise LogBusy
            held = shown.collect(session, asked.scope.vault)
            erased = erasing.erase(session, custody.short_keys, asked, service=state.service, now=now, also=state.also)
    done = acknowledged(request, database, custody, erased)
    if held is None:
        return done
    with database.snapshot() as session:
        return done | {"bundle": shown.prove(session, held, erased.leaf_id, envelope.encoded).decode()}


@executors_router.get("/bundle", responses=returned("application/x-ndjson", "A bundle: one JSON object a line."))
def bundle(legacy: str, database: DatabaseDep) -> Response:
    """Return every logged step of the vault's legacies with what was signed, for anyone to verify offline."""
    with database.snapshot() as session:
        data = shown.bundle(session, steps.get(session, parse_id(legacy)).vault_id)
    return Response(data, media_type="application/x-ndjson")


def _wait_for_steps(request: Request, database: Database, legacy_id: bytes) -> None:
    """Wait until the log has every step of a legacy: what proves them is nowhere else once the vault is erased."""
    state = request.app.state
    with database.snapshot() as session:
        try:
            waiting = shown.waiting(session, steps.get(session, legacy_id).vault_id)
        except UnknownLegacy:
            return
    if waiting is not None:
        state.sequencer.wait(waiting, state.settings.checkpoint_wait_s)


def _logged(request: Request, database: Database, leaf_id: PendingId) -> dict[str, Any]:
    state = request.app.state
    state.sequencer.wait(leaf_id, state.settings.checkpoint_wait_s)
    with database.snapshot() as session:
        return receipt_json(session, leaf_id)


def _legacy_json(found: Legacy) -> dict[str, Any]:
    return {
        "plan": b64u(found.plan),
        "state": found.state,
        "claim": b64u(found.claim),
        "statement": b64u(found.statement),
        "until": found.until_s,
    }
