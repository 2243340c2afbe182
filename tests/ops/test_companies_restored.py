"""An old backup put back lets nobody in again: no key that a company replaced, no token that was revoked, no session."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete, select
from sqlmodel import col

from tests.client_kit import company_terms
from tests.company_kit import REDIRECT, CompanyKit, new_key, public
from tests.http_kit import PURPOSE, Caller, House, await_sequencer, serving, session_of
from tests.site_kit import app_settings, operate, put_back_by_hand, restore
from vault.app import create_app
from vault.clock import SystemClock, unix_s
from vault.encoding import b64u, parse_b64u
from vault.evidence.auditors import list_auditors, register_auditor
from vault.oauth import families
from vault.oauth.families import Family
from vault.oauth.models import authorization
from vault.ops.archive import back_up
from vault.ops.site import Site
from vault.parties import companies
from vault.parties.companies import CompanyId, CompanyStatus
from vault.parties.models import CompanyRecordRow
from vault.proof.jose import BadJws, Thumbprint, read_jwk
from vault.seal.ids import VaultId, new_id
from vault.seal.person import Role, SignIn, sign_sign_in
from vault.seal.signing import SigningKey, new_seed

NOW = SystemClock().now()
AGAIN = "companies_suspended", "companies_rotated", "companies_registered", "companies_lost"


@dataclass
class Moved:
    """A site that was backed up before companies changed keys, and tokens, sessions and challenges were used up."""

    site: Site
    backup: Path
    token: str
    family: Family
    refresh: str
    session: dict[str, str]
    answer: bytes
    vault: VaultId
    kits: dict[str, CompanyKit]

    def client(self) -> TestClient:
        return TestClient(create_app(app_settings(self.site)))

    def refuses(self, client: TestClient) -> tuple[bool, bool, bool]:
        """Say whether a revoked token, an ended session and an answered challenge are refused."""
        try:
            client.app.state.company_gate.tokens.verify(self.token, now=SystemClock().now())  # type: ignore[attr-defined]
            token = False
        except BadJws:
            token = True
        url = f"/v1/vaults/{b64u(self.vault)}"
        session = client.get(f"{url}/consents", headers=self.session).status_code == 401
        answered = client.post("/v1/sessions", content=self.answer).status_code == 401
        return token, session, answered


def _rotated(kit: CompanyKit, version: int) -> tuple[CompanyKit, str]:
    """Give a company new keys; return it with the record that the former question key signs."""
    after = replace(kit, name=f"{kit.name} {version}")
    after.company_id, after.auth, after.question, after.dpop = kit.company_id, new_key(), new_key(), kit.dpop
    return after, after.record(NOW, signer=kit.question, version=version)


def _live(house: House, backup: Path) -> Moved:
    kits = {name: CompanyKit(name=name) for name in ("Kept", "Hasty", "New", "Test")}

    def register(name: str, *, sandbox: bool = False) -> None:
        with house.database.transaction() as session:
            companies.register(session, kits[name].record(NOW), now=NOW, sandbox=sandbox)

    def rotate(*names: str) -> None:
        with house.database.transaction() as session:
            for name in names:
                version = companies.get(session, kits[name].company_id).version + 1
                kits[name], record = _rotated(kits[name], version)
                companies.rotate(session, record, now=NOW)
            hasty = col(CompanyRecordRow.company_id) == kits["Hasty"].company_id  # of which one is lost
            session.connection().execute(delete(CompanyRecordRow).where(hasty, col(CompanyRecordRow.version) == 2))

    owner, shop = house.owner(), Caller(house, house.company("Shop", redirect_uris=[REDIRECT]))
    for name in ("Kept", "Hasty"):
        register(name)
    family = Family(new_id(), CompanyId(kits["Kept"].company_id), house.consent(owner, shop.company), 2**40)
    with house.database.transaction() as session:
        refresh = families.begin(session, family, now=NOW)
    terms = replace(company_terms(shop.company, owner), purposes=frozenset({PURPOSE}), quota_per_month=50)
    shop.company.request_consent(terms)
    with house.database.transaction() as session:
        register_auditor(session, "Audit", SigningKey(new_seed()).public_key, NOW + timedelta(days=30))
    token, owners = shop.token(), session_of(owner)
    challenge = house.http.post("/v1/challenges", json={"vault": b64u(owner.vault), "role": "owner"}).json()
    nonce = parse_b64u(challenge["nonce"])
    answer = sign_sign_in(owner._keys.signer, SignIn(owner.vault, Role.OWNER, None, nonce, house.url))
    back_up(house.service.site, backup)
    assert house.http.post("/v1/sessions", content=answer.encoded).status_code == 200
    with house.database.transaction() as session:
        families.end(session, family.family_id, now=NOW)
    rotate("Kept")
    rotate("Hasty", "Hasty")
    register("New")
    await_sequencer(house.database)
    rotate("New")
    register("Test", sandbox=True)
    await_sequencer(house.database)
    return Moved(house.service.site, backup, token, family, refresh, owners, answer.encoded, owner.vault, kits)


@pytest.fixture
def moved(urls: tuple[str | None, str | None], tmp_path: Path) -> Moved:
    with serving(tmp_path / "house", *urls) as house:
        return _live(house, tmp_path / "backup")


def _verify(moved: Moved, told: dict[str, Any]) -> None:
    kits = moved.kits
    assert [told[name] for name in AGAIN] == [0, 4, [kits["New"].company_id], [kits["Test"].company_id]]
    assert told["auditors_ended"] == 1
    database, short_keys = moved.site.databases()
    with database.snapshot() as session:
        assert [one.not_after_s <= unix_s(SystemClock().now()) for one in list_auditors(session)] == [True]
        found = {name: companies.find(session, kit.company_id) for name, kit in kits.items()}
        assert families.find(session, moved.refresh, moved.family.company_id, now=NOW) is None
        assert session.connection().execute(select(authorization)).all() == []
    database.close()
    short_keys.close()
    kept, hasty, new = (found[name] for name in ("Kept", "Hasty", "New"))
    assert kept is not None
    assert hasty is not None
    assert new is not None
    assert found["Test"] is None
    assert (kept.status, kept.question_key) == (CompanyStatus.ACTIVE, read_jwk(public(kits["Kept"].question)))
    assert hasty.status is CompanyStatus.SUSPENDED
    assert (new.version, new.status) == (2, CompanyStatus.SUSPENDED)


def test_no_key_token_or_session_that_was_taken_away_since_is_good_again(moved: Moved) -> None:
    with moved.client() as client:
        assert moved.refuses(client) == (False, False, True), "the service knows what it revoked; others are good"
    for _ in range(2):  # as often as it takes
        _verify(moved, restore(moved.site, moved.backup))
        with moved.client() as client:
            assert client.get("/readyz").status_code == 200
            assert moved.refuses(client) == (True, True, True)
            tokens, later = client.app.state.company_gate.tokens, SystemClock().now() + timedelta(seconds=2)  # type: ignore[attr-defined]
            issued = tokens.issue(moved.family.company_id, Thumbprint("key"), None, now=later)
            assert tokens.verify(issued, now=later).company_id == moved.family.company_id
    new = moved.kits["New"].company_id
    told = operate(["restore", str(moved.backup), "--site", str(moved.site.folder), "--replace"])
    assert f"companies reinstate {new}" in told.stdout
    assert f"{moved.kits['Test'].company_id} was registered since and is not here" in told.stdout


@pytest.mark.parametrize("urls", ["sqlite"], indirect=True)
def test_nor_is_it_in_a_copy_that_is_put_back_by_hand(moved: Moved, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vault.app.follow_keys", lambda _: None)  # from the first request on, not from its first turn
    put_back_by_hand(moved.site, moved.backup)
    with moved.client() as client:
        assert client.get("/readyz").status_code == 200
        assert moved.refuses(client) == (True, True, True)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["put back", "ended", "repeated", "committed"])
def test_a_restore_that_is_killed_is_made_good_by_the_next(moved: Moved, point: str) -> None:
    child = [sys.executable, "-m", "tests.ops.restore_child", str(moved.site.folder), str(moved.backup), point]
    run = subprocess.run(child, check=False, timeout=300)
    assert run.returncode == -signal.SIGKILL
    if point != "put back":  # before, the database says nothing about itself; its log and anchor do
        with moved.client() as client:
            assert client.get("/readyz").status_code in {200, 503}
            frozen = client.app.state.frozen is not None  # type: ignore[attr-defined]
            assert frozen or moved.refuses(client) == (True, True, True)
    _verify(moved, restore(moved.site, moved.backup))
