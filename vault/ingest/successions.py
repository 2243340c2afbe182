"""The route of an owner's succession: no session, for a thief may have one; the next key's signature is the proof."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from vault.http.edge import ClockDep, DatabaseDep
from vault.ingest.vaults import MAX_TEXT, Body, NamedSlotBody, ShortKeysDep, receipt, slot_of
from vault.parties import people, succession
from vault.parties.succession import Replacement
from vault.seal.dsse import parse_envelope_text
from vault.seal.fields import parse_id
from vault.seal.ids import VaultId
from vault.store import rings, slots

successions_router = APIRouter(prefix="/v1", tags=["vaults"])


class SuccessionBody(Body):
    """Everything that changes with the owner key."""

    succession: str = Field(max_length=4096, description="Signed by the next owner key.")
    account: str = Field(max_length=4096, description="The next account record, with and signed by the new key.")
    slots: list[NamedSlotBody] = Field(
        min_length=1, max_length=slots.MAX_SLOTS, description="All that open the vault from now on; others are deleted."
    )
    head: str = Field(
        max_length=MAX_TEXT, description="The next ring head, signed by the new key, over the same pages."
    )


@successions_router.post("/vaults/{vault}/successions")
def succeed(
    *,
    vault: str,
    body: SuccessionBody,
    request: Request,
    database: DatabaseDep,
    shortkeys: ShortKeysDep,
    clock: ClockDep,
) -> dict[str, Any]:
    """Replace the owner key by the one committed to, with account record, slots and ring head; ends all sessions.

    Needs no session. Acknowledged once it is logged; the same succession again changes nothing and is acknowledged again.
    """
    vault_id, signed = VaultId(parse_id(vault)), parse_envelope_text(body.succession)
    with database.snapshot() as session:
        known = succession.find(session, vault_id, signed)
        owner_key = b"" if known is not None else succession.verify_next(session, vault_id, signed).owner_key
    if known is None:
        kept = tuple(slot_of(slot.slot, slot.locator_hash) for slot in body.slots)
        new = Replacement(signed, parse_envelope_text(body.account), kept)
        head = parse_envelope_text(body.head)
        ring = rings.verify_publish(vault_id, owner_key, head, [], locked_seeds={}, short_key_database=shortkeys)
        now = clock.now()
        with database.transaction() as session:
            people.lock(session, vault_id)
            known = succession.find(session, vault_id, signed)  # the same request may have come twice at once
            if known is None:
                known = succession.succeed(session, vault_id, new, now=now).id
                rings.publish(session, vault_id, ring, now=now, at_once=True)
    return {"vault": vault, "receipt": receipt(request, database, known)}
