"""Where anyone fetches the rules that a decision names."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from vault.encoding import parse_b64u
from vault.http.edge import DatabaseDep
from vault.policy import sets

policy_router = APIRouter(prefix="/v1/policies", tags=["policies"])


@policy_router.get(
    "/{sha256}",
    response_class=Response,
    responses={200: {"description": "The set", "content": {"application/json": {"schema": {"type": "object"}}}}},
)
def policy_set(sha256: str, database: DatabaseDep) -> Response:
    """Return a policy set: one JSON object of schema and Cedar texts whose SHA-256 is the address."""
    with database.snapshot() as session:
        source = sets.get(session, parse_b64u(sha256, size=32))
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(source, media_type="application/json", headers=headers)
