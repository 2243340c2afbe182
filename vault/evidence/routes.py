"""Where a registered auditor fetches a stretch of the log with what it names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from vault.db import Database
from vault.evidence import bundles
from vault.evidence.auditors import admit
from vault.http.edge import ClockDep, DatabaseDep, RawBody, documented, returned
from vault.keys.serving import Serving
from vault.proof.bundle import Bundle, bundle_lines
from vault.seal.audit import AuditRequest
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
    desk = request.app.state.audit_desk
    assert isinstance(desk, AuditDesk)
    envelope = parse_envelope(body)
    with database.transaction() as session:
        wanted, access = admit(session, envelope, origin=desk.issuer, now=clock.now())
    desk.sequencer.wait(access.id, desk.checkpoint_wait_s)
    bundle = _build(desk, database, wanted, clock.now().date())
    return StreamingResponse(
        _chunks(bundle_lines(bundle)), media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"}
    )


def _build(desk: AuditDesk, database: Database, wanted: AuditRequest, today: date) -> Bundle:
    """Return a bundle in which all that is erased has its tombstone: what has none would look concealed."""
    while True:
        with database.transaction() as session:
            group = tombstones.publish(session, today)
        if group is not None:
            desk.sequencer.wait(group, desk.checkpoint_wait_s)
        with database.snapshot() as session:
            if not tombstones.are_waiting(session):  # or something was erased meanwhile
                return bundles.build(session, desk.serving, wanted.first, wanted.last)


def _chunks(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines: each chunk crosses a thread on its way out."""
    chunk = bytearray()
    for line in lines:
        chunk += line
        if len(chunk) >= _CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)
