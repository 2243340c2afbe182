"""Every refusal as one RFC 9457 problem document with a stable type."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from vault.errors import VaultError
from vault.http.next_steps import NEXT_STEPS

_log = structlog.get_logger()
_FIELD = re.compile(r"[a-z_]{1,24}")  # what this server's own fields and parameters are called

MEDIA_TYPE: Final = "application/problem+json"
_SCHEMA: Final[dict[str, Any]] = {
    "title": "Problem",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "instance": {"type": "string", "format": "uri-reference"},
    },
}
RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"description": "Refused; `type` says why", "content": {MEDIA_TYPE: {"schema": _SCHEMA}}},
    "5XX": {"description": "Not now; try again later", "content": {MEDIA_TYPE: {"schema": _SCHEMA}}},
}
"""What the OpenAPI document says of every route: no refusal has another form."""


class InvalidRequest(VaultError):
    """A request whose path, query or JSON body does not fit the OpenAPI document."""

    slug = "invalid-request"
    title = "Invalid request"
    status = 422


class NoSuchPage(VaultError):
    """A path that this server does not offer; /openapi.json lists those that it does."""

    slug = "no-such-page"
    title = "No such page"
    status = 404


class MethodNotAllowed(VaultError):
    """A method that a path does not take; /openapi.json lists those that it does."""

    slug = "method-not-allowed"
    title = "Method not allowed"
    status = 405


class UnreadableBody(VaultError):
    """A JSON body that is not JSON in UTF-8, or is nested too deeply to be read."""

    slug = "unreadable-body"
    title = "Unreadable body"
    status = 400


def problem_response(error: VaultError, *, instance: str | None = None) -> Response:
    """Render a refusal.

    Args:
        error: What was refused; its detail is safe to show.
        instance: A reference to this one occurrence, such as the request id.

    Source: RFC 9457 section 3.
    """
    body: dict[str, Any] = {
        "type": f"/problems/{error.slug}",
        "title": error.title,
        "status": error.status,
        "detail": " ".join(filter(None, (error.detail, NEXT_STEPS.get(error.slug)))),
    }
    if instance is not None:
        body["instance"] = instance
    headers = {"Cache-Control": "no-store", **error.headers}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    return Response(json.dumps(body), error.status, headers, media_type=MEDIA_TYPE)


def install_problems(app: FastAPI) -> None:
    """Make every refusal of the app answer as a problem document; `Edge` does so for defects."""
    app.add_exception_handler(VaultError, _vault_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)


async def _vault_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, VaultError)
    if error.status >= 500:
        _log.error("request.failed", slug=error.slug)
    return problem_response(error, instance=_instance(request))


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    places = "; ".join(f"{_place(item)}: {item['msg']}" for item in error.errors()[:5])
    return problem_response(
        InvalidRequest(f"The request does not fit its schema: {places}."), instance=_instance(request)
    )


def _place(item: dict[str, Any]) -> str:
    """Return where a value does not fit: the value itself, or a key that only the sender knows, may be a secret."""
    parts = item["loc"][:-1] if item["type"] == "extra_forbidden" else item["loc"]
    return ".".join(str(part) if isinstance(part, int) or _FIELD.fullmatch(part) else "?" for part in parts)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, VaultError):  # FastAPI wraps what is raised while it reads a JSON body
        return await _vault_error(request, error.__cause__)
    refusal: VaultError
    match error.status_code:
        case 404:
            refusal = NoSuchPage("This server offers no such path; see the OpenAPI document at /openapi.json.")
        case 405:
            refusal = MethodNotAllowed("The path does not take this method; see the OpenAPI document at /openapi.json.")
            refusal.headers = error.headers or {}
        case _:  # FastAPI's only other one
            refusal = UnreadableBody("The body could not be read; send JSON in UTF-8 as the OpenAPI document says.")
    return problem_response(refusal, instance=_instance(request))


def _instance(request: Request) -> str:
    return f"/requests/{request.scope.get('request_id', 'unknown')}"
