"""Access tokens: signed, bound to a key, ten minutes.

Source: RFC 9068 (JWT access tokens), RFC 9449 section 6 (`cnf.jkt`). `grant_id` follows OAuth Grant
Management: it is the id of the one consent that the token is for.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from sqlmodel import Session

from vault.clock import unix_s
from vault.encoding import JsonObject, b64u, dump_json, parse_b64u
from vault.errors import MalformedInput
from vault.parties.companies import CompanyId
from vault.parties.once import is_any_spent, spend
from vault.proof.jose import BadJws, JwsKey, Thumbprint, parse_jws, read_jwk
from vault.seal.ids import ID_BYTES, ConsentId
from vault.seal.signing import Signer

SCOPE: Final = "twin:ask"
TOKEN_S: Final = 600
AGENT_TOKEN_S: Final = 300
_TYPE: Final = "at+jwt"
_REVOKED: Final = b"revoked-token"


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A verified access token.

    Args:
        company_id: Whom it authenticates.
        jkt: Thumbprint of the key it is bound to.
        grant_id: The one consent it is for; None if it only names the company.
        issued_at: Unix seconds.
        expires_at: Unix seconds.
        jti: Its own id.
        family_id: What it ends with: the refresh tokens that it was made with, or else the company's key.
    """

    company_id: CompanyId
    jkt: Thumbprint
    grant_id: ConsentId | None
    issued_at: int
    expires_at: int
    jti: str
    family_id: bytes


class TokenMint:
    """Issues access tokens and recognises its own.

    Args:
        issuer: Base URL without a trailing slash; issuer and audience are the same server.
        signer: The service key now in force.
        former_keys: Public keys before it, 32 bytes each, and the unix second from which on their
            tokens are refused, whatever these say themselves.
        issued_after_s: Unix second at or before which no token counts: then the database was set back, and with it
            what it knew of revoked ones.
    """

    def __init__(
        self,
        issuer: str,
        signer: Signer,
        former_keys: Mapping[bytes, int] = MappingProxyType({}),
        issued_after_s: int = 0,
    ) -> None:
        self._issuer = issuer
        self._signer = signer
        self._issued_after_s = issued_after_s
        self._kid = _ed25519(signer.public_key).kid
        accepted_until = {signer.public_key: sys.maxsize, **former_keys}
        self._keys = {key.kid: (key, until_s) for data, until_s in accepted_until.items() for key in [_ed25519(data)]}
        # A signature does not expire, so what is cached is only that it holds; time is checked on each use.
        self._read = lru_cache(maxsize=4096)(self._verify)

    @property
    def public_keys(self) -> tuple[JwsKey, ...]:
        """The keys that verify this server's tokens, the one in force first."""
        return tuple(key for key, _ in self._keys.values())

    def issue(
        self,
        company_id: CompanyId,
        jkt: Thumbprint,
        grant_id: ConsentId | None,
        *,
        now: datetime,
        lifetime_s: int = TOKEN_S,
        family_id: bytes = b"",
    ) -> str:
        """Return a token.

        Args:
            company_id: Whom it authenticates.
            jkt: The key it is bound to.
            grant_id: The consent it is for, if for one only.
            now: The current time.
            lifetime_s: How long it works, at most `TOKEN_S`.
            family_id: What it ends with, if anything but itself.
        """
        claims: JsonObject = {
            "iss": self._issuer,
            "aud": self._issuer,
            "sub": company_id,
            "client_id": company_id,
            "scope": SCOPE,
            "iat": unix_s(now),
            "exp": unix_s(now) + lifetime_s,
            "jti": secrets.token_urlsafe(16),
            "cnf": {"jkt": jkt},
        }
        if grant_id is not None:
            claims["grant_id"] = b64u(grant_id)
        if family_id:
            claims["family"] = b64u(family_id)
        header: JsonObject = {"alg": "Ed25519", "typ": _TYPE, "kid": self._kid}
        signing_input = f"{b64u(dump_json(header))}.{b64u(dump_json(claims))}"
        return f"{signing_input}.{b64u(self._signer.sign(signing_input.encode()))}"

    def verify(self, unverified_token: str, *, now: datetime) -> AccessToken:
        """Return one of this server's tokens.

        Raises:
            BadJws: Not signed here, of another kind, for another server, or expired.
        """
        token = self._read(unverified_token)
        if token.expires_at <= unix_s(now):
            raise BadJws("The access token has expired; ask for a new one.")
        return token

    def _verify(self, unverified_token: str) -> AccessToken:
        jws = parse_jws(unverified_token, _TYPE)
        found = self._keys.get(Thumbprint(str(jws.header.get("kid"))))
        if found is None:
            raise BadJws("The access token is not signed by a key of this server.")
        key, accepted_until_s = found
        claims = jws.verify(key)
        if claims.get("iss") != self._issuer or claims.get("aud") != self._issuer or claims.get("scope") != SCOPE:
            raise BadJws("The access token is for another server or scope.")
        company_id, bound, jti = claims.get("client_id"), claims.get("cnf"), claims.get("jti")
        issued_at, expires_at = claims.get("iat"), claims.get("exp")
        jkt = bound.get("jkt") if isinstance(bound, dict) else None
        if not isinstance(company_id, str) or not isinstance(jkt, str) or not isinstance(jti, str):
            raise BadJws("The access token is not bound to a key.")
        if not isinstance(issued_at, int) or not isinstance(expires_at, int):
            raise BadJws("The access token does not say when it ends.")
        if issued_at <= self._issued_after_s:
            raise BadJws("The access token was issued before the service was restored; ask for a new one.")
        grant_id = parse_grant_id(claims["grant_id"]) if "grant_id" in claims else None
        family_id = parse_b64u(claims.get("family", ""))
        expires_at = min(expires_at, accepted_until_s)
        return AccessToken(CompanyId(company_id), Thumbprint(jkt), grant_id, issued_at, expires_at, jti, family_id)


def revoke(session: Session, name: bytes, *, expires_at_s: int, now: datetime) -> None:
    """Refuse an access token, named by its `jti`, or all those of a family, until they have expired anyway."""
    spend(session, _REVOKED, name, expires_at_s=expires_at_s, now=now)


def is_revoked(session: Session, token: AccessToken) -> bool:
    """Say whether an access token, or the family it was made with, was revoked."""
    return is_any_spent(session, _REVOKED, token.jti.encode(), token.family_id)


def parse_grant_id(unverified: object) -> ConsentId:
    """Return a grant id, which is a consent id.

    Raises:
        BadJws: Not 16 bytes in base64url.
    """
    try:
        return ConsentId(parse_b64u(unverified, size=ID_BYTES))
    except MalformedInput as error:
        raise BadJws("A grant_id is 16 bytes in base64url.") from error


def _ed25519(public_key: bytes) -> JwsKey:
    return read_jwk({"kty": "OKP", "crv": "Ed25519", "x": b64u(public_key)})
