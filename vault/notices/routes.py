"""Where an owner reads what happened to the vault."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from vault.consent.routes import OwnVault
from vault.encoding import b64u
from vault.http.edge import ClockDep, DatabaseDep
from vault.notices.ending import ending
from vault.notices.feed import Notice, notices
from vault.proof.checkpoint import MAX_SIZE

notices_router = APIRouter(prefix="/v1/vaults/{vault}/history", tags=["notices"])


@notices_router.get("")
def history(
    owner: OwnVault,
    database: DatabaseDep,
    after: Annotated[int, Query(ge=-1, le=MAX_SIZE)] = -1,
    limit: Annotated[int, Query(ge=1, le=256)] = 256,
) -> dict[str, Any]:
    """Return the vault's events after a leaf index, oldest first; `next` is the cursor of the next page.

    `public` and `personal` are what the entry commits to, in the one spelling of signed JSON (sorted
    keys, no spaces, UTF-8): with the salts a client checks each against `entry` and the log's tiles.
    """
    with database.snapshot() as session:
        found = notices(session, owner.vault_id, after=after, limit=limit)
    return {"events": [_notice_json(notice) for notice in found], "next": found[-1].leaf.index if found else after}


@notices_router.get("/ending")
def history_ending(owner: OwnVault, database: DatabaseDep, clock: ClockDep) -> dict[str, Any]:
    """Return the consents that end within a week unless they are renewed; nothing of it is logged yet."""
    with database.snapshot() as session:
        found = ending(session, owner.vault_id, now=clock.now())
    return {
        "ending": [
            {
                "consent": b64u(item.consent_id),
                "version": item.version,
                "ends_at": item.ends_at_s,
                "sentence": item.sentence,
            }
            for item in found
        ]
    }


def _notice_json(notice: Notice) -> dict[str, Any]:
    leaf = notice.leaf
    return {
        "index": leaf.index,
        "kind": leaf.kind,
        "at": notice.personal.get("at", notice.public.get("at")),
        "sentence": notice.sentence,
        "rules": [{"rule": rule, "sentence": sentence} for rule, sentence in notice.rules.items()],
        "public": notice.public,
        "personal": notice.personal,
        "entry": b64u(leaf.entry),
        "public_salt": b64u(leaf.public.salt),
        "personal_salt": b64u(leaf.personal.salt) if leaf.personal else "",
    }
