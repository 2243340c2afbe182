"""Whom a verifier trusts: keys that the caller pinned, never keys that a bundle brings along."""

from __future__ import annotations

from dataclasses import dataclass

from vault.encoding import JsonObject, JsonValue, b64u, dump_json, parse_b64u, parse_json
from vault.errors import MalformedInput, VaultError
from vault.proof.errors import InvalidProof
from vault.proof.note import COSIGNATURE, VerifierKey, parse_verifier_key
from vault.proof.witness import WitnessPolicy
from vault.seal.errors import SealError
from vault.seal.signing import parse_public_key

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
        witnesses: Who must have cosigned the log; None to rely on the log's signature and on what was seen before.
    """

    issuer: str
    origin: str
    log: VerifierKey
    operator: bytes
    witnesses: WitnessPolicy | None = None


def parse_trust(data: bytes) -> TrustedRoot:
    """Read a trust file.

    Raises:
        BadTrustFile: It is not one.
    """
    try:
        record = parse_json(data)
        if set(record) - {"witnesses"} != _FIELDS or record["format"] != _FORMAT:
            raise BadTrustFile(
                "A trust file has exactly the fields format, issuer, origin, log and operator, and may have witnesses."
            )
        origin, log, issuer = (_text(record, name) for name in ("origin", "log", "issuer"))
        key = parse_verifier_key(log)
        if key.name != origin:
            raise BadTrustFile("The log key in the trust file is named for another log than its origin.")
        witnesses = read_witnesses(record["witnesses"]) if "witnesses" in record else None
        return TrustedRoot(issuer, origin, key, parse_public_key(parse_b64u(record["operator"])), witnesses)
    except (MalformedInput, InvalidProof, SealError) as error:
        raise BadTrustFile(f"The trust file cannot be used: {error.detail}") from error


def dump_trust(root: TrustedRoot) -> bytes:
    """Return the trust file's bytes."""
    record: JsonObject = {
        "format": _FORMAT,
        "issuer": root.issuer,
        "origin": root.origin,
        "log": root.log.text,
        "operator": b64u(root.operator),
    }
    if root.witnesses is not None:
        record["witnesses"] = show_witnesses(root.witnesses)
    return dump_json(record)


def read_witnesses(value: JsonValue) -> WitnessPolicy:
    """Read which witnesses are trusted.

    Raises:
        BadTrustFile: It does not say so in its one shape.
        MalformedProof: A key is none, or the numbers do not fit together.
    """
    if not isinstance(value, dict) or set(value) != {"keys", "quorum", "max_age_s"}:
        raise BadTrustFile("The trust file's witnesses have exactly the fields keys, quorum and max_age_s.")
    keys, quorum, max_age_s = value["keys"], value["quorum"], value["max_age_s"]
    if not isinstance(keys, list) or not isinstance(quorum, int) or not isinstance(max_age_s, int):
        raise BadTrustFile("The trust file's witnesses are a list of keys and two whole numbers.")
    return WitnessPolicy(tuple(parse_verifier_key(str(key), COSIGNATURE) for key in keys), quorum, max_age_s)


def show_witnesses(policy: WitnessPolicy) -> JsonObject:
    """Return the policy as a trust file spells it."""
    return {"keys": [key.text for key in policy.keys], "quorum": policy.quorum, "max_age_s": policy.max_age_s}


def _text(record: JsonObject, name: str) -> str:
    value = record[name]
    if not isinstance(value, str) or not value:
        raise BadTrustFile(f"The trust file's {name} must be a text.")
    return value
