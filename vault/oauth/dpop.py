"""DPoP: a proof, in each request, that the caller holds the key its token is bound to.

Source: RFC 9449.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlmodel import Session

from vault.clock import unix_s
from vault.encoding import b64u
from vault.errors import VaultError
from vault.parties.once import spend
from vault.proof.jose import SIGNATURE_ALGORITHMS, BadJws, Thumbprint, parse_jws, read_jwk

MAX_AGE_S: Final = 60
MAX_SKEW_S: Final = 10
_BUCKET_S: Final = 60
_NONCE_BYTES: Final = 16
_MAX_JTI_CHARS: Final = 128


class Unauthenticated(VaultError):
    """A request whose token or proof does not show who sent it.

    Args:
        detail: What was wrong.
        error: The error code of RFC 6750 and RFC 9449, or None when there were no credentials.
        nonce: The nonce to use in the next proof.
    """

    slug = "unauthenticated"
    title = "Not authenticated"
    status = 401

    def __init__(self, detail: str, *, error: str | None, nonce: str) -> None:
        super().__init__(detail)
        self.error = error
        code = f'error="{error}", ' if error else ""
        challenge = f'DPoP {code}algs="{" ".join(SIGNATURE_ALGORITHMS)}"'
        self.headers = {"WWW-Authenticate": challenge, "DPoP-Nonce": nonce}


@dataclass(frozen=True)
class NonceClock:
    """Server nonces that every process of one server computes alike and none stores.

    A nonce is a MAC over the number of the current minute, so a proof cannot be made in advance
    and is fresh for one to two minutes.

    Args:
        secret: At least 32 random bytes, the same in every process.
    """

    secret: bytes

    def now(self, at: datetime) -> str:
        """Return the nonce to use from `at` on."""
        return self._nonce(unix_s(at) // _BUCKET_S)

    def accepts(self, nonce: str, at: datetime) -> bool:
        """Say whether a nonce is of this minute or the one before."""
        bucket = unix_s(at) // _BUCKET_S
        return any(hmac.compare_digest(nonce.encode(), self._nonce(bucket - age).encode()) for age in (0, 1))

    def _nonce(self, bucket: int) -> str:
        mac = hmac.digest(self.secret, b"twinvault/dpop-nonce/v1\n" + bucket.to_bytes(8, "big"), "sha256")
        return b64u(mac[:_NONCE_BYTES])


@dataclass(frozen=True, slots=True)
class Proof:
    """A verified proof that has not been used up yet.

    Args:
        jkt: Thumbprint of the key it proves.
        jti: Its own id.
        issued_at: Unix seconds.
    """

    jkt: Thumbprint
    jti: str
    issued_at: int


@dataclass(frozen=True)
class ProofReader:
    """What a proof is checked against.

    Args:
        issuer: Base URL without a trailing slash; `htu` is computed from it, never from `Host`.
        nonces: Server nonces.
    """

    issuer: str
    nonces: NonceClock

    def verify(
        self, unverified_proofs: list[str], *, method: str, path: str, access_token: str | None, now: datetime
    ) -> Proof:
        """Return the proof of a request.

        Args:
            unverified_proofs: Every `DPoP` header of the request; there must be one.
            method: The request's method.
            path: Its path below the issuer, without the query.
            access_token: The token it must be bound to; None at the token endpoint.
            now: The current time.

        Raises:
            Unauthenticated: `invalid_dpop_proof`, or `use_dpop_nonce` when only the nonce is missing or old.

        Source: RFC 9449 section 4.3.
        """
        if len(unverified_proofs) != 1:
            raise self.refusal("Send exactly one DPoP header.", now)
        try:
            jws = parse_jws(unverified_proofs[0], "dpop+jwt")
            key = read_jwk(jws.header.get("jwk", ""))
            claims = jws.verify(key)
        except BadJws as error:
            raise self.refusal(error.detail, now) from error
        jti, issued_at, nonce = claims.get("jti"), claims.get("iat"), claims.get("nonce", "")
        if not isinstance(jti, str) or not 0 < len(jti) <= _MAX_JTI_CHARS:
            raise self.refusal(f"The proof needs a jti of 1 to {_MAX_JTI_CHARS} characters.", now)
        if claims.get("htm") != method or _without_query(claims.get("htu")) != self.issuer + path:
            raise self.refusal("The proof was made for another method or URL.", now)
        if not isinstance(issued_at, int) or not -MAX_SKEW_S <= unix_s(now) - issued_at <= MAX_AGE_S:
            raise self.refusal("The proof is too old or from the future; check the clock.", now)
        if access_token is not None and claims.get("ath") != _sha256(access_token):
            raise self.refusal("The proof was made for another access token.", now)
        if not isinstance(nonce, str) or not self.nonces.accepts(nonce, now):
            raise self.refusal("Repeat the request with the nonce of the DPoP-Nonce header.", now, "use_dpop_nonce")
        return Proof(key.kid, jti, issued_at)

    def spend(self, session: Session, proof: Proof, *, now: datetime) -> None:
        """Use a proof up, in the caller's writing transaction.

        Raises:
            Unauthenticated: It was used before.
        """
        expires_at_s = proof.issued_at + MAX_AGE_S + 1
        if not spend(session, b"dpop", proof.jkt.encode(), proof.jti.encode(), expires_at_s=expires_at_s, now=now):
            raise self.refusal("The proof was used before; make a new one for each request.", now)

    def refusal(self, detail: str, now: datetime, error: str = "invalid_dpop_proof") -> Unauthenticated:
        """Return a refusal that carries the nonce for the next try."""
        return Unauthenticated(detail, error=error, nonce=self.nonces.now(now))


def _without_query(htu: object) -> str | None:
    return htu.partition("#")[0].partition("?")[0] if isinstance(htu, str) else None


def _sha256(text: str) -> str:
    return b64u(hashlib.sha256(text.encode()).digest())
