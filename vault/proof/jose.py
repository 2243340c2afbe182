"""Signed JSON of companies: public keys by value and compact JWS, read strictly.

The algorithm follows from the key, never from the message, so a public key cannot be replayed as
an HMAC secret and `none` does not exist. Signatures are joserfc's, but for Ed25519: it has one rule everywhere.
Source: RFC 7515, 7517, 7518, 7638, 9864; RFC 8725 for the attacks refused here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NewType

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from vault.encoding import JsonObject, JsonValue, b64u, dump_json, parse_b64u, parse_json
from vault.errors import MalformedInput, VaultError
from vault.seal.errors import SealError
from vault.seal.signing import parse_public_key, verify_signature

Thumbprint = NewType("Thumbprint", str)
"""Base64url SHA-256 of a public key's required members, 43 characters (RFC 7638)."""

SIGNATURE_ALGORITHMS: Final = ("ES256", "Ed25519", "EdDSA", "PS256")

QUESTION_TYPE: Final = "question+jwt"
COMPANY_TYPE: Final = "twinvault-company+jwt"
REQUEST_TYPE: Final = "twinvault-consent-request+jwt"

MAX_JWS_CHARS: Final = 8192
_MAX_JWK_CHARS: Final = 1024
_RSA_BITS: Final = (2048, 3072, 4096)
_RSA_EXPONENT: Final = 65537
_PARAMETERS: Final = {"alg", "typ", "kid", "jwk"}


class BadJws(VaultError):
    """A JWS or a public key that is malformed, of another kind, or signed by another key."""

    slug = "bad-jws"
    title = "Signed JSON is not acceptable"
    status = 400


@dataclass(frozen=True, slots=True)
class JwsKey:
    """A public key that verifies signatures of one algorithm.

    Args:
        kid: Its thumbprint, the only key id it has.
        algorithms: Header values that name its algorithm; `EdDSA` is the older name of `Ed25519`.
        jwk: Its required members, one fixed JSON spelling.
    """

    kid: Thumbprint
    algorithms: tuple[str, ...]
    jwk: str
    _key: Any = field(repr=False, compare=False)

    def verifies(self, signing_input: bytes, signature: bytes) -> bool:
        """Say whether this key made the signature."""
        if isinstance(self._key, bytes):
            try:
                verify_signature(self._key, signature, signing_input)
            except SealError:
                return False
            return True
        return bool(JWSRegistry.algorithms[self.algorithms[0]].verify(signing_input, signature, self._key))


@dataclass(frozen=True, slots=True)
class UnverifiedJws:
    """A compact JWS of the right form whose signature nobody has checked yet.

    Args:
        header: Its protected header.
        unverified_claims: Its payload; use it only to find the key, then `verify`.
    """

    header: JsonObject
    unverified_claims: JsonObject
    _signing_input: bytes = field(repr=False)
    _signature: bytes = field(repr=False)

    def verify(self, key: JwsKey) -> JsonObject:
        """Return the claims.

        Args:
            key: The key that must have signed; it decides the algorithm.

        Raises:
            BadJws: Another algorithm, another key id or another signature.
        """
        if self.header.get("alg") not in key.algorithms:
            raise BadJws(f"The signature must use {key.algorithms[0]}, the algorithm of the registered key.")
        if self.header.get("kid", key.kid) != key.kid:
            raise BadJws("The key id is not the RFC 7638 thumbprint of the registered key.")
        if not key.verifies(self._signing_input, self._signature):
            raise BadJws("The signature does not verify under the registered key.")
        return self.unverified_claims


def parse_jws(unverified_text: str, *types: str | None) -> UnverifiedJws:
    """Take a compact JWS apart without trusting it.

    Args:
        unverified_text: `header.payload.signature`.
        types: Accepted `typ` values, None for a header without one. Explicit types keep one
            kind of signed JSON from being replayed as another (RFC 8725 section 3.11).

    Raises:
        BadJws: Too long, another form or type, or a header parameter that is not understood;
            `crit` therefore always refuses.
    """
    if len(unverified_text) > MAX_JWS_CHARS:
        raise BadJws(f"A signed JSON is longer than {MAX_JWS_CHARS} characters.")
    signing_input, _, last = unverified_text.rpartition(".")
    first, _, second = signing_input.partition(".")
    if unverified_text.count(".") != 2:
        raise BadJws("A signed JSON is not three base64url segments.")
    try:
        header, claims, signature = _parse_header(first), parse_json(parse_b64u(second)), parse_b64u(last)
    except MalformedInput as error:
        raise BadJws(f"A signed JSON is malformed: {error.detail}") from error
    if header.get("typ") not in types:
        raise BadJws(f"A signed JSON's typ must be {types[0]}.")
    return UnverifiedJws({**header}, claims, signing_input.encode(), signature)


@lru_cache(maxsize=256)  # everything that one key signs begins alike
def _parse_header(segment: str) -> JsonObject:
    header = parse_json(parse_b64u(segment))
    if not header.keys() <= _PARAMETERS:
        raise BadJws("A signed JSON's header may only hold alg, typ, kid and jwk.")
    return header


def read_jwk(unverified_jwk: JsonValue) -> JwsKey:
    """Return the public key of a JWK.

    Args:
        unverified_jwk: P-256, Ed25519, or RSA of 2048 to 4096 bits with exponent 65537. Optional
            members that only describe the key are dropped.

    Raises:
        BadJws: Another kind of key, private members, a second spelling of the same key, or a
            `kid` or `alg` that contradicts it.
    """
    if not isinstance(unverified_jwk, dict):
        raise BadJws("A public key must be a JWK object.")
    required = {"EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "RSA": ("n", "e")}.get(str(unverified_jwk.get("kty")))
    if required is None or {"d", "p", "q", "dp", "dq", "qi", "oth", "k"} & unverified_jwk.keys():
        raise BadJws("A public key must be of kty EC, OKP or RSA and hold no private member.")
    members = {name: unverified_jwk.get(name) for name in ("kty", *required)}
    if not all(isinstance(value, str) and value.isascii() for value in members.values()):
        raise BadJws("A public key lacks a member.")
    key = parse_jwk(dump_json({name: str(value) for name, value in members.items()}).decode())
    if unverified_jwk.get("kid", key.kid) != key.kid:
        raise BadJws("A public key's kid must be its RFC 7638 thumbprint.")
    if unverified_jwk.get("alg", key.algorithms[0]) not in key.algorithms:
        raise BadJws("A public key's alg is not the one its kind of key uses here.")
    return key


# Keyed by the key itself, so a rotation can never be answered with the key before it.
@lru_cache(maxsize=4096)
def parse_jwk(text: str) -> JwsKey:
    """Return the public key of its fixed JSON spelling, as `JwsKey.jwk` holds it.

    Raises:
        BadJws: Not such a key.
    """
    if len(text) > _MAX_JWK_CHARS:
        raise BadJws(f"A public key is longer than {_MAX_JWK_CHARS} characters.")
    try:
        members: Any = parse_json(text.encode())
        key, canonical, algorithms = _import(members)
    except (MalformedInput, JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadJws("A public key must be P-256, Ed25519, or RSA of 2048, 3072 or 4096 bits.") from error
    if canonical | {"kty": members["kty"]} != members:  # a second spelling would have a second thumbprint
        raise BadJws("A public key's members are not in their canonical base64url form.")
    kid = Thumbprint(b64u(hashlib.sha256(text.encode()).digest()))
    return JwsKey(kid, algorithms, text, key)


def _import(members: Any) -> tuple[Any, dict[str, Any], tuple[str, ...]]:
    match members["kty"], members.get("crv"):
        case "EC", "P-256":
            ec = ECKey.import_key(members)
            return ec, {**ec.binding.export_public_key(ec.public_key)}, ("ES256",)
        case "OKP", "Ed25519":
            okp = OKPKey.import_key(members)
            try:
                raw = parse_public_key(okp.public_key.public_bytes_raw())
            except SealError as error:
                raise BadJws(error.detail) from error
            return raw, {**okp.binding.export_public_key(okp.public_key)}, ("Ed25519", "EdDSA")
        case "RSA", None:
            # Bounded before the import: a huge modulus or exponent makes one verification take seconds.
            bits, exponent = 8 * len(parse_b64u(members["n"])), int.from_bytes(parse_b64u(members["e"]))
            if bits not in _RSA_BITS or exponent != _RSA_EXPONENT:
                raise BadJws("An RSA key must have 2048, 3072 or 4096 bits and the exponent 65537.")
            rsa = RSAKey.import_key(members)
            return rsa, {**rsa.binding.export_public_key(rsa.public_key)}, ("PS256",)
        case _:
            raise BadJws("A public key must be P-256, Ed25519 or RSA.")
