from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import sqlalchemy
from sqlmodel import Session

from vault.db import Database
from vault.encoding import b64u, parse_b64u
from vault.parties import people
from vault.parties.caller import DeviceCaller, OwnerCaller
from vault.parties.sessions import NotSignedIn, SignInDesk, SignInRefused, end_sessions, find_caller
from vault.seal.dsse import PayloadType, sign_record
from vault.seal.ids import DeviceId, VaultId, key_id, sha256
from vault.seal.person import Role, SignIn, sign_genesis, sign_sign_in
from vault.seal.signing import SigningKey, new_seed

ORIGIN = "https://vault.example"
OWNER, KIT, DEVICE = (SigningKey(new_seed()) for _ in range(3))
DEVICE_ID = DeviceId(key_id(DEVICE.public_key))
GENESIS = sign_genesis(OWNER, KIT.public_key, created_at=1, time_zone="UTC")
VAULT = VaultId(sha256(GENESIS.payload)[:16])
SECRET = b"s" * 32


def _device_key(session: Session, vault_id: VaultId, device_id: DeviceId) -> bytes | None:
    return DEVICE.public_key if (vault_id, device_id) == (VAULT, DEVICE_ID) else None


DESK = SignInDesk(ORIGIN, SECRET, _device_key)


@pytest.fixture
def lived_in(database: Database, now: datetime) -> Database:
    with database.transaction() as session:
        people.create(session, GENESIS, now=now)
    return database


def _answer(now: datetime, role: Role = Role.OWNER, desk: SignInDesk = DESK) -> SignIn:
    device_id = DEVICE_ID if role is Role.DEVICE else None
    return SignIn(VAULT, role, device_id, desk.challenge(VAULT, role, now=now), ORIGIN)


def _sign_in(database: Database, signer: SigningKey, answer: SignIn, now: datetime) -> str:
    with database.transaction() as session:
        return DESK.sign_in(session, sign_sign_in(signer, answer), now=now)


def _later(nonce: bytes) -> bytes:
    return (int.from_bytes(nonce[:4]) - 1).to_bytes(4) + nonce[4:]


def test_an_owner_and_a_device_sign_in_as_what_they_are(lived_in: Database, now: datetime) -> None:
    owner = _sign_in(lived_in, OWNER, _answer(now), now)
    device = _sign_in(lived_in, DEVICE, _answer(now, Role.DEVICE), now)
    with lived_in.snapshot() as session:
        assert find_caller(session, owner, now=now) == OwnerCaller(VAULT)
        assert find_caller(session, device, now=now) == DeviceCaller(VAULT, DEVICE_ID)


def test_a_challenge_works_once_and_in_any_process(lived_in: Database, now: datetime) -> None:
    answer = _answer(now, desk=SignInDesk(ORIGIN, SECRET, _device_key))
    _sign_in(lived_in, OWNER, answer, now)
    with pytest.raises(SignInRefused):
        _sign_in(lived_in, OWNER, answer, now)


def test_every_wrong_answer_gets_the_same_refusal(lived_in: Database, now: datetime) -> None:
    right = _answer(now)
    stranger = SigningKey(new_seed())
    unknown = VaultId(b"u" * 16)
    wrong = {
        "wrong key": (stranger, right),
        "unknown vault": (
            stranger,
            replace(right, vault_id=unknown, nonce=DESK.challenge(unknown, Role.OWNER, now=now)),
        ),
        "other vault's challenge": (OWNER, replace(right, nonce=DESK.challenge(unknown, Role.OWNER, now=now))),
        "other role's challenge": (OWNER, replace(right, nonce=DESK.challenge(VAULT, Role.DEVICE, now=now))),
        "other server": (OWNER, replace(right, origin="https://evil.example")),
        "device as owner": (DEVICE, right),
        "unlisted device": (DEVICE, replace(_answer(now, Role.DEVICE), device_id=DeviceId(b"d" * 16))),
        "too old": (OWNER, _answer(now - timedelta(seconds=120))),
        "from the future": (OWNER, _answer(now + timedelta(seconds=60))),
        "made up": (OWNER, replace(right, nonce=b"n" * 32)),
        "expiry moved": (OWNER, replace(right, nonce=_later(right.nonce))),
        "other secret": (OWNER, _answer(now, desk=SignInDesk(ORIGIN, b"t" * 32, _device_key))),
    }
    details = set()
    for name, (signer, answer) in wrong.items():
        with pytest.raises(SignInRefused) as refused:
            pytest.fail(f"{name}: {_sign_in(lived_in, signer, answer, now)}")
        details.add(refused.value.detail)
    assert len(details) == 1
    _sign_in(lived_in, OWNER, right, now)


def test_a_refused_answer_fills_no_table(lived_in: Database, now: datetime) -> None:
    with pytest.raises(SignInRefused):
        _sign_in(lived_in, SigningKey(new_seed()), _answer(now), now)
    with lived_in.snapshot() as session:
        for table in ("spent", "party_session"):
            assert session.execute(sqlalchemy.text(f"SELECT count(*) FROM {table}")).scalar_one() == 0


def test_another_signed_record_is_no_sign_in(lived_in: Database, now: datetime) -> None:
    answer = _answer(now)
    record = {"vault": b64u(VAULT), "role": "owner", "device": "", "nonce": b64u(answer.nonce), "origin": ORIGIN}
    with pytest.raises(SignInRefused), lived_in.transaction() as session:
        DESK.sign_in(session, sign_record(PayloadType.FREEZE, {**record}, OWNER), now=now)
    with pytest.raises(SignInRefused), lived_in.transaction() as session:
        DESK.sign_in(session, sign_record(PayloadType.SIGN_IN, {**record, "device": b64u(DEVICE_ID)}, OWNER), now=now)


def test_a_session_ends(lived_in: Database, now: datetime) -> None:
    token = _sign_in(lived_in, OWNER, _answer(now), now)
    device = _sign_in(lived_in, DEVICE, _answer(now, Role.DEVICE), now)
    with lived_in.snapshot() as session:
        find_caller(session, token, now=now + timedelta(seconds=899))
        for late_s in (900, 10**6):
            with pytest.raises(NotSignedIn):
                find_caller(session, token, now=now + timedelta(seconds=late_s))
    with lived_in.transaction() as session:
        end_sessions(session, VAULT, DEVICE_ID)
        with pytest.raises(NotSignedIn):
            find_caller(session, device, now=now)
        find_caller(session, token, now=now)
        end_sessions(session, VAULT)
        with pytest.raises(NotSignedIn):
            find_caller(session, token, now=now)


def test_the_database_holds_no_token(lived_in: Database, now: datetime) -> None:
    token = parse_b64u(_sign_in(lived_in, OWNER, _answer(now), now))
    with lived_in.snapshot() as session:
        stored = session.execute(sqlalchemy.text("SELECT token_hash FROM party_session")).scalar_one()
    assert bytes(stored) == hashlib.sha256(token).digest()


@pytest.mark.parametrize("token", ["", "x", "A" * 43, "A" * 44, "é", "A" * 10_000])
def test_a_made_up_token_refuses(sqlite_database: Database, now: datetime, token: str) -> None:
    with sqlite_database.snapshot() as session, pytest.raises(NotSignedIn):
        find_caller(session, token, now=now)


def test_expired_sessions_are_swept(lived_in: Database, now: datetime) -> None:
    for _ in range(3):
        _sign_in(lived_in, OWNER, _answer(now), now)
    later = now + timedelta(hours=1)
    _sign_in(lived_in, OWNER, _answer(later), later)
    with lived_in.snapshot() as session:
        assert session.execute(sqlalchemy.text("SELECT count(*) FROM party_session")).scalar_one() == 1
