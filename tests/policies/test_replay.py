"""Stored decisions are decided again by another build of Cedar, in another language, from the bytes alone."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.answer_kit import REFRESH_WINDOW, Service, answer_in, running
from tests.consent_kit import World
from tests.policies.draw import random_record
from tests.policies.life import LOCATION, NOT_ASKED, Life, read_decisions
from tests.policy_kit import refresh_permit, train_permit, use
from tests.twin.test_release import trained
from tests.vault_kit import PURCHASE
from vault.clock import unix_s
from vault.consent import exposure
from vault.db import Database
from vault.encoding import dump_json, parse_json
from vault.oauth.resource import CompanyGate
from vault.policy.permits import Forbidden, decide_refresh, decide_train
from vault.proof.decision import evaluate, load_shipped_policy_set, parse_policy_set
from vault.proof.decision_record import dump_decision, parse_decision
from vault.schema.category import Purpose
from vault.schema.terms import ConsentKind
from vault.schema.trace import Period
from vault.twin import release

pytestmark = pytest.mark.needs_npm

HERE = Path(__file__).parent
SHIPPED = load_shipped_policy_set()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script and the package that it needs."""
    folder = tmp_path_factory.mktemp("replay")
    for name in ("replay.mjs", "package.json"):
        shutil.copy(HERE / name, folder)
    npm = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
    subprocess.run(npm, cwd=folder, check=True, timeout=300)
    return folder


def replay(node: Path, source: bytes, stored: list[bytes]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    lines = b"\n".join([source, *stored]) + b"\n"
    run = subprocess.run(["node", "replay.mjs"], cwd=node, input=lines, capture_output=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr.decode()
    prepared, *decided = map(json.loads, run.stdout.splitlines())
    return prepared, decided


@pytest.fixture
def service(sqlite_database: Database, shortkeys: Database, tmp_path: Path) -> Iterator[Service]:
    made = Service(sqlite_database, shortkeys, categories=(PURCHASE, LOCATION), keyring=tmp_path / "keyring")
    made.release_model()
    made.put_rows("completejourney:bread")
    with running(made) as found:
        yield found


def test_1000_decisions_of_a_running_service_replay_alike(
    node: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(service, random.Random(20261126))
    for limit, at_most in (("STIMULI", 5), ("CANDIDATES", 5), ("VARIATIONS", 3), ("STIMULI", 1000)):
        with monkeypatch.context() as patch:
            patch.setattr(exposure, f"{limit}_PER_MONTH", at_most)
            life.ask(250)
    source, logged = read_decisions(service)
    assert len(logged) == 1000
    prepared, decided = replay(node, source, [record for record, _, _ in logged])
    assert prepared["rules"] == list(SHIPPED.rules)
    assert decided == [
        {"decision": "allow" if allowed else "deny", "reasons": rules, "errors": 0} for _, allowed, rules in logged
    ]
    assert 100 < sum(allowed for _, allowed, _ in logged) < 900
    reasons = {rule for _, _, rules in logged for rule in rules}
    assert set(SHIPPED.rules) - reasons == NOT_ASKED.keys(), "kinds of decision that nobody asked for"


def test_what_gets_past_an_earlier_check_is_denied_stored_and_replays_alike(
    node: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rules behind checks that refuse before anything is decided: with each check gone, its rule denies alone."""
    lasting = {"not_after": unix_s(service.clock.at + timedelta(days=600)), "quota_per_month": 900}
    consent, own = service.consent(**lasting), service.give(ConsentKind.SELF, **REFRESH_WINDOW, **lasting)
    backbone, manifest = trained()
    with service.database.transaction() as session:
        release.publish(session, backbone, manifest, service.worker_key)
    answer_in(service.ask(consent))

    def asked(expected: dict[int, int]) -> None:
        found = Counter(service.ask(consent).status_code for _ in range(5))
        found += Counter(service.ask_own(own).status_code for _ in range(5))
        assert found == expected
        service.clock.at += timedelta(minutes=2)  # no flood

    with monkeypatch.context() as patch:  # a token that is not bound to its sender's key
        admitted = CompanyGate.caller
        patch.setattr(
            CompanyGate, "caller", lambda *what, **how: replace(admitted(*what, **how), sender_constrained=False)
        )
        asked({403: 5, 200: 5})
    service.clock.at += timedelta(days=401)
    asked({409: 10})  # the certificate lapsed, and nothing is decided
    with monkeypatch.context() as patch:
        patch.setattr(release, "_verify_certificate", lambda *_: None)
        asked({403: 10})
        patch.setattr(
            CompanyGate, "caller", lambda *what, **how: replace(admitted(*what, **how), sender_constrained=False)
        )
        asked({403: 10})
    source, logged = read_decisions(service)
    denied = Counter(tuple(rules) for _, allowed, rules in logged if not allowed)
    bearer, model = "bearer-token", "model-without-certificate"
    assert denied == {(bearer,): 5, (model,): 15, (bearer, model): 5}
    _, decided = replay(node, source, [record for record, _, _ in logged])
    assert decided == [
        {"decision": "allow" if allowed else "deny", "reasons": rules, "errors": 0} for _, allowed, rules in logged
    ]


def test_what_the_worker_decides_replays_alike(node: Path, sqlite_database: Database, shortkeys: Database) -> None:
    world = World(sqlite_database, shortkeys)
    own, cohort = world.give(ConsentKind.SELF), world.give(ConsentKind.COHORT)
    permits = [refresh_permit(world, own), train_permit(world, cohort)]
    denials = []
    for version, decide in ((own, decide_refresh), (cohort, decide_train)):
        for beyond in ({"data_from": Period("2020-01")}, {"purpose": Purpose("dpv:Marketing")}):
            with pytest.raises(Forbidden) as refused:
                decide(use(world, version, **beyond), SHIPPED)
            denials.append(refused.value)
    _, decided = replay(node, SHIPPED.source, [*(one.decision for one in permits), *(one.record for one in denials)])
    assert decided == [
        *({"decision": "allow", "reasons": list(one.rules), "errors": 0} for one in permits),
        *({"decision": "deny", "reasons": list(one.rules), "errors": 0} for one in denials),
    ]
    reasons = {rule for one in [*permits, *denials] for rule in one.rules}
    assert reasons == {"permit-refresh", "permit-train", "outside-data-window", "purpose-not-covered"}


def test_1000_drawn_decisions_replay_alike(node: Path) -> None:
    rng = random.Random(20261123)
    stored = [dump_json(dump_decision(random_record(rng, SHIPPED))) for _ in range(1000)]
    prepared, decided = replay(node, SHIPPED.source, stored)
    assert prepared["rules"] == list(SHIPPED.rules)
    ours = [evaluate(parse_decision(parse_json(record)), parse_policy_set(SHIPPED.source)) for record in stored]
    assert decided == [
        {"decision": "allow" if one.allowed else "deny", "reasons": list(one.reasons), "errors": 0} for one in ours
    ]
    assert 100 < sum(one.allowed for one in ours) < 900
    assert {reason for one in ours for reason in one.reasons} == set(SHIPPED.rules)


def test_what_cannot_be_evaluated_here_fails_there_too(node: Path) -> None:
    record: Any = dump_decision(random_record(random.Random(1), SHIPPED))
    broken = [
        {**record, "context": {**record["context"], "now": "1"}},
        {**record, "context": {**record["context"], "more": 1}},
        {**record, "context": {name: value for name, value in record["context"].items() if name != "purpose"}},
        {**record, "entities": [{**record["entities"][0], "attrs": {}}, *record["entities"][1:]]},
    ]
    for one in broken:
        assert evaluate(parse_decision(one), SHIPPED).fault is not None
    _, decided = replay(node, SHIPPED.source, [dump_json(one) for one in broken])
    assert decided == [{"decision": "failure"}] * len(broken)
