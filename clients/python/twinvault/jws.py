"""Signed JSON of companies: compact JWS by Ed25519 keys of our own, and reading that of any registered key.

Source: RFC 7515, 7638, 8037.
"""

from __future__ import annotations

from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from twinvault.api import ClientError
from vault.encoding import JsonObject, b64u, dump_json, parse_b64u, parse_json
from vault.errors import MalformedInput
from vault.seal.ids import ID_BYTES, sha256
from vault.seal.signing import Signer

_KINDS: dict[str, tuple[Any, list[str]]] = {
    "EC": (ECKey, ["ES256"]),
    "OKP": (OKPKey, ["Ed25519", "EdDSA"]),
    "RSA": (RSAKey, ["PS256"]),
}
_MEMBERS = {"EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "RSA": ("n", "e")}


class BadJws(ClientError):
    """Signed JSON that is malformed or signed by another key."""

    slug = "bad-jws"
    title = "Signed JSON does not hold"


def jwk_of(signer: Signer) -> JsonObject:
    """Return the public JWK of an Ed25519 key."""
    return {"crv": "Ed25519", "kty": "OKP", "x": b64u(signer.public_key)}


def thumbprint(jwk: JsonObject) -> bytes:
    """Return the RFC 7638 thumbprint of a public key, 32 bytes.

    Raises:
        BadJws: Not a public key of a known kind.
    """
    names = _MEMBERS.get(str(jwk.get("kty")))
    if names is None or not all(isinstance(jwk.get(name), str) for name in names):
        raise BadJws("A company's public key is of no known kind.")
    return sha256(dump_json({name: jwk[name] for name in ("kty", *names)}))


def company_id_of(first_question_key: JsonObject) -> str:
    """Return the id of the company whose first question key this is."""
    return b64u(thumbprint(first_question_key)[:ID_BYTES])


def sign_jws(signer: Signer, header: JsonObject, claims: JsonObject) -> str:
    """Return a compact JWS under an Ed25519 key.

    Args:
        signer: The key.
        header: Beside `alg`.
        claims: The payload.
    """
    signing_input = f"{b64u(dump_json({'alg': 'Ed25519', **header}))}.{b64u(dump_json(claims))}"
    return f"{signing_input}.{b64u(signer.sign(signing_input.encode()))}"


def unverified_claims(text: str) -> JsonObject:
    """Return the claims of a compact JWS, only to find out which key should have signed it.

    Raises:
        BadJws: Malformed.
    """
    parts = text.split(".")
    try:
        if len(parts) != 3:
            raise BadJws("Signed JSON is not three base64url parts.")
        return parse_json(parse_b64u(parts[1]))
    except MalformedInput as error:
        raise BadJws(f"Signed JSON is malformed: {error.detail}") from error


def verify_jws(text: str, jwk: JsonObject, typ: str) -> JsonObject:
    """Return the claims of a compact JWS.

    Args:
        text: What arrived.
        jwk: The key that must have signed; its kind decides the algorithm.
        typ: The `typ` that it must have.

    Raises:
        BadJws: Malformed, of another type, or signed by another key.
    """
    kind = _KINDS.get(str(jwk.get("kty")))
    if kind is None:
        raise BadJws("A company's public key is of no known kind.")
    key_class, algorithms = kind
    members = {name: jwk[name] for name in ("kty", *_MEMBERS[str(jwk["kty"])]) if name in jwk}
    try:
        found = jws.deserialize_compact(text, key_class.import_key(members), algorithms=algorithms)
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise BadJws("Signed JSON is malformed or signed by another key.") from error
    if found.headers().get("typ") != typ:
        raise BadJws(f"Signed JSON is not a {typ}.")
    return unverified_claims(text)
