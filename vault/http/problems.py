"""Every refusal as one RFC 9457 problem document with a stable type."""

from __future__ import annotations

import json
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from vault.errors import VaultError

_log = structlog.get_logger()

PROBLEM_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "format": "uri-reference"},
    },
}


class InvalidRequest(VaultError):
    """A request whose path, query or JSON body does not fit the OpenAPI document."""

    slug = "invalid-request"
    title = "Invalid request"
    status = 422


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
        "detail": error.detail,
    }
    if instance is not None:
        body["instance"] = instance
    headers = {"Cache-Control": "no-store", **error.headers}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    return Response(json.dumps(body), error.status, headers, media_type="application/problem+json")


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
    # The offending value may be a person's data or a credential, so only its place is named.
    places = "; ".join(".".join(str(part) for part in item["loc"]) + ": " + item["msg"] for item in error.errors()[:5])
    return problem_response(
        InvalidRequest(f"The request does not fit its schema: {places}."), instance=_instance(request)
    )


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, VaultError):  # FastAPI wraps what is raised while it reads a JSON body
        return await _vault_error(request, error.__cause__)
    slug = {404: "no-such-page", 405: "method-not-allowed"}.get(error.status_code, "http-error")
    body = {
        "type": f"/problems/{slug}",
        "title": slug.replace("-", " ").capitalize(),
        "status": error.status_code,
        "detail": "See the OpenAPI document at /openapi.json for the paths and methods this server offers.",
        "instance": _instance(request),
    }
    return Response(json.dumps(body), error.status_code, error.headers, media_type="application/problem+json")


def _instance(request: Request) -> str:
    return f"/requests/{request.scope.get('request_id', 'unknown')}"
