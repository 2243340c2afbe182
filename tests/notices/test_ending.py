"""Owners are told a week ahead that a consent ends; nothing is logged before it does."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from tests.audit_kit import Audited
from tests.consent_kit import NOW, S
from vault.consent import consents
from vault.encoding import b64u
from vault.notices.ending import ending
from vault.schema.consent import RENEW_WITHIN_S, ConsentEvent, ConsentVersion
from vault.schema.terms import ConsentKind


def told(site: Audited, at: datetime) -> list[Any]:
    with site.service.database.snapshot() as session:
        return ending(session, site.service.owner.vault, now=at)


def days(number: int) -> int:
    return S + number * 86_400


def test_what_ends_within_a_week_is_told_the_first_first(site: Audited) -> None:
    later, soon, own = (
        site.service.give(not_after=days(7)),
        site.service.give(not_after=days(2)),
        site.service.give(ConsentKind.SELF, not_after=days(3)),
    )
    site.service.give(not_after=days(8))
    found = told(site, NOW)
    assert [item.consent_id for item in found] == [soon.consent_id, own.consent_id, later.consent_id]
    assert [item.ends_at_s for item in found] == [days(2), days(3), days(7)]
    day = f"{NOW + timedelta(days=2):%Y-%m-%d}"
    assert found[0].sentence == f"Acme Groceries: your consent ends on {day} unless you renew it."
    assert found[1].sentence.startswith("You: your consent ends")


def test_a_notice_goes_with_the_renewal_the_withdrawal_or_the_end(site: Audited) -> None:
    service = site.service
    given: list[ConsentVersion] = [service.give(not_after=days(3)) for _ in range(3)]
    assert {item.consent_id for item in told(site, NOW)} == {item.consent_id for item in given}
    service.withdraw(given[0])
    with service.database.snapshot() as session:
        requested = consents.history(session, given[1].consent_id)[-1].request
    renewed = service.next(given[1], ConsentEvent.NARROWED)
    service.amend(renewed, requested)
    found = told(site, NOW)
    assert [(item.consent_id, item.version) for item in sorted(found, key=lambda item: item.version)] == [
        (given[2].consent_id, 1), (given[1].consent_id, 2),
    ]  # fmt: skip
    assert told(site, NOW + timedelta(days=3)) == []


def test_the_boundaries_are_the_last_second_and_a_week(site: Audited) -> None:
    given = site.service.give(not_after=days(20))
    end = datetime.fromtimestamp(given.terms.not_after, NOW.tzinfo)
    week = timedelta(seconds=RENEW_WITHIN_S)
    seconds = [timedelta(seconds=1), timedelta(0)]
    assert [len(told(site, end - week - second)) for second in seconds] == [0, 1]
    assert [len(told(site, end - second)) for second in seconds] == [1, 0]


def test_an_owner_reads_the_own_notices_only(quick: Audited) -> None:
    given = quick.service.give(not_after=days(2))
    headers = {"authorization": f"Bearer {quick.service.session_token()}"}
    path = f"/v1/vaults/{b64u(quick.service.owner.vault)}/history/ending"
    (shown,) = quick.service.client.get(path, headers=headers).json()["ending"]
    assert shown["consent"] == b64u(given.consent_id)
    assert (shown["version"], shown["ends_at"]) == (1, days(2))
    stranger = quick.stranger()
    assert quick.service.client.get(path).status_code == 401
    other = f"/v1/vaults/{b64u(stranger.vault)}/history/ending"
    assert quick.service.client.get(other, headers=headers).status_code == 404
