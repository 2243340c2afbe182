"""What this server says about itself: only what exists.

Source: RFC 8414, RFC 9126 section 5, RFC 9207 section 3, RFC 9396 section 10, RFC 9449 section 5.1, RFC 9728; Grant
Management for OAuth 2.0 section 5.
"""

from __future__ import annotations

import json
from typing import Any, Final

from vault.oauth.client import AUTH_METHOD, GRANT_TYPES
from vault.oauth.server import AUTHORIZE_PATH, GRANT_ACTIONS, Endpoint
from vault.oauth.tokens import SCOPE, TokenMint
from vault.proof.jose import SIGNATURE_ALGORITHMS
from vault.schema.details import DETAILS_TYPE

JWKS_PATH: Final = "/v1/jwks"
GRANTS_PATH: Final = "/v1/grants"
REGISTER_PATH: Final = "/v1/register"


def server_metadata(issuer: str) -> dict[str, Any]:
    """Return the authorization server's metadata.

    Args:
        issuer: Base URL without a trailing slash.
    """
    authenticated = {
        f"{endpoint}_endpoint_{kind}": value
        for endpoint in ("token", "introspection", "revocation")
        for kind, value in (
            ("auth_methods_supported", [AUTH_METHOD]),
            ("auth_signing_alg_values_supported", list(SIGNATURE_ALGORITHMS)),
        )
    }
    return {
        "issuer": issuer,
        "authorization_endpoint": issuer + AUTHORIZE_PATH,
        "pushed_authorization_request_endpoint": issuer + Endpoint.PUSH,
        "require_pushed_authorization_requests": True,
        "token_endpoint": issuer + Endpoint.TOKEN,
        "introspection_endpoint": issuer + Endpoint.INTROSPECT,
        "revocation_endpoint": issuer + Endpoint.REVOKE,
        "registration_endpoint": issuer + REGISTER_PATH,
        "grant_management_endpoint": issuer + GRANTS_PATH,
        "grant_management_actions_supported": ["query", "revoke", *GRANT_ACTIONS],
        "grant_management_action_required": False,
        "jwks_uri": issuer + JWKS_PATH,
        "scopes_supported": [SCOPE],
        "authorization_details_types_supported": [DETAILS_TYPE],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": list(GRANT_TYPES),
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "dpop_signing_alg_values_supported": list(SIGNATURE_ALGORITHMS),
        **authenticated,
    }


def resource_metadata(issuer: str) -> dict[str, Any]:
    """Return the protected resource's metadata; the resource and its authorization server are one."""
    return {
        "resource": issuer,
        "authorization_servers": [issuer],
        "scopes_supported": [SCOPE],
        "authorization_details_types_supported": [DETAILS_TYPE],
        "bearer_methods_supported": [],
        "dpop_bound_access_tokens_required": True,
        "dpop_signing_alg_values_supported": list(SIGNATURE_ALGORITHMS),
    }


def jwks(tokens: TokenMint) -> dict[str, Any]:
    """Return the public keys that verify this server's access tokens, the one in force first."""
    keys = tokens.public_keys
    return {"keys": [{**json.loads(key.jwk), "kid": key.kid, "alg": key.algorithms[0], "use": "sig"} for key in keys]}
