"""Whom a verifier trusts: keys that the caller pinned, never keys that a bundle brings along."""

from __future__ import annotations

from dataclasses import dataclass

from vault.encoding import JsonObject, b64u, dump_json, parse_b64u, parse_json
from vault.errors import MalformedInput, VaultError
from vault.proof.errors import InvalidProof
from vault.proof.note import VerifierKey, parse_verifier_key

_FORMAT = "twinvault-trust/v1"
_FIELDS = {"format", "origin", "log", "operator", "issuer"}


class BadTrustFile(VaultError):
    """A trust file that does not say, in its one shape, which keys to trust."""

    slug = "bad-trust-file"
    title = "Trust file is not acceptable"
    status = 400


@dataclass(frozen=True)
class TrustedRoot:
    """The keys a client or auditor pinned.

    Args:
        issuer: Base URL of the service, as its tokens and sign-in challenges name it.
        origin: The log's name.
        log: The log's key.
        operator: Raw Ed25519 key, 32 bytes, that signs every other key of the service.
    """

    issuer: str
    origin: str
    log: VerifierKey
    operator: bytes


def parse_trust(data: bytes) -> TrustedRoot:
    """Read a trust file.

    Raises:
        BadTrustFile: It is not one.
    """
    try:
        record = parse_json(data)
        if set(record) != _FIELDS or record["format"] != _FORMAT:
            raise BadTrustFile("A trust file has exactly the fields format, issuer, origin, log and operator.")
        origin, log, issuer = (_text(record, name) for name in ("origin", "log", "issuer"))
        key = parse_verifier_key(log)
        if key.name != origin:
            raise BadTrustFile("The log key in the trust file is named for another log than its origin.")
        return TrustedRoot(issuer, origin, key, parse_b64u(record["operator"], size=32))
    except (MalformedInput, InvalidProof) as error:
        raise BadTrustFile(f"The trust file cannot be used: {error.detail}") from error


def dump_trust(root: TrustedRoot) -> bytes:
    """Return the trust file's bytes."""
    return dump_json(
        {
            "format": _FORMAT,
            "issuer": root.issuer,
            "origin": root.origin,
            "log": root.log.text,
            "operator": b64u(root.operator),
        }
    )


def _text(record: JsonObject, name: str) -> str:
    value = record[name]
    if not isinstance(value, str) or not value:
        raise BadTrustFile(f"The trust file's {name} must be a text.")
    return value
