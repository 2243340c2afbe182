"""`owner freshness`: what is in force, what it means, when days close next, and what is lost that comes later."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.client_kit import PURCHASE, Service, purchases
from twinvault.api import Api, ApiError
from twinvault.cli import common, main
from twinvault.closing import Closing
from twinvault.owner import Owner
from vault.schema.freshness import Freshness, closes_at, closes_with, last_closed_day
from vault.schema.terms import ConsentKind

ZONE = ZoneInfo("Pacific/Auckland")
HONEST = {"choice": "week", "cadence": "daily", "closed": "2026-11-22", "next": "2026-11-29", "at": 1_780_000_000}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command of an owner; return what it writes, and demand the exit status that was expected."""

    def run(owner: Owner, *argv: str, expect: int = 0) -> str:
        monkeypatch.setattr(common, "unlock_owner", lambda *_, **__: owner)
        with pytest.raises(SystemExit) as end:
            main(["owner", *argv])
        said = capsys.readouterr()
        assert (end.value.code or 0) == expect, said.err
        return " ".join((said.out + said.err).split())

    return run


def test_an_owner_chooses_when_days_close(
    new_owner: Callable[..., tuple[Owner, Any]], work: Callable[[], None], told: Callable[..., str]
) -> None:
    owner, _ = new_owner(time_zone=ZONE.key)
    owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
    assert "no answer reads them" in told(owner, "freshness")
    for choice in (None, *Freshness, Freshness.WEEK):
        shown = json.loads(told(owner, "freshness", *([choice] if choice else []), "--json"))
        freshness = choice or Freshness.MONTH
        closed = last_closed_day(datetime.now(UTC), ZONE, freshness)
        following = closes_with(closed + timedelta(days=1), freshness)
        assert shown == {
            "freshness": freshness,
            "monthly_rows": False,
            "closed": closed.isoformat(),
            "next": following.isoformat(),
            "closes_at": closes_at(following, ZONE).astimezone(ZONE).isoformat(),
        }
        assert json.loads(told(owner, "freshness", "--json")) == shown
        said = told(owner, "freshness")
        assert said.startswith(f"{freshness}: ")
        assert f"Days up to {following} close next, on {closes_at(following, ZONE).astimezone(ZONE):%Y-%m-%d}" in said
        assert "Import what is missing" in told(owner, "freshness", freshness)
    owner.import_traces(purchases(2))
    asked = json.loads(told(owner, "refresh", "--json"))
    assert asked["days_to"] == last_closed_day(datetime.now(UTC), ZONE, Freshness.WEEK).isoformat()
    work()
    last = max(date.fromisoformat(row["first"]) + timedelta(row["days"] - 1) for row in owner.twin()["releases"])
    assert last.isoformat() == asked["days_to"], "what is closed has rows, and nothing else"
    assert "closes_next: days up to " in told(owner, "status")
    told(owner, "freshness", "year", expect=2)
    assert owner.closing().choice is Freshness.WEEK


def test_where_a_month_is_one_row_the_choice_is_kept_and_says_that_it_changes_nothing(
    monthly_service: Service, tmp_path: Path, told: Callable[..., str]
) -> None:
    api = Api(monthly_service.url, sleep=lambda _: None)
    owner, _ = Owner.init(tmp_path / "vault", monthly_service.trust, passphrase=None, categories=[PURCHASE], api=api)
    month, day = owner.closing(), owner.choose_freshness(Freshness.DAY)
    assert (day.choice, day.monthly, day.following) == (Freshness.DAY, True, month.following)
    assert "whatever you choose" in told(owner, "freshness")
    owner.close()


@pytest.mark.parametrize(
    "forged",
    [
        {"choice": "year"},
        {"choice": None},
        {"closed": "yesterday"},
        {"next": 7},
        {"at": "soon"},
        {"at": 10**30},
        {"cadence": 1},
    ],
)
def test_a_service_that_does_not_say_when_days_close_is_not_believed(forged: dict[str, Any]) -> None:
    assert Closing.of(HONEST).choice is Freshness.WEEK
    with pytest.raises(ApiError) as refused:
        Closing.of({**HONEST, **forged})
    assert refused.value.slug == "unexpected-answer"


def test_a_choice_that_the_service_refuses_is_told_in_words(owner: Owner) -> None:
    api, path = owner._api, f"{owner._path}/freshness"
    with pytest.raises(ApiError, match="'day', 'week' or 'month'") as refused:
        api.request("PUT", path, auth=owner._auth, json={"freshness": "year"})
    assert refused.value.slug == "invalid-request"
    assert owner.closing().choice is Freshness.MONTH
