"""What a company signs: compact JWS by an Ed25519 key. Reading is `vault.proof.jose`'s. Source: RFC 7515, 9864."""

from __future__ import annotations

from vault.encoding import JsonObject, b64u, dump_json, parse_b64u
from vault.proof.jose import JwsKey, read_jwk
from vault.seal.ids import ID_BYTES
from vault.seal.signing import Signer


def jwk_of(signer: Signer) -> JsonObject:
    """Return the public JWK of an Ed25519 key."""
    return {"crv": "Ed25519", "kty": "OKP", "x": b64u(signer.public_key)}


def key_of(signer: Signer) -> JwsKey:
    """Return an Ed25519 key as others verify it; its `kid` is its thumbprint."""
    return read_jwk(jwk_of(signer))


def company_id_of(first_question_key: JwsKey) -> str:
    """Return the id of the company whose first question key this is."""
    return b64u(parse_b64u(first_question_key.kid)[:ID_BYTES])


def sign_jws(signer: Signer, header: JsonObject, claims: JsonObject) -> str:
    """Return a compact JWS under an Ed25519 key.

    Args:
        signer: The key.
        header: Beside `alg`.
        claims: The payload.
    """
    signing_input = f"{b64u(dump_json({'alg': 'Ed25519', **header}))}.{b64u(dump_json(claims))}"
    return f"{signing_input}.{b64u(signer.sign(signing_input.encode()))}"
