"""The log over HTTP: C2SP tlog-tiles under `/v1/log`, and consistency proofs for those who want no tiles."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from vault.db import Database
from vault.http.edge import returned
from vault.proof.checkpoint import MAX_SIZE
from vault.proof.errors import MalformedProof
from vault.proof.note import b64
from vault.proof.tiles import parse_tile_path
from vault.tlog import log
from vault.tlog.errors import NotInLog
from vault.tlog.witnesses import newest

_IMMUTABLE = {"Cache-Control": "public, max-age=31536000, immutable"}
_LAST_S: Final = 2**32
_Size = Annotated[int, Query(ge=1, le=MAX_SIZE)]


def log_router(database: Database) -> APIRouter:
    """Return the routes that let anyone follow the log.

    Args:
        database: Where the log lies.

    Source: https://c2sp.org/tlog-tiles.
    """
    router = APIRouter(prefix="/v1/log", tags=["log"])

    @router.get("/checkpoint", response_class=Response, responses=returned("text/plain", "A signed note"))
    def checkpoint() -> Response:
        """Return the newest signed checkpoint."""
        with database.snapshot() as session:
            note = log.checkpoint(session)
        return Response(note, media_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-cache"})

    @router.get("/witnessed", response_class=Response, responses=returned("text/plain", "A signed note"))
    def witnessed_checkpoint() -> Response:
        """Return the newest checkpoint that enough witnesses cosigned."""
        with database.snapshot() as session:
            found = newest(session)
        if found is None:
            raise NotInLog("No witness has cosigned this log yet.")
        return Response(found[1], media_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-cache"})

    @router.get("/receipt/{index}", response_class=Response, responses=returned("text/plain", "A tlog-proof"))
    def receipt(index: Annotated[int, Path(ge=0, le=MAX_SIZE)]) -> Response:
        """Return the `tlog-proof` of one leaf, made anew, under the newest cosigned checkpoint if that covers it."""
        with database.snapshot() as session:
            text = log.receipt_for(session, index, newest(session))
        return Response(text, media_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-cache"})

    @router.get(
        "/tile/{path:path}", response_class=Response, responses=returned("application/octet-stream", "Its hashes")
    )
    def tile(path: str) -> Response:
        """Return a tile or entry bundle; partial ones stay available after the full one exists."""
        try:
            wanted = parse_tile_path(f"tile/{path}")
        except MalformedProof as error:
            raise NotInLog(error.detail) from error
        with database.snapshot() as session:
            if wanted.level is None:
                content = log.entries(session, wanted.index, wanted.width)
            else:
                content = log.tile(session, wanted.level, wanted.index, wanted.width)
        return Response(content, media_type="application/octet-stream", headers=_IMMUTABLE)

    @router.get("/range")
    def range_between(
        since: Annotated[int, Query(ge=0, le=_LAST_S)], until: Annotated[int, Query(ge=0, le=_LAST_S)]
    ) -> dict[str, int]:
        """Return which leaves were recorded between two times (unix seconds): from `first`, before `end`."""
        with database.snapshot() as session:
            first, end = log.range_between(session, since, max(since, until))
        return {"first": first, "end": end}

    @router.get("/proof/consistency")
    def consistency(
        response: Response,
        from_size: Annotated[_Size, Query(alias="from")],
        to_size: Annotated[_Size, Query(alias="to")],
    ) -> dict[str, Any]:
        """Return the hashes that show the log of `from` leaves to be a prefix of the one of `to` leaves."""
        with database.snapshot() as session:
            proof = log.consistency(session, from_size, to_size)
        response.headers.update(_IMMUTABLE)
        return {"from": from_size, "to": to_size, "proof": [b64(item) for item in proof]}

    return router
