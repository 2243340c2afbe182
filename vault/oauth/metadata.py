"""What this server says about itself: only what exists.

Source: RFC 8414, RFC 9728, RFC 9449 section 5.1.
"""

from __future__ import annotations

import json
from typing import Any

from vault.oauth.server import TOKEN_PATH
from vault.oauth.tokens import SCOPE, TokenMint
from vault.proof.jose import SIGNATURE_ALGORITHMS

JWKS_PATH = "/v1/jwks"


def server_metadata(issuer: str) -> dict[str, Any]:
    """Return the authorization server's metadata.

    Args:
        issuer: Base URL without a trailing slash.
    """
    return {
        "issuer": issuer,
        "token_endpoint": issuer + TOKEN_PATH,
        "jwks_uri": issuer + JWKS_PATH,
        "scopes_supported": [SCOPE],
        "response_types_supported": [],  # there is no authorization endpoint
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": list(SIGNATURE_ALGORITHMS),
        "dpop_signing_alg_values_supported": list(SIGNATURE_ALGORITHMS),
    }


def resource_metadata(issuer: str) -> dict[str, Any]:
    """Return the protected resource's metadata; the resource and its authorization server are one."""
    return {
        "resource": issuer,
        "authorization_servers": [issuer],
        "scopes_supported": [SCOPE],
        "bearer_methods_supported": [],
        "dpop_bound_access_tokens_required": True,
        "dpop_signing_alg_values_supported": list(SIGNATURE_ALGORITHMS),
    }


def jwks(tokens: TokenMint) -> dict[str, Any]:
    """Return the public keys that verify this server's access tokens."""
    keys = tokens.public_keys
    return {"keys": [{**json.loads(key.jwk), "kid": key.kid, "alg": key.algorithms[0], "use": "sig"} for key in keys]}
