"""What an owner is told: every logged event of the vault, read from the log and from nowhere else."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from vault.consent.routes import OwnVault
from vault.encoding import JsonValue, parse_json
from vault.http.edge import DatabaseDep
from vault.proof.checkpoint import MAX_SIZE
from vault.proof.decision import load_shipped_policy_set
from vault.tlog import log

history_router = APIRouter(prefix="/v1/vaults/{vault}/history", tags=["consents"])


@history_router.get("")
def history(
    owner: OwnVault, database: DatabaseDep, after: Annotated[int, Query(ge=-1, le=MAX_SIZE)] = -1
) -> dict[str, Any]:
    """Return the vault's logged events after a leaf index, oldest first, up to 256 at a time.

    A denial names the rules that decided and their sentences; the company was told neither.
    """
    with database.snapshot() as session:
        leaves = log.find(session, about=owner.vault_id, after=after)
    return {"events": [_event_json(leaf) for leaf in leaves]}


def _event_json(leaf: log.Leaf) -> dict[str, Any]:
    personal = {} if leaf.personal is None else parse_json(leaf.personal.body)
    rules = personal.get("rules", [])
    return {
        "index": leaf.index,
        "kind": leaf.kind,
        "public": parse_json(leaf.public.body),
        "personal": personal,
        "sentences": [_sentence(rule) for rule in rules] if isinstance(rules, list) else [],
    }


def _sentence(rule: JsonValue) -> str:
    known = load_shipped_policy_set().rules.get(str(rule))
    return known.sentence if known else str(rule)
