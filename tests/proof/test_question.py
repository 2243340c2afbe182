"""A question is its company's only as signed: for one server, consent, id, body and minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.company_kit import CompanyKit, new_key, public
from vault.errors import VaultError
from vault.proof.jose import read_jwk
from vault.proof.question import BadQuestionSignature, dump_signed_question, parse_signed_question, verify_signature

ISSUER = "https://vault.example"
CONSENT, QUESTION, BODY = b"c" * 16, b"q" * 16, b'{"kind":"next_choice"}'
NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize("algorithm", ["ES256", "Ed25519", "PS256"])
def test_a_signed_question_verifies(algorithm: str) -> None:
    acme = CompanyKit(algorithm)
    signed = acme.signed_question(ISSUER, CONSENT, QUESTION, BODY, NOON)
    _verify(acme, signed)


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://other.example"},
        {"consent_id": b"d" * 16},
        {"question_id": b"r" * 16},
        {"body": BODY + b" "},
        {"body": b""},
    ],
)
def test_a_question_signed_for_something_else_refuses(changes: dict[str, Any]) -> None:
    acme = CompanyKit()
    signed = acme.signed_question(ISSUER, CONSENT, QUESTION, BODY, NOON)
    with pytest.raises(BadQuestionSignature, match="over another"):
        _verify(acme, signed, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "someone"},
        {"aud": None},
        {"extra": 1},
        {"iat": 1},
        {"iat": None},
        {"iat": "now"},
        {"header": {"typ": "dpop+jwt"}},
        {"header": {"kid": None}},
        {"header": {"kid": "k1"}},
        {"header": {"crit": ["kid"]}},
    ],
)
def test_a_wrongly_signed_question_refuses(changes: dict[str, Any]) -> None:
    acme = CompanyKit()
    with pytest.raises(BadQuestionSignature):
        _verify(acme, acme.signed_question(ISSUER, CONSENT, QUESTION, BODY, NOON, **changes))


def test_a_question_signed_by_another_key_refuses() -> None:
    acme, thief = CompanyKit(), new_key()
    for key in (thief, acme.auth):
        for header in ({}, {"kid": acme.question.thumbprint()}, {"jwk": public(key)}):
            signed = acme.signed_question(ISSUER, CONSENT, QUESTION, BODY, NOON, key=key, header=header)
            with pytest.raises(BadQuestionSignature):
                _verify(acme, signed)


@pytest.mark.parametrize("age_s", [61, -11])
def test_an_old_or_future_question_refuses(age_s: int) -> None:
    acme = CompanyKit()
    signed = acme.signed_question(ISSUER, CONSENT, QUESTION, BODY, NOON - timedelta(seconds=age_s))
    with pytest.raises(BadQuestionSignature, match="within"):
        _verify(acme, signed)


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "é..", "A" * 9000])
def test_any_text_in_the_header_raises_one_family(text: str) -> None:
    with pytest.raises(BadQuestionSignature):
        _verify(CompanyKit(), text)


def _verify(acme: CompanyKit, signed: str, **changes: Any) -> None:
    expected: dict[str, Any] = {"issuer": ISSUER, "consent_id": CONSENT, "question_id": QUESTION, "body": BODY}
    key, at_s = read_jwk(public(acme.question)), int(NOON.timestamp())
    verify_signature(signed, key, company_id=acme.company_id, at_s=at_s, **(expected | changes))


def test_a_question_record_has_one_shape() -> None:
    assert parse_signed_question(dump_signed_question("a.b.c", BODY, b"z" * 16)) == ("a.b.c", BODY)
    for data in (b"", b"[]", b"{}", b'{"jws":1,"body":""}', b'{"jws":"","body":"=="}', b'{"jws":"","body":"","x":1}'):
        with pytest.raises(VaultError):
            parse_signed_question(data)
