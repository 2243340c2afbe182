"""Where a registered auditor fetches a stretch of the log with what it names, and the listing that it chooses from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from vault.db import Database
from vault.evidence import bundles, listings
from vault.evidence.auditors import Admitted, admit, admit_listing, log_listing
from vault.http.edge import ClockDep, DatabaseDep, RawBody, documented, returned
from vault.keys.serving import Serving
from vault.proof.bundle import Bundle, bundle_lines
from vault.proof.listing import listing_digest, listing_lines
from vault.seal.dsse import parse_envelope
from vault.tlog import tombstones
from vault.tlog.sequencer import Sequencer

MEDIA_TYPE: Final = "application/x-ndjson"
_CHUNK_BYTES: Final = 1 << 18

evidence_router = APIRouter(prefix="/v1/audit", tags=["auditors"])


@dataclass(frozen=True)
class AuditDesk:
    """What serving auditors takes.

    Args:
        issuer: This server's base URL.
        serving: Opens the records of decisions.
        sequencer: Logs each access.
        checkpoint_wait_s: How long an access waits for its checkpoint.
    """

    issuer: str
    serving: Serving
    sequencer: Sequencer
    checkpoint_wait_s: float


@evidence_router.post(
    "/bundle",
    response_class=StreamingResponse,
    responses=returned(MEDIA_TYPE, "The bundle"),
    openapi_extra=documented(takes="application/octet-stream"),
)
def audit_bundle(*, body: RawBody, request: Request, database: DatabaseDep, clock: ClockDep) -> StreamingResponse:
    """Return a bundle of leaves (JSON lines); the body is the auditor's signed request (binary DSSE).

    The access is in the signed log before the first line is sent.
    """
    desk = _desk(request)
    envelope = parse_envelope(body)
    with database.transaction() as session:
        admitted = admit(session, envelope, origin=desk.issuer, now=clock.now())
    desk.sequencer.wait(admitted.access.id, desk.checkpoint_wait_s)
    return _sent(bundle_lines(_build(desk, database, admitted, clock.now().date())))


@evidence_router.post(
    "/listing",
    response_class=StreamingResponse,
    responses=returned(MEDIA_TYPE, "The listing"),
    openapi_extra=documented(takes="application/octet-stream"),
)
def audit_listing(*, body: RawBody, request: Request, database: DatabaseDep, clock: ClockDep) -> StreamingResponse:
    """Return the listing of the auditor's engagement (JSON lines), with the rows opened that it chooses or chose.

    The body is the auditor's signed request (binary DSSE). The access, and each consent that is opened, is in the
    signed log before the first line is sent.
    """
    desk = _desk(request)
    envelope = parse_envelope(body)
    with database.transaction() as session:
        admitted = admit_listing(session, envelope, origin=desk.issuer, now=clock.now())
    with database.snapshot() as session:
        built = listings.build(session, admitted.engagement, admitted.first, admitted.end)
    with database.transaction() as session:
        openings = listings.choose(session, admitted.engagement, built, admitted.chosen, clock.now())
        access = log_listing(session, admitted, listing_digest(built.listing), now=clock.now())
    for event in (access, *openings):
        desk.sequencer.wait(event.id, desk.checkpoint_wait_s)
    return _sent(listing_lines(listings.shown(built, admitted.engagement, admitted.chosen)))


def _desk(request: Request) -> AuditDesk:
    desk = request.app.state.audit_desk
    assert isinstance(desk, AuditDesk)
    return desk


def _sent(lines: Iterable[bytes]) -> StreamingResponse:
    return StreamingResponse(_chunks(lines), media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})


def _build(desk: AuditDesk, database: Database, admitted: Admitted, today: date) -> Bundle:
    """Return a bundle in which all that is erased has its tombstone: what has none would look concealed."""
    wanted = admitted.request
    while True:
        with database.transaction() as session:
            group = tombstones.publish(session, today)
        if group is not None:
            desk.sequencer.wait(group, desk.checkpoint_wait_s)
        with database.snapshot() as session:
            if not tombstones.are_waiting(session):  # or something was erased meanwhile
                return bundles.build(session, desk.serving, wanted.first, wanted.last, admitted.engagement)


def _chunks(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines: each chunk crosses a thread on its way out."""
    chunk = bytearray()
    for line in lines:
        chunk += line
        if len(chunk) >= _CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)
