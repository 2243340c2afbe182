"""A company as tests play it: its keys and everything it signs, written with joserfc and nothing of ours."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

REDIRECT = "https://acme.example/cb"
ALGORITHMS = ["ES256", "Ed25519", "PS256", "HS256"]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def new_key(algorithm: str = "ES256") -> Any:
    kind = {"ES256": ECKey, "Ed25519": OKPKey, "PS256": RSAKey}[algorithm]
    curve = {"ES256": "P-256", "Ed25519": "Ed25519", "PS256": 2048}[algorithm]
    return kind.generate_key(curve)


def algorithm_of(key: Any) -> str:
    return {"EC": "ES256", "OKP": "Ed25519", "RSA": "PS256"}[key.key_type]


def public(key: Any) -> dict[str, Any]:
    return dict(key.as_dict(private=False))


def sign(key: Any, header: dict[str, Any], claims: dict[str, Any]) -> str:
    """Return a compact JWS; members that are None are left out."""
    header = {"alg": algorithm_of(key) if key.key_type != "oct" else "HS256", **header}
    header = {name: value for name, value in header.items() if value is not None}
    claims = {name: value for name, value in claims.items() if value is not None}
    registry = jws.JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
    return jws.serialize_compact(header, json.dumps(claims), key, registry=registry)


@dataclass
class CompanyKit:
    """Keys of one company; `algorithm` is that of its two registered keys."""

    algorithm: str = "ES256"
    name: str = "Acme Groceries"
    auth: Any = field(init=False)
    question: Any = field(init=False)
    dpop: Any = field(init=False)
    company_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.auth, self.question, self.dpop = new_key(self.algorithm), new_key(self.algorithm), new_key()
        thumbprint = base64.urlsafe_b64decode(self.question.thumbprint() + "=")
        self.company_id = b64(thumbprint[:16])

    def record(self, now: datetime, *, signer: Any = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
        claims = {
            "company_id": self.company_id,
            "version": 1,
            "name": self.name,
            "contact": "privacy@acme.example",
            "agent": 0,
            "redirect_uris": [REDIRECT],
            "client_auth_key": public(self.auth),
            "question_key": public(self.question),
            "issued_at": int(now.timestamp()),
        }
        return sign(signer or self.question, {"typ": "twinvault-company+jwt", **(header or {})}, claims | changes)

    def proof(
        self, method: str, url: str, now: datetime, *, nonce: str | None, token: str | None = None,
        header: dict[str, Any] | None = None, **changes: Any,
    ) -> str:  # fmt: skip
        claims = {
            "htm": method,
            "htu": url,
            "iat": int(now.timestamp()),
            "jti": secrets.token_urlsafe(12),
            "nonce": nonce,
            "ath": None if token is None else b64(hashlib.sha256(token.encode()).digest()),
        }
        return sign(self.dpop, {"typ": "dpop+jwt", "jwk": public(self.dpop), **(header or {})}, claims | changes)

    def assertion(
        self, issuer: str, now: datetime, *, key: Any = None, header: dict[str, Any] | None = None, **changes: Any
    ) -> str:
        claims = {
            "iss": self.company_id,
            "sub": self.company_id,
            "aud": issuer,
            "jti": secrets.token_urlsafe(12),
            "iat": int(now.timestamp()),
            "exp": int(now.timestamp()) + 60,
        }
        return sign(key or self.auth, header or {}, claims | changes)

    def signed_question(
        self, issuer: str, consent: bytes, question: bytes, body: bytes, now: datetime, *, key: Any = None,
        header: dict[str, Any] | None = None, **changes: Any,
    ) -> str:  # fmt: skip
        key = key or self.question
        claims = {
            "iss": self.company_id,
            "aud": issuer,
            "consent": b64(consent),
            "question": b64(question),
            "body": b64(hashlib.sha256(body).digest()),
            "iat": int(now.timestamp()),
        }
        return sign(key, {"typ": "question+jwt", "kid": key.thumbprint(), **(header or {})}, claims | changes)
