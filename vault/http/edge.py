"""What routes take from the app: its database, its clock, a raw body.

Dependencies that do not wait are `async`: FastAPI would run each of them in a thread of its own, which
costs a request more than all that they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from vault.clock import Clock
from vault.db import Database


async def _database(request: Request) -> Database:
    database = request.app.state.database
    assert isinstance(database, Database)
    return database


async def _clock(request: Request) -> Clock:
    clock: Clock = request.app.state.clock
    return clock


async def _raw_body(request: Request) -> bytes:
    return await request.body()


RawBody = Annotated[bytes, Depends(_raw_body)]


def documented(*, takes: str = "", body: dict[str, Any] | None = None, security: Sequence[str] = ()) -> dict[str, Any]:
    """Return what the OpenAPI document cannot know about a route that reads its request itself.

    Args:
        takes: Media type of the body; empty for none.
        body: Its JSON schema; bytes by default.
        security: Names of the schemes of which one is needed, where no dependency says so.
    """
    found: dict[str, Any] = {}
    if takes:
        schema = body or {"type": "string", "format": "binary"}
        found["requestBody"] = {"required": True, "content": {takes: {"schema": schema}}}
    if security:
        found["security"] = [{name: []} for name in security]
    return found


def returned(media_type: str, description: str) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI document says of an answer that is no JSON object."""
    schema = {"type": "string", "format": "binary"}
    return {200: {"description": description, "content": {media_type: {"schema": schema}}}}


def read_late(model: type[BaseModel]) -> Any:
    """Return a dependency that reads a long JSON body; named after the caller, it reads nothing of who is unknown.

    What FastAPI parses by itself it parses before any dependency.
    """

    def read(body: RawBody) -> BaseModel:
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            raise RequestValidationError(
                [{**item, "loc": ("body", *item["loc"])} for item in error.errors(include_input=False)]
            ) from None

    return Depends(read)


DatabaseDep = Annotated[Database, Depends(_database)]
ClockDep = Annotated[Clock, Depends(_clock)]
