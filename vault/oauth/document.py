"""What the OpenAPI document says of the endpoints whose forms Authlib reads."""

from __future__ import annotations

from typing import Any, Final

from vault.http.edge import documented
from vault.http.problems import RESPONSES
from vault.oauth.client import ASSERTION_TYPE

_ERROR: Final[dict[str, Any]] = {
    "title": "OAuthError",
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
}
ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {
        "description": "Refused; RFC 6749 section 5.2, or a problem document where the server refuses before OAuth",
        "content": {"application/json": {"schema": _ERROR}, **RESPONSES["4XX"]["content"]},
    }
}
_CLIENT: Final = {
    "client_assertion_type": f"Always `{ASSERTION_TYPE}`.",
    "client_assertion": "The company's JWT, signed with its authentication key (RFC 7523): `iss` and `sub` its id, "
    "`aud` the issuer, `jti` used once.",
}
_TEXT: Final = {"type": "string"}
_WHOLE: Final = {"type": "integer", "minimum": 0}


def form(fields: dict[str, str], *required: str) -> dict[str, Any]:
    """Return what an endpoint takes from a company that authenticates itself with `private_key_jwt`.

    Args:
        fields: What each one means, by name.
        required: Those that no request lacks.
    """
    properties = {name: {**_TEXT, "description": told} for name, told in (_CLIENT | fields).items()}
    schema = {
        "type": "object",
        "required": [*_CLIENT, *required],
        "properties": properties,
        "additionalProperties": _TEXT,
    }
    return documented(takes="application/x-www-form-urlencoded", body=schema)


def answered(status: int, told: str, **fields: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Return what an endpoint answers.

    Args:
        status: Where nothing is refused.
        told: What the answer is.
        fields: The schema of each member that no answer lacks, by name.
    """
    schema = {"type": "object", "required": list(fields), "properties": fields}
    return {status: {"description": told, "content": {"application/json": {"schema": schema}}}, **ERRORS}


PUSHED: Final = answered(201, "The request is kept", request_uri=_TEXT, expires_in=_WHOLE)
TOKENS: Final = answered(
    200,
    "Tokens; with a code or a refresh token also `refresh_token`, `grant_id` and the `authorization_details` in force",
    access_token=_TEXT,
    token_type={"const": "DPoP"},
    expires_in=_WHOLE,
    scope=_TEXT,
)
WORTH: Final = answered(
    200, "What the token is worth; no more than `active` if it is worth nothing", active={"type": "boolean"}
)
"""What introspection answers."""

PUSH_FORM: Final = form(
    {
        "response_type": "`code`.",
        "redirect_uri": "One of the company's own.",
        "code_challenge": "Of PKCE, with S256.",
        "code_challenge_method": "`S256`.",
        "authorization_details": "One object of type `twin_query` in a JSON array (RFC 9396): what is asked for.",
        "state": "Comes back with the code.",
        "grant_id": "The consent that is to be renewed, with `grant_management_action`.",
    }
)
TOKEN_FORM: Final = form(
    {
        "grant_type": "`client_credentials`, `authorization_code` or `refresh_token`.",
        "code": "From the redirect; used once, with `redirect_uri` and `code_verifier`.",
        "code_verifier": "Of PKCE.",
        "redirect_uri": "The one that was pushed.",
        "refresh_token": "The newest one of its family.",
        "scope": "`twin:ask`.",
    },
    "grant_type",
)
HELD_FORM: Final = form(
    {"token": "An access or refresh token of the company's own.", "token_type_hint": "What it is."}, "token"
)
