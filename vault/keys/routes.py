"""Where clients fetch the service's public keys, each under the operator's signature."""

from __future__ import annotations

from fastapi import APIRouter

from vault.encoding import b64u
from vault.http.edge import DatabaseDep
from vault.keys import statements

keys_router = APIRouter(prefix="/v1/keys", tags=["keys"])


@keys_router.get("")
def key_statements(database: DatabaseDep) -> dict[str, list[str]]:
    """Return every key statement; a client checks each against the operator key that it pinned."""
    with database.snapshot() as session:
        return {"statements": [b64u(envelope) for envelope in statements.envelopes(session)]}
