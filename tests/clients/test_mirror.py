"""The mirror: the twin's own answer beside the own traces, opened here and nowhere else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.client_kit import PURCHASE, Service, Tamper, purchases
from twinvault.api import Api
from twinvault.cli import common, main
from twinvault.mirror import DAILY, NoReflection, look
from twinvault.owner import Owner
from vault.encoding import b64u
from vault.imprint.features import feature_map
from vault.schema.category import Category
from vault.schema.terms import ConsentKind
from vault.schema.trace import Action, Period, Trace, dump_trace

HEALTH, CLICKED = Category("pd:Health"), Category("pd:LinkClicked")
BACON = "completejourney:bacon"


def told(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    """Run an owner's command; return the JSON that it prints."""
    with pytest.raises(SystemExit) as ended:
        main(["owner", *command, "--json"])
    out = capsys.readouterr().out
    assert ended.value.code in {None, 0}, out
    return json.loads(out)


@pytest.fixture
def seen(new_owner: Callable[..., tuple[Owner, Any]], work: Callable[[], None]) -> Owner:
    """Bacon on every one of five days, apples on one of them."""
    owner, _ = new_owner()
    owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
    first = purchases(1)[0]
    days = [replace(first, id=f"day-{n}", occurred_at=first.occurred_at + timedelta(days=n)) for n in range(5)]
    owner.import_traces([*days, replace(days[0], id="apples", object="completejourney:apples")])
    with pytest.raises(NoReflection, match="refresh"):
        look(owner, PURCHASE)
    owner.refresh()
    work()
    return owner


def test_both_sides_are_what_they_say(seen: Owner, tamper: Tamper) -> None:
    before = len(tamper.sent)
    found = look(seen, PURCHASE, 5)
    assert found.days == 5
    assert found.months[0] == "2026-01"
    really = {one.code: one.really for one in found.seen}
    assert (really[BACON], really["completejourney:apples"]) == (1.0, 0.2)
    history = [event for event in seen.history() if event["kind"] == "answer"]
    assert len(history) == 1, "the twin was asked once, on the record"
    believed = [one for one in found.seen if one.believed is not None]
    assert all(0 < one.believed <= 1 for one in believed if one.believed is not None)
    assert 0 <= found.named <= 2
    # Nothing that was sent holds what was counted.
    bodies = b"".join(request.content for request in tamper.sent[before:])
    assert b"bacon" not in bodies


def test_the_months_of_a_chain_are_looked_back_at_under_its_noise(
    new_owner: Callable[..., tuple[Owner, Any]], work: Callable[[], None]
) -> None:
    both = [PURCHASE, CLICKED]
    owner, _ = new_owner(categories=both)
    owner.give(owner.terms_for(ConsentKind.SELF, both))
    first = purchases(1)[0]
    days = [replace(first, id=f"day-{n}", occurred_at=first.occurred_at + timedelta(n)) for n in range(5)]
    clicks = [Trace(f"c{n}", "shop", one.occurred_at, CLICKED, Action.CART, "acme:4711") for n, one in enumerate(days)]
    owner.import_traces([*days, *clicks, replace(first, id="spring", occurred_at=first.occurred_at + timedelta(90))])
    owner.refresh()
    work()
    found = look(owner, PURCHASE, 5)
    # A month without a trace has rows like any other.
    assert (found.days, found.months[:4]) == (6, ("2026-01", "2026-02", "2026-03", "2026-04"))
    assert {one.code: one.really for one in found.seen}[BACON] == 1.0
    twin = owner.twin()
    noise = {one["category"]: one["sd"] for one in twin["noise"]}
    for category, seen in ((PURCHASE, found), (CLICKED, look(owner, CLICKED, 7))):
        mine = [row for row in twin["releases"] if row["mechanism"] == DAILY and row["category"] == category]
        made = [row["days"] for row in mine]
        assert made[:4] == ([31, 28, 31, 30] if category == PURCHASE else [31])
        assert seen.blur == pytest.approx(noise[category] * sum(made) / seen.days)
    assert {one.code: one.really for one in seen.seen if one.really} == {"funnel:cart": 1.0}
    january, *later = [month["day"] for month in twin["spending"]]
    assert 2.9 < january <= 3.0
    assert all(1.9 < day < 2.1 for day in later), "the share of clicks is left where no key to them was handed over"


def test_a_twin_of_monthly_rows_looks_back_too(
    monthly_service: Service, monthly_work: Callable[[], None], tmp_path: Path
) -> None:
    api = Api(monthly_service.url, sleep=lambda _: None)
    owner, _ = Owner.init(tmp_path / "vault", monthly_service.trust, passphrase=None, categories=[PURCHASE], api=api)
    owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
    owner.import_traces(purchases(5))
    owner.refresh()
    monthly_work()
    found = look(owner, PURCHASE, 5)
    mapped, rows = feature_map(PURCHASE), owner.twin()["releases"]
    assert {row["mechanism"] for row in rows} == {"monthly/1"}
    sigma = mapped.clip / (rows[0]["mu2_micro"] / 1e6) ** 0.5
    assert found.blur == pytest.approx(sigma * len(rows) ** 0.5 / mapped.content / found.days)
    assert {one.code: one.really for one in found.seen}[BACON] == 1.0
    owner.close()


def test_imported_readings_and_clicks_are_looked_back_at(
    new_owner: Callable[..., tuple[Owner, Any]],
    work: Callable[[], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    owner, _ = new_owner(categories=[HEALTH, CLICKED])
    monkeypatch.setattr(common, "unlock_owner", lambda *_, **__: owner)
    both = ["--category", HEALTH, "--category", CLICKED]
    told(capsys, "give", "--kind", "self", *both, "--yes")
    at = [datetime(2026, 1, day, 12, tzinfo=UTC) for day in range(1, 31)]
    steps = [
        Trace(f"s{n}", "watch", one, HEALTH, Action.MEASURE, "metric:steps", "", 6_000_000) for n, one in enumerate(at)
    ]
    again = [replace(one, id=f"p{one.id}", source="phone", quantity_milli=5_000_000) for one in steps]
    slept = Trace("z", "watch", at[0], HEALTH, Action.SLEEP, "metric:sleep", "", 450_000, "min")
    clicks = [Trace(f"c{n}", "shop", one, CLICKED, Action.CART, "acme:4711") for n, one in enumerate(at)]
    file = tmp_path / "traces.jsonl"
    file.write_text("".join(json.dumps(dump_trace(one)) + "\n" for one in [*steps, *again, slept, *clicks]))
    assert told(capsys, "import", str(file))["categories"] == {HEALTH: 61, CLICKED: 30}
    with pytest.raises(NoReflection, match="specially protected") as refused:
        look(owner, HEALTH)
    allow = re.search("`twinvault owner (renew [^`]+)`", refused.value.detail)
    assert allow is not None
    told(capsys, *allow[1].split(), "--yes")
    owner.refresh()
    work()
    found = told(capsys, "mirror", "--category", HEALTH, "--top-n", "6")
    assert found["days"] == 30
    really = {one["name"]: one["really"] for one in found["seen"] if one["really"]}
    assert really == {"steps a day: 5000 to 7500": 1.0, "hours of sleep a day: 7 to 8": pytest.approx(1 / 30)}
    assert sum(one["believed"] is not None for one in found["seen"]) == 6
    clicked = look(owner, CLICKED, 7)
    assert {one.code: one.really for one in clicked.seen if one.really} == {"funnel:cart": 1.0}
    month = next(month for month in owner.twin()["spending"] if month["period"] == "2026-01")
    assert 2.9 < month["day"] <= 3.0, "both together"


def test_an_empty_mirror_names_what_covers_a_category_and_keeps_what_was_allowed(
    new_owner: Callable[..., tuple[Owner, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    owner, _ = new_owner(categories=[HEALTH, CLICKED])
    monkeypatch.setattr(common, "unlock_owner", lambda *_, **__: owner)

    def advised() -> list[str]:
        with pytest.raises(NoReflection, match="stays sealed") as refused:
            look(owner, HEALTH)
        return re.findall("`twinvault owner ([^`]+)`", refused.value.detail)

    def covered() -> tuple[set[str], set[str]]:
        consent = owner.self_consent()
        assert consent is not None
        return {*consent.current.terms.categories}, {*consent.current.terms.explicit_special}

    told(capsys, "give", "--kind", "self", "--category", CLICKED, "--special", "pd:Genetic", "--yes")
    withdraw, give = advised()
    told(capsys, *withdraw.split())
    assert advised() == [f"give --kind self --category {HEALTH} --special {HEALTH}"], "nothing is left to add it to"
    told(capsys, *give.split(), "--yes")
    assert covered() == ({HEALTH, CLICKED}, {HEALTH, "pd:Genetic"})
    told(capsys, "renew", b64u(owner.self_consent().id), "--special", "pd:Genetic", "--yes")  # type: ignore[union-attr]
    (renew,) = advised()
    told(capsys, *renew.split(), "--yes")
    assert covered() == ({HEALTH, CLICKED}, {HEALTH, "pd:Genetic"})


def test_months_without_a_trace_reflect_nothing(seen: Owner) -> None:
    seen.erasures.erase(seen.erasures.compartments(PURCHASE, Period("2026-01"), Period("2026-01")))
    with pytest.raises(NoReflection):
        look(seen, PURCHASE)


def test_the_command_prints_bars_and_json(
    seen: Owner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "unlock_owner", lambda *_: seen)
    with pytest.raises(SystemExit):
        main(["owner", "mirror", "--top-n", "3"])
    out = capsys.readouterr().out
    assert "100%" in out
    assert "BACON" in out
    found = told(capsys, "mirror")
    assert (found["days"], found["category"]) == (5, PURCHASE)
