"""What an owner sees of the twin over HTTP, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.twin.lens_kit import later, lens_of, release_trained, seen_through, with_habits
from tests.twin.worker_kit import OCTOBER, RETAIL, RETAIL_DAILY, SEPTEMBER, TwinWorld
from tests.vault_kit import MONTH, NOW, PURCHASE
from vault.encoding import b64u
from vault.http.problems import install_problems
from vault.imprint.block import DAILY, LATE
from vault.imprint.features import Cadence
from vault.imprint.lens import unit_of
from vault.parties.caller import OwnerCaller
from vault.parties.routes import caller_of
from vault.schema.freshness import Freshness
from vault.schema.trace import Period
from vault.seal.ids import VaultId, new_id
from vault.twin import routes, rows
from vault.twin.children import Children
from vault.twin.levels import MONTH_DAYS, read_level
from vault.twin.routes import twin_router


@pytest.fixture
def client(world: TwinWorld) -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(twin_router)
    install_problems(app)
    app.state.database, app.state.clock = world.database, world.clock
    app.state.settings = SimpleNamespace(cadence="daily")
    app.dependency_overrides[caller_of] = lambda: OwnerCaller(world.owner.vault)
    with TestClient(app, raise_server_exceptions=False) as running:
        yield running


def test_an_owner_asks_and_then_sees_rows_and_what_they_cost(world: TwinWorld, client: TestClient) -> None:
    address = f"/v1/vaults/{b64u(world.owner.vault)}"
    refused = client.post(f"{address}/refresh")
    assert (refused.status_code, refused.json()["type"].rsplit("/", 1)[-1]) == (409, "no-self-consent")
    version = world.keep_twin()
    asked = client.post(f"{address}/refresh")
    assert asked.status_code == 202
    assert client.post(f"{address}/refresh").json() == asked.json()
    before = client.get(f"{address}/twin").json()
    assert before["job"] == {**asked.json(), "state": "queued", "reason": ""}
    assert before["releases"] == before["spending"] == []
    with Children() as children:
        world.refresh(children, version)
    after = client.get(f"{address}/twin").json()
    assert [(row["category"], row["period"], row["map"]) for row in after["releases"]] == [
        (PURCHASE, SEPTEMBER, b64u(RETAIL.digest)),
        (PURCHASE, OCTOBER, b64u(RETAIL.digest)),
    ]
    assert [cost["period"] for cost in after["spending"]] == [SEPTEMBER, OCTOBER]
    for cost in after["spending"]:
        assert 2.9 < cost["day"] <= 3.0
        assert (cost["person"], cost["composed"]) == (0.0, cost["day"])


def test_daily_rows_are_shown_with_their_days_their_cost_and_their_noise(world: TwinWorld, client: TestClient) -> None:
    world.cadence = Cadence.DAILY
    with Children() as children:
        world.refresh(children, world.keep_twin())
    address = f"/v1/vaults/{b64u(world.owner.vault)}"
    seen = client.get(f"{address}/twin").json()
    assert [(row["period"], row["mechanism"], row["first"], row["days"]) for row in seen["releases"]] == [
        (SEPTEMBER, DAILY, "2026-09-01", 30),
        (SEPTEMBER, LATE, "2026-09-01", 30),
        (OCTOBER, DAILY, "2026-10-01", 31),
        (MONTH, DAILY, "2026-11-01", 20),
    ]
    level = read_level(RETAIL_DAILY, world.blocks(), NOW.date())
    assert level is not None
    (noise,) = seen["noise"]
    assert (noise["category"], noise["map"]) == (PURCHASE, b64u(RETAIL_DAILY.digest))
    assert noise["sd"] == pytest.approx(level.sigma / MONTH_DAYS / RETAIL_DAILY.content)
    budget = client.get(f"{address}/budget").json()
    assert [month["period"] for month in budget["months"]] == [SEPTEMBER, OCTOBER, MONTH]
    assert all(2.9 < month["day"] <= 3.0 for month in budget["months"])


def test_an_owner_chooses_when_days_close_and_sees_it(
    world: TwinWorld, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        routes, "require_still", lambda *_: None
    )  # there is no session: tests/attacks/test_successions.py
    address = f"/v1/vaults/{b64u(world.owner.vault)}"
    # 23 November 2026 is a Monday; at noon the day before yesterday's midnight is less than 48 hours ago.
    expected = {
        "month": ("2026-10-31", "2026-11-30", datetime(2026, 12, 2, 23, tzinfo=UTC)),
        "week": ("2026-11-15", "2026-11-22", datetime(2026, 11, 24, 23, tzinfo=UTC)),
        "day": ("2026-11-20", "2026-11-21", datetime(2026, 11, 23, 23, tzinfo=UTC)),
    }
    for choice, (closed, following, at) in expected.items():
        said = {"choice": choice, "cadence": "daily", "closed": closed, "next": following, "at": int(at.timestamp())}
        assert client.put(f"{address}/freshness", json={"freshness": choice}).json() == said
        assert client.get(f"{address}/twin").json()["freshness"] == said
    client.app.state.settings.cadence = "monthly"  # type: ignore[attr-defined]
    closed, following, at = expected["month"]
    said = {"choice": "day", "cadence": "monthly", "closed": closed, "next": following, "at": int(at.timestamp())}
    assert client.get(f"{address}/twin").json()["freshness"] == said


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"freshness":"year"}', b'{"freshness":7}', b'{"freshness":null}', b'"day"',
             b'{"freshness":"day","also":1}', b'{"freshness":"DAY"}', b'{"freshness":["day"]}']
)  # fmt: skip
def test_what_is_no_choice_is_refused_and_changes_nothing(world: TwinWorld, client: TestClient, body: bytes) -> None:
    address = f"/v1/vaults/{b64u(world.owner.vault)}"
    world.choose(Freshness.WEEK)
    refused = client.put(f"{address}/freshness", content=body, headers={"content-type": "application/json"})
    assert (refused.status_code, refused.json()["type"].rsplit("/", 1)[-1]) == (422, "invalid-request")
    assert client.get(f"{address}/twin").json()["freshness"]["choice"] == "week"


def test_the_noise_of_days_seen_through_a_lens_is_stated_beside_that_of_plain_ones(
    world: TwinWorld, client: TestClient
) -> None:
    world.cadence = Cadence.DAILY
    world.extend(Period("2026-12"), Period("2027-01"))
    version = world.keep_twin(data_to=Period("2027-01"), not_after=int((NOW + timedelta(days=90)).timestamp()))
    model = with_habits()
    seen = seen_through(model)
    with Children() as children:
        world.refresh(children, version)
        for made in (model, later(model)):  # two that have one lens
            release_trained(world.database, made, world.worker_key)
        world.clock.at = NOW.replace(year=2027, month=1, day=20)
        world.refresh(children, version)
    shown = client.get(f"/v1/vaults/{b64u(world.owner.vault)}/twin").json()["noise"]
    assert [one["map"] for one in shown] == [b64u(RETAIL_DAILY.digest), b64u(seen.digest)]
    for one, mapped, content in zip(
        shown, (RETAIL_DAILY, seen), (RETAIL_DAILY.content, unit_of(lens_of(model), seen.clip)[0]), strict=True
    ):
        blocks = [block for block in world.blocks() if block.map_digest == mapped.digest]
        level = read_level(mapped, blocks, world.clock.at.date())
        assert level is not None
        assert one["sd"] == pytest.approx(level.sigma / MONTH_DAYS / content)


def test_the_budget_shows_every_charged_month_also_after_its_rows_are_gone(
    world: TwinWorld, client: TestClient
) -> None:
    address = f"/v1/vaults/{b64u(world.owner.vault)}/budget"
    untouched = client.get(address).json()
    assert untouched["caps"] == {"day": {"epsilon": 3.0, "delta": 1e-6}, "person": {"epsilon": 3.0, "delta": 1e-6}}
    assert untouched["months"] == [{"period": MONTH, "day": 0.0, "person": 0.0, "composed": 0.0}]
    with Children() as children:
        world.refresh(children, world.keep_twin())
    spent = client.get(address).json()
    assert [month["period"] for month in spent["months"]] == [SEPTEMBER, OCTOBER, MONTH]
    assert all(2.9 < month["day"] <= 3.0 for month in spent["months"][:2])
    with world.database.transaction() as session:
        rows.forget(session, world.owner.vault)
    assert client.get(address).json() == spent


def test_another_vaults_twin_is_not_shown(client: TestClient) -> None:
    for answer in (
        client.get(f"/v1/vaults/{b64u(VaultId(new_id()))}/twin"),
        client.get(f"/v1/vaults/{b64u(VaultId(new_id()))}/budget"),
        client.post(f"/v1/vaults/{b64u(VaultId(new_id()))}/refresh"),
        client.put(f"/v1/vaults/{b64u(VaultId(new_id()))}/freshness", json={"freshness": "day"}),
    ):
        assert answer.status_code == 404
