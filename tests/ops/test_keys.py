"""Every key rolls over while the service serves: nothing given is lost, and the old keys end up destroyed."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.client_kit import company_terms, purchases
from tests.http_kit import QUESTION, Caller, House, await_sequencer, new_databases, serving
from tests.ops import rollover_child
from tests.site_kit import operate, worker_settings
from twinvault.cli import common
from twinvault.cli.legacy import legacy_commands
from twinvault.cli.notices import notice_commands
from twinvault.legacy import OwnLegacy
from vault.app import follow_keys
from vault.clock import Clock, SystemClock
from vault.consent import changes
from vault.keys import operator as operator_keys
from vault.keys import rollover
from vault.keys.kms import LocalKeyring
from vault.ops.doctor import examine
from vault.ops.site import Site
from vault.proof.bundle import parse_bundle
from vault.schema.category import Purpose
from vault.schema.consent import ConsentEvent
from vault.seal.handover import KeyKind
from vault.seal.ids import ID_BYTES
from vault.seal.legacy import Choice
from vault.seal.statement import KeyName
from vault.twin.children import Children
from vault.worker import follow_keys as worker_follows
from vault.worker import open_worker, run_once

ROTATED = ("processor", "processor-sign", "serving", "service")


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    urls: tuple[str | None, str | None] = (None, None)
    if request.param == "postgresql":
        urls = new_databases(request.getfixturevalue("postgresql_server"))
    monkeypatch.setattr(operator_keys, "LEAD_S", 0)
    monkeypatch.setattr(rollover, "GRACE_S", 0)
    monkeypatch.setattr("vault.app._KEYS_EVERY_S", 10**6)  # each test says itself when the app looks
    with serving(tmp_path, *urls) as found:
        yield found


def run(site: Site, *args: str) -> Result:
    return operate([*args, "--site", str(site.folder)])


def shown(site: Site) -> dict[str, tuple[int, list[str], int]]:
    rows = json.loads(run(site, "keys", "show", "--json").stdout)["keys"]
    return {row["name"]: (row["epoch"], row["former"], row["left"]) for row in rows}


def held(site: Site) -> set[str]:
    return {path.name for part in ("app", "worker") for path in (site.folder / "keys" / part).iterdir()}


def test_all_keys_roll_over_under_a_serving_app_and_worker(house: House) -> None:
    site, owner = house.service.site, house.owner_with_twin((1,))
    shop = Caller(house, house.company())
    consent = house.consent(owner, shop.company)
    token, question_id = shop.token(consent), secrets.token_bytes(ID_BYTES)
    before = shop.ask(consent, QUESTION, question_id, token=token)
    assert before.status_code == 200, before.text

    for name in ROTATED:
        assert json.loads(run(site, "keys", "rotate", name, "--json").stdout) == {
            "name": name,
            "epoch": 2,
            "legacies_spent": 0,
        }
    assert shown(site)["serving"] == (2, ["serving/1"], 2)  # the self consent's and the company's
    assert shown(site)["processor"] == (2, ["processor/1"], 1)

    # The app has not noticed: it answers, and an owner who still knows the former key gives without noticing.
    assert shop.ask(consent, token=token).status_code == 200
    asked = len(house.sent.sent)
    second = house.consent(owner, house.company("Other"))
    given = [r for r in house.sent.sent[asked:] if r.method == "POST" and r.url.path.endswith("/consents")]
    assert len(given) == 2  # refused once as sealed to a former key, then sealed anew

    state = house.service.app.state
    follow_keys(state)
    assert shop.ask(consent, token=token).status_code == 200  # of the former service key, while its tokens last
    repeated = shop.ask(consent, QUESTION, question_id, token=token)
    assert repeated.status_code == 200, repeated.text
    first, again = parse_bundle(before.content), parse_bundle(repeated.content)
    assert first.records.items() <= again.records.items()  # the same answer, which is locked under the next key now
    fresh = Caller(house, shop.company)
    assert fresh.ask(consent, token=fresh.token(consent)).status_code == 200
    assert shown(site)["serving"] == (2, [], 0)

    settings = worker_settings(site)
    former = LocalKeyring(settings.worker_keyring).public_key("processor-sign/1")
    with Children() as children, open_worker(settings, children, SystemClock()) as worker:
        worker = worker_follows(worker, settings)  # noqa: PLW2901
        assert worker.signer.public_key == LocalKeyring(settings.worker_keyring).public_key("processor-sign/2")
        assert set(worker.row_keys) == {former, worker.signer.public_key}  # rows outlive the key that signed them
        owner.import_traces(purchases(5, month=2))
        owner.refresh()
        assert run_once(worker)
    assert {row["period"] for row in owner.twin()["releases"]} == {"2026-01", "2026-02"}, owner.twin()
    assert shop.ask(consent, token=token).status_code == 200  # from rows that the next processor-sign key signed
    expected = {f"{name}.2.key" for name in ROTATED} | {"processor.2.wrapped", "serving.2.wrapped", "log.key"}
    assert held(site) == expected
    assert all(row[1:] == ([], 0) for row in shown(site).values())
    assert run(site, "doctor").exit_code == 0

    (handed,) = owner.handed_over(consent)
    assert (handed.epochs, len(handed.indexes)) == ((1, 2), 2)
    assert {item.keys: item.epochs for item in owner.handed_over(owner.self_consent().id)} == {  # type: ignore[union-attr]
        KeyKind.RAW: (2,), KeyKind.IMPRINT: (2,),
    }  # fmt: skip  # the import renewed it, which begins a new chain

    # What the service signs now is believed, and consents live on.
    with house.database.transaction() as session:
        changes.end(session, second, ConsentEvent.REVOKED, service=state.service, now=SystemClock().now())
    known = {item.id: item for item in owner.consents()}
    assert (known[consent].live, known[second].live) == (True, False)
    owner.withdraw(consent)
    assert shop.ask(consent, token=token).status_code != 200


@pytest.mark.parametrize("house", ["sqlite"], indirect=True)
def test_a_rollover_is_finished_before_the_next_begins_and_resumed_where_it_broke_off(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, state = house.service.site, house.service.app.state
    monkeypatch.setattr("vault.keys.operator.sign_key_statement", lambda *_: 1 / 0)
    assert isinstance(run(site, "keys", "rotate", "serving").exception, ZeroDivisionError)
    assert {"serving.2.key", "serving.2.wrapped"} <= held(site)
    monkeypatch.undo()
    monkeypatch.setattr(operator_keys, "LEAD_S", 0)
    monkeypatch.setattr(rollover, "GRACE_S", 10**6)
    made = LocalKeyring(site.keyring_folder(KeyName.SERVING))
    assert made.epochs("serving") == [1, 2]
    assert run(site, "keys", "rotate", "serving").exit_code == 0
    assert made.epochs("serving") == [1, 2]
    follow_keys(state)
    refused = run(site, "keys", "rotate", "serving")
    assert refused.exit_code == 1
    assert "not over" in refused.stderr
    monkeypatch.setattr(rollover, "GRACE_S", 0)
    follow_keys(state)
    assert made.epochs("serving") == [2]
    made_again = operate(["init", str(site.folder), "--issuer", house.url, "--log-origin", "test.example/log"])
    assert made_again.exit_code == 0, made_again.output
    assert made.epochs("serving") == [2]
    assert run(site, "keys", "rotate", "log").exit_code == 1
    assert run(site, "keys", "rotate", "nonsense").exit_code == 2
    (site.folder / "keys/operator").rename(site.folder / "elsewhere")
    offline = run(site, "keys", "rotate", "service")
    assert "keyring folder does not exist" in offline.stderr
    back = run(site, "keys", "rotate", "service", "--operator-keyring", str(site.folder / "elsewhere"))
    assert back.exit_code == 0, back.stderr


@pytest.mark.slow
def test_a_rollover_killed_anywhere_goes_on_where_it_was(house: House) -> None:
    site, owner = house.service.site, house.owner_with_twin((1,))
    shop = Caller(house, house.company())
    consent = house.consent(owner, shop.company)
    assert shop.ask(consent).status_code == 200
    for point, (act, *_) in rollover_child.POINTS.items():
        if act is not rollover_child.rotate:
            rollover_child.rotate(site)
        command = [sys.executable, "-m", "tests.ops.rollover_child", str(site.folder), point]
        died = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert died.returncode == -signal.SIGKILL, (point, died.stderr[-2000:])
        # The same commands and the next turn of app and worker, without anybody's help.
        rollover_child.rotate(site)
        follow_keys(house.service.app.state)
        rollover_child.follow_as_worker(site)
        rows = shown(site)
        assert all(row[1:] == ([], 0) for row in rows.values()), (point, rows)
        assert shop.ask(consent, token=shop.token(consent)).status_code == 200, point
        (held_under,) = owner.handed_over(consent)
        assert held_under.epochs[-1] == rows["serving"][0], point
        with house.database.snapshot() as session:
            left = session.connection().exec_driver_sql("SELECT count(*) FROM short_key_deletion").scalar_one()
        assert left == 0, point
    owner.refresh()
    house.work()
    assert owner.twin()["releases"]


class Earlier:
    """The owner's clock, some seconds slow: a plan and a rollover of the same second cannot be told apart."""

    def now(self) -> datetime:
        return SystemClock().now() - timedelta(seconds=5)


@pytest.mark.parametrize("house", ["sqlite"], indirect=True)
def test_an_owner_is_told_that_what_was_sealed_in_advance_is_spent(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, owner, company = house.service.site, house.owner(), house.company()
    purpose = frozenset({Purpose("dpv:ProvideProductRecommendations")})
    asked = owner.read_request(company.sign_request(company_terms(company, owner, post_mortem=purpose)))

    def plan(clock: Clock) -> OwnLegacy:
        owner.legacy._clock = clock
        sealed = [owner.seal(asked, owner.for_after_death(asked))]
        owner.legacy.plan(threshold=2, shares=2, waiting_days=7, choice=Choice.ANSWER, sealed=sealed)
        owner.legacy._clock = SystemClock()
        found = owner.legacy.read()
        assert found is not None
        return found

    monkeypatch.setattr(common, "unlock_owner", lambda *_, **__: owner)
    assert plan(Earlier()).spent == 0
    assert "Make a new plan" not in CliRunner().invoke(notice_commands, []).stderr

    def told_by_the_server() -> list[str]:
        await_sequencer(house.database)
        return [said for notice in owner.history() if "sealed consents in advance" in (said := notice["sentence"])]

    def doctor() -> str:
        return next(one.detail for one in examine(site, SystemClock().now()) if one.name == "legacies")

    assert (told_by_the_server(), doctor()) == ([], "nothing that was sealed in advance is spent")
    told = json.loads(run(site, "keys", "rotate", "serving", "--json").stdout)
    assert told["legacies_spent"] == 1
    assert json.loads(run(site, "keys", "rotate", "service", "--json").stdout)["legacies_spent"] == 0
    follow_keys(house.service.app.state)
    found = owner.legacy.read()
    assert found is not None
    assert found.spent == 1
    assert doctor().startswith("1 plans hold consents that were sealed in advance")
    assert len(told_by_the_server()) == 1
    for shown in (CliRunner().invoke(notice_commands, []), CliRunner().invoke(legacy_commands, ["show"])):
        assert "1 consents that you sealed in advance" in shown.output
    assert plan(SystemClock()).spent == 0
    assert doctor() == "nothing that was sealed in advance is spent"
    assert len(told_by_the_server()) == 1
