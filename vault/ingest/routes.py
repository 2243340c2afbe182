"""Routes of sealed batches: a device uploads, the owner reads back."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from vault.encoding import b64u
from vault.http.edge import ClockDep, DatabaseDep, RawBody, documented, returned
from vault.ingest.accept import accept
from vault.ingest.vaults import own
from vault.parties.routes import DeviceDep, OwnerDep
from vault.seal.fields import parse_id
from vault.seal.ids import CompartmentId
from vault.seal.upload import parse_upload, sign_acknowledgement
from vault.store import batches

ingest_router = APIRouter(prefix="/v1", tags=["batches"])


@ingest_router.post(
    "/vaults/{vault}/batches",
    response_class=Response,
    responses=returned("application/octet-stream", "The signed acknowledgement"),
    openapi_extra=documented(takes="application/octet-stream"),
)
def upload(
    *, vault: str, caller: DeviceDep, body: RawBody, request: Request, database: DatabaseDep, clock: ClockDep
) -> Response:
    """Accept sealed batches; the answer is the service's signed acknowledgement, sent after the commit."""
    own(vault, caller)
    parsed = parse_upload(body)
    with database.transaction() as session:
        acknowledgement = accept(session, caller, parsed, now=clock.now())
    signed = sign_acknowledgement(acknowledgement, request.app.state.service)
    return Response(signed.encoded, media_type="application/octet-stream")


@ingest_router.get("/vaults/{vault}/batches")
def read_back(
    vault: str,
    compartment: str,
    caller: OwnerDep,
    database: DatabaseDep,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
) -> dict[str, Any]:
    """Return one compartment's batches in order; `next` is the cursor while there may be more."""
    vault_id = own(vault, caller)
    with database.snapshot() as session:
        found = batches.read(session, vault_id, CompartmentId(parse_id(compartment)), after=after)
    return {"batches": [b64u(batch.encoded) for batch in found], "next": found[-1].id if found else None}


@ingest_router.get("/vaults/{vault}/heads")
def head_lists(vault: str, caller: OwnerDep, database: DatabaseDep) -> dict[str, Any]:
    """Return the newest head list of each device, as signed: batches the server dropped show against it."""
    vault_id = own(vault, caller)
    with database.snapshot() as session:
        found = batches.head_lists(session, vault_id)
    return {"heads": {b64u(device): b64u(envelope) for device, envelope in found.items()}}
