"""A question as its company signed it, and the record of it that an answer's leaf names."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final, NamedTuple

from vault.encoding import b64u, dump_json, parse_b64u, parse_json
from vault.errors import VaultError
from vault.proof.jose import COMPANY_TYPE, QUESTION_TYPE, BadJws, JwsKey, parse_jws, read_jwk
from vault.schema.answer import SALT_BYTES

MAX_AGE_S: Final = 60
MAX_SKEW_S: Final = 10


class BadQuestionSignature(VaultError):
    """A question that its company did not sign, or signed for another server, consent, id or body."""

    slug = "bad-question-signature"
    title = "Question signature is not acceptable"
    status = 401


def verify_signature(
    unverified_jws: str,
    key: JwsKey,
    *,
    company_id: str,
    issuer: str,
    consent_id: bytes,
    question_id: bytes,
    body: bytes,
    at_s: int,
) -> None:
    """Check that a company signed this question for this server at this time.

    A compact JWS, detached from the body, with header {alg, typ `question+jwt`, kid} and claims {iss:
    company id, aud: issuer, consent, question: both ids in base64url, body: base64url SHA-256 of the
    exact body, iat}.

    Args:
        unverified_jws: The signature.
        key: The company's logged question key.
        company_id: Who asks.
        issuer: The server that was asked.
        consent_id: Under which consent.
        question_id: The idempotency key, 16 bytes.
        body: The question, exactly as sent.
        at_s: When it arrived, unix seconds.

    Raises:
        BadQuestionSignature: Another key, algorithm or kind of JWS, any claim that differs, or another time.
    """
    try:
        jws = parse_jws(unverified_jws, QUESTION_TYPE)
        if jws.header.get("kid") != key.kid:
            raise BadQuestionSignature("The kid must be the thumbprint of the company's question key in force.")
        claims = jws.verify(key)
    except BadJws as error:
        raise BadQuestionSignature(error.detail) from error
    issued_at = claims.pop("iat", None)
    if claims != {
        "iss": company_id,
        "aud": issuer,
        "consent": b64u(consent_id),
        "question": b64u(question_id),
        "body": b64u(hashlib.sha256(body).digest()),
    }:
        raise BadQuestionSignature("The signature is over another server, consent, question id or body.")
    if not isinstance(issued_at, int) or not -MAX_SKEW_S <= at_s - issued_at <= MAX_AGE_S:
        raise BadQuestionSignature(f"The question must be signed within {MAX_AGE_S} seconds of being sent.")


def dump_signed_question(jws: str, body: bytes, salt: bytes) -> bytes:
    """Return the record that an answer's leaf names by hash.

    Args:
        jws: The company's signature; empty for the owner, whose session signs no question.
        body: The question, exactly as sent.
        salt: 16 random bytes: auditors see the record's hash, and a question can be guessed.
    """
    return dump_json({"jws": jws, "body": b64u(body), "salt": b64u(salt)})


def parse_signed_question(unverified_data: bytes) -> tuple[str, bytes]:
    """Return signature and body of a question's record.

    Raises:
        MalformedInput: It is not JSON or not base64url.
        BadQuestionSignature: It has other fields.
    """
    record = parse_json(unverified_data)
    jws = record.get("jws")
    if record.keys() != {"jws", "body", "salt"} or not isinstance(jws, str):
        raise BadQuestionSignature("The record of a question holds its signature, its body and a salt.")
    parse_b64u(record["salt"], size=SALT_BYTES)
    return jws, parse_b64u(record["body"])


class Registered(NamedTuple):
    """What a company's logged record says of how it asks.

    Args:
        version: 1 for its first record.
        agent: Whether questions come from software that decides by itself what to ask.
        question_key: Signs its questions.
    """

    version: int
    agent: int
    question_key: JwsKey


@lru_cache(maxsize=1024)  # by all that it depends on: its company signed each of its questions under the same record
def parse_company(unverified_jws: str, company_id: str) -> Registered:
    """Return what a company's logged record says.

    A first record is named after its own key and signed by it; that a later one is signed by the key of the one before
    it is for `verify_follows`.

    Args:
        unverified_jws: The record, whose digest a leaf names.
        company_id: Whose it must be.

    Raises:
        BadJws: It is malformed or about another company.
    """
    jws = parse_jws(unverified_jws, COMPANY_TYPE)
    claims = jws.unverified_claims
    key, version, agent = read_jwk(claims.get("question_key", "")), claims.get("version"), claims.get("agent")
    if claims.get("company_id") != company_id:
        raise BadJws("The company's logged record is about another company.")
    if not isinstance(version, int) or not isinstance(agent, int):
        raise BadJws("The company's logged record states no version, or not whether it is an agent's.")
    if version == 1:
        jws.verify(key)
        if b64u(parse_b64u(key.kid)[:16]) != company_id:
            raise BadJws("The company is not named after its first question key.")
    return Registered(version, agent, key)


def verify_follows(unverified_jws: str, before: Registered) -> None:
    """Check that the question key of one record of a company signed the next.

    Args:
        unverified_jws: The next record.
        before: What the verified record before it says.

    Raises:
        BadJws: Somebody else signed it: the service put another key in the company's place.
    """
    parse_jws(unverified_jws, COMPANY_TYPE).verify(before.question_key)
