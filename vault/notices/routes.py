"""Where an owner reads what happened to the vault."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import anyio
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from vault.encoding import b64u
from vault.http.edge import ClockDep, DatabaseDep
from vault.notices.ending import ending
from vault.notices.feed import Notice, notices
from vault.notices.stream import PAGE, Streams
from vault.parties.routes import ReadVault, caller_of
from vault.parties.sessions import NotSignedIn
from vault.proof.checkpoint import MAX_SIZE
from vault.schema.language import Language

notices_router = APIRouter(prefix="/v1/vaults/{vault}/history", tags=["notices"])

_RETRY_MS: Final = 2_000
_Index = Annotated[int, Query(ge=-1, le=MAX_SIZE)]


async def _streams(request: Request) -> Streams:
    streams = request.app.state.streams
    assert isinstance(streams, Streams)
    return streams


StreamsDep = Annotated[Streams, Depends(_streams)]


async def _place(reader: ReadVault, streams: StreamsDep) -> AsyncIterator[None]:
    """Hold a place until the stream is over; where all are taken the request is refused before it begins."""
    async with streams.place(reader.vault_id):
        try:
            yield
        except* anyio.BrokenResourceError:  # who read it hung up while FastAPI had an event in hand
            pass


@notices_router.get("")
def history(
    reader: ReadVault,
    database: DatabaseDep,
    after: _Index = -1,
    language: Language = Language.EN,
    limit: Annotated[int, Query(ge=1, le=256)] = 256,
) -> dict[str, Any]:
    """Return the vault's events after a leaf index, oldest first; `next` is the cursor of the next page.

    `sentence` and the sentences of `rules` are in the language asked for, `en` or `fr`.

    `public` and `personal` are what the entry commits to, in the one spelling of signed JSON (sorted
    keys, no spaces, UTF-8): with the salts a client checks each against `entry` and the log's tiles.
    """
    with database.snapshot() as session:
        found = notices(session, reader.vault_id, after=after, limit=limit, language=language)
    return {"events": [_notice_json(notice) for notice in found], "next": found[-1].leaf.index if found else after}


@notices_router.get("/ending")
def history_ending(reader: ReadVault, database: DatabaseDep, clock: ClockDep) -> dict[str, Any]:
    """Return the consents that end within a week unless they are renewed; nothing of it is logged yet."""
    with database.snapshot() as session:
        found = ending(session, reader.vault_id, now=clock.now())
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


@notices_router.get("/stream", response_class=EventSourceResponse)
async def stream(
    *,
    reader: ReadVault,
    request: Request,
    database: DatabaseDep,
    clock: ClockDep,
    streams: StreamsDep,
    _held: Annotated[None, Depends(_place)],
    after: _Index = -1,
    last_event_id: Annotated[int | None, Header(ge=-1, le=MAX_SIZE)] = None,
    language: Language = Language.EN,
) -> AsyncIterator[ServerSentEvent]:
    """Send the vault's events as they are logged, as server-sent events whose id is the leaf index.

    `Last-Event-ID` outweighs `after`. A comment keeps the line open while nothing happens. The stream ends after five
    minutes, or with the session; open it again with the id of the last event.
    """
    cursor = after if last_event_id is None else last_event_id

    def read(seen: int) -> list[Notice]:
        if caller_of(request, database, clock) != reader:
            raise NotSignedIn("The session has ended; sign in again.")
        with database.snapshot() as session:
            return notices(session, reader.vault_id, after=seen, limit=PAGE, language=language)

    yield ServerSentEvent(comment="open", retry=_RETRY_MS)
    try:
        async for notice in streams.follow(reader.vault_id, cursor, read):
            yield ServerSentEvent(id=str(notice.leaf.index), raw_data=json.dumps(_notice_json(notice)))
    except NotSignedIn:
        yield ServerSentEvent(comment="The session has ended; sign in again.")


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
