"""A change is acknowledged only once it is logged and the keys it took away are gone."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.consent_kit import NOW, World
from tests.vault_kit import begin
from vault.consent.routes import consent_router
from vault.consent.versions import Submission
from vault.db import Database
from vault.encoding import b64u, parse_b64u, parse_json
from vault.http.problems import install_problems
from vault.parties.caller import OwnerCaller
from vault.parties.routes import _owner
from vault.proof.checkpoint import verify_checkpoint
from vault.proof.leaf import Opening, Part, verify_opening
from vault.proof.merkle import leaf_hash, verify_inclusion
from vault.proof.note import VerifierKey
from vault.proof.receipt import parse_receipt
from vault.schema.consent import ConsentEvent, ConsentVersion
from vault.schema.terms import ConsentKind
from vault.seal.signing import SigningKey, new_seed
from vault.tlog.errors import LogBusy
from vault.tlog.sequencer import Sequencer

ORIGIN = "log.example/consents"


class FixedClock:
    """Always the same moment."""

    def now(self) -> Any:
        return NOW


class Site:
    """The consent routes over HTTP with a running log, signed in as the world's owner."""

    def __init__(self, world: World) -> None:
        key = SigningKey(new_seed())
        self.world = world
        self.log = VerifierKey(ORIGIN, key.public_key)
        self.sequencer = Sequencer(world.database, self.log, key.sign)
        self.caller = world.owner.caller
        app = FastAPI()
        install_problems(app)
        app.state.database, app.state.clock, app.state.custody = world.database, FixedClock(), world.custody
        app.state.sequencer, app.state.settings = self.sequencer, SimpleNamespace(checkpoint_wait_s=30.0)
        app.include_router(consent_router)
        app.dependency_overrides[_owner] = lambda: self.caller
        self.app = app
        self.client = TestClient(app)
        self.path = f"/v1/vaults/{b64u(world.owner.vault)}/consents"

    def send(self, path: str, submission: Submission) -> Any:
        body: dict[str, Any] = {
            "envelope": b64u(submission.envelope.encoded),
            "handovers": [b64u(item) for item in submission.handovers],
            "certificate": b64u(submission.certificate.encoded) if submission.certificate else "",
            "request": submission.request,
        }
        return self.client.post(path, json=body)

    def give(self, kind: ConsentKind = ConsentKind.COMPANY) -> tuple[ConsentVersion, Any]:
        version, request = self.world.first(kind)
        return version, self.send(self.path, self.world.submission(version, request))

    def append(self, version: ConsentVersion) -> Any:
        return self.send(f"{self.path}/{b64u(version.consent_id)}/versions", self.world.submission(version))

    def verified(self, answer: Any) -> dict[str, Any]:
        """Check the receipt as a client does and return the leaf's personal part."""
        sent = answer["receipt"]
        entry = parse_b64u(sent["entry"])
        receipt = parse_receipt(sent["proof"])
        checkpoint = verify_checkpoint(receipt.checkpoint, self.log, ORIGIN)
        assert receipt.index == sent["index"]
        verify_inclusion(leaf_hash(entry), receipt.index, checkpoint.size, receipt.proof, checkpoint.root)
        opening = Opening(parse_b64u(sent["personal"]["salt"]), parse_b64u(sent["personal"]["body"]))
        return verify_opening(entry, Part.PERSONAL, opening)


@pytest.fixture
def site(sqlite_database: Database, shortkeys: Database) -> Iterator[Site]:
    site = Site(World(sqlite_database, shortkeys))
    site.sequencer.start()
    yield site
    site.sequencer.stop()


def short_keys(world: World) -> int:
    with world.shortkeys.snapshot() as session:
        count = session.connection().execute(sqlalchemy.text("SELECT count(*) FROM short_key")).scalar_one()
    return int(count)


def test_a_consent_lives_and_ends_with_receipts(site: Site) -> None:
    before = short_keys(site.world)
    first, answer = site.give(ConsentKind.SELF)
    assert answer.status_code == 201, answer.text
    assert site.verified(answer.json())["record"] == b64u(site.world.signed(first).digest)
    assert short_keys(site.world) == before + 2
    second = site.world.next(first, ConsentEvent.NARROWED)
    assert site.append(second).status_code == 201
    assert short_keys(site.world) == before + 2
    withdrawn = site.append(site.world.next(second, ConsentEvent.WITHDRAWN))
    assert withdrawn.status_code == 201, withdrawn.text
    personal = site.verified(withdrawn.json())
    assert (personal["version"], personal["consent_seq"]) == (3, 3)
    assert withdrawn.json()["new_epoch_needed"] == ["pd:Purchase"]
    assert short_keys(site.world) == before
    assert site.world.forgotten == [first.consent_id] * 3
    listed = site.client.get(site.path).json()["consents"]
    assert [(item["event"], item["live"], len(item["versions"])) for item in listed] == [("withdrawn", False, 3)]


def test_nothing_is_acknowledged_while_the_log_stands_still(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = site.give()

    def busy(*_: object) -> int:
        raise LogBusy

    monkeypatch.setattr(site.sequencer, "wait", busy)
    answer = site.append(site.world.next(first, ConsentEvent.WITHDRAWN))
    assert answer.status_code == 503
    assert site.client.get(site.path).json()["consents"][0]["live"] is False  # recorded all the same


def test_only_the_owner_of_the_vault_is_served(site: Site) -> None:
    first, _ = site.give()
    stranger = begin(site.world.database, site.world.shortkeys)[0]
    site.caller = OwnerCaller(stranger.vault)
    assert site.client.get(site.path).status_code == 404
    assert site.append(site.world.next(first, ConsentEvent.WITHDRAWN)).status_code == 404
    own = f"/v1/vaults/{b64u(stranger.vault)}/consents/{b64u(first.consent_id)}/versions"
    submission = site.world.submission(site.world.next(first, ConsentEvent.WITHDRAWN))
    assert site.send(own, submission).status_code == 404
    assert site.client.get(f"/v1/vaults/{b64u(stranger.vault)}/consents").json() == {"consents": []}


def test_without_a_session_nothing_is_served(site: Site) -> None:
    site.app.dependency_overrides.clear()
    assert site.client.get(site.path).status_code == 401


def test_a_version_goes_to_its_own_consent_and_route(site: Site) -> None:
    first, _ = site.give()
    withdrawn = site.world.submission(site.world.next(first, ConsentEvent.WITHDRAWN))
    assert site.send(f"{site.path}/{b64u(b'x' * 16)}/versions", withdrawn).status_code == 404
    assert site.send(site.path, withdrawn).json()["type"] == "/problems/bad-consent"
    again = site.world.submission(first)
    assert site.send(f"{site.path}/{b64u(first.consent_id)}/versions", again).json()["type"] == "/problems/bad-consent"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"envelope": ""},
        {"envelope": "A"},
        {"envelope": "AAAA"},
        {"envelope": 7},
        {"envelope": "AAAA", "handovers": ["A"] * 3},
        {"envelope": "AAAA", "handovers": ["!"]},
        {"envelope": "A" * 100_000},
    ],
    ids=range(8),
)
def test_malformed_bodies_are_refused(site: Site, body: dict[str, Any]) -> None:
    answer = site.client.post(site.path, json=body)
    assert 400 <= answer.status_code < 500
    assert parse_json(answer.content)["type"]
