from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vault.encoding import JsonObject, parse_json
from vault.seal.dsse import PayloadType, sign_record
from vault.seal.errors import SealError
from vault.seal.ids import VaultId
from vault.seal.legacy import (
    Act,
    Choice,
    LegacyTerms,
    Plan,
    Statement,
    legacy_key,
    sign_plan,
    sign_statement,
    verify_plan,
    verify_statement,
)  # fmt: skip
from vault.seal.person import sign_genesis, sign_succession, verify_genesis, verify_identity
from vault.seal.signing import SigningKey, new_seed
from vault.seal.version import NO_PREV

OWNER, SECRET, VAULT = SigningKey(new_seed()), new_seed(), VaultId(b"v" * 16)
KEY = legacy_key(SECRET)
TERMS = LegacyTerms(KEY.public_key, 2, 3, 30, Choice.ERASE)
PLAN = Plan(VAULT, 1, NO_PREV, 1_800_000_000, TERMS)
SAID = Statement(VAULT, b"p" * 32, b"c" * 16, Act.DECLARE, "gone", 1_800_000_000)


def test_plans_and_statements_say_what_was_signed() -> None:
    assert verify_plan(sign_plan(PLAN, OWNER), OWNER.public_key, VAULT) == PLAN
    withdrawn = replace(PLAN, version=2, prev=b"d" * 32, terms=None)
    assert verify_plan(sign_plan(withdrawn, OWNER), OWNER.public_key, VAULT) == withdrawn
    assert verify_statement(sign_statement(SAID, KEY), KEY.public_key, VAULT, b"p" * 32) == SAID


@pytest.mark.parametrize(
    "wrong", [{"threshold": 1}, {"threshold": 4}, {"shares": 17, "threshold": 2}, {"waiting_days": 6}, {"waiting_days": 367}, {"inactive_days": 29},
        {"inactive_days": 3661}]
)  # fmt: skip
def test_a_plan_takes_two_or_more_and_waits_a_week_or_more(wrong: dict[str, int]) -> None:
    with pytest.raises(SealError):
        replace(TERMS, **wrong)  # type: ignore[arg-type]  # each is a number


def _changed(record: JsonObject, **changed: Any) -> JsonObject:
    return {name: value for name, value in {**record, **changed}.items() if value is not None}


@pytest.mark.parametrize(
    "changed",
    [
        {"version": 0}, {"version": 2}, {"prev": ""}, {"issued_at": -1}, {"issued_at": None}, {"more": 1},
        {"terms": []}, {"terms": None}, {"terms": {"legacy_key": ""}}, {"vault": ""},
    ],
)  # fmt: skip
def test_a_malformed_plan_is_refused(changed: dict[str, Any]) -> None:
    record = parse_json(sign_plan(PLAN, OWNER).payload)
    with pytest.raises(SealError):
        verify_plan(sign_record(PayloadType.EXECUTORS, _changed(record, **changed), OWNER), OWNER.public_key, VAULT)


@pytest.mark.parametrize(
    "changed", [{"threshold": 1}, {"choice": "sell"}, {"legacy_key": "AA"}, {"waiting_days": 0}, {"more": 1}]
)
def test_malformed_terms_are_refused(changed: dict[str, Any]) -> None:
    record = parse_json(sign_plan(PLAN, OWNER).payload)
    terms = record["terms"]
    assert isinstance(terms, dict)
    with pytest.raises(SealError):
        verify_plan(
            sign_record(PayloadType.EXECUTORS, {**record, "terms": {**terms, **changed}}, OWNER),
            OWNER.public_key,
            VAULT,
        )


@pytest.mark.parametrize(
    "changed",
    [{"act": "sell"}, {"claim": "AA"}, {"reason": "x" * 201}, {"issued_at": "now"}, {"plan": ""}, {"more": 1}],
)
def test_a_malformed_statement_is_refused(changed: dict[str, Any]) -> None:
    record = parse_json(sign_statement(SAID, KEY).payload)
    with pytest.raises(SealError):
        verify_statement(sign_record(PayloadType.LEGACY, {**record, **changed}, KEY), KEY.public_key, VAULT, b"p" * 32)


def test_the_legacy_key_signs_statements_and_is_no_other_key() -> None:
    for plan, vault in ((b"q" * 32, VAULT), (b"p" * 32, VaultId(b"w" * 16))):
        with pytest.raises(SealError):
            verify_statement(sign_statement(SAID, KEY), KEY.public_key, vault, plan)
    with pytest.raises(SealError):
        verify_statement(sign_statement(SAID, OWNER), KEY.public_key, VAULT, b"p" * 32)
    with pytest.raises(SealError):
        verify_plan(sign_statement(SAID, OWNER), OWNER.public_key, VAULT)
    assert KEY.public_key != SigningKey(SECRET).public_key


def test_every_owner_key_of_a_vault_follows_from_its_genesis() -> None:
    second, third = SigningKey(new_seed()), SigningKey(new_seed())
    genesis = sign_genesis(OWNER, second.public_key, created_at=1, time_zone="UTC")
    vault = verify_genesis(genesis).vault_id
    succession = sign_succession(second, third.public_key, vault_id=vault, prev=genesis.digest)
    assert verify_identity([genesis, succession], vault) == [OWNER.public_key, second.public_key]
    stolen = sign_succession(third, third.public_key, vault_id=vault, prev=genesis.digest)
    for wrong in ([], [succession], [genesis, stolen], [genesis, succession, succession]):
        with pytest.raises(SealError):
            verify_identity(wrong, vault)
    with pytest.raises(SealError):
        verify_identity([genesis], VAULT)
