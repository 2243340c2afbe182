"""An owner who gives no sign of life for long: the waiting period begins by itself, and only a freeze follows."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.legacy_kit import DAY, LATER, Heirs
from tests.vault_kit import NOW
from vault.legacy import legacies, orders
from vault.legacy.errors import BadStatement
from vault.legacy.steps import LegacyState
from vault.parties import people
from vault.parties.people import VaultState
from vault.seal.legacy import Act, Choice
from vault.seal.person import sign_freeze

A_SECOND = timedelta(seconds=1)
ALONE = NOW + 100 * DAY


def test_an_absent_owner_starts_the_waiting_period(heirs: Heirs) -> None:
    heirs.publish(inactive_days=100)
    assert heirs.take_effect(ALONE - A_SECOND) == 0
    with heirs.database.transaction() as session:
        assert not legacies.begin_alone(session, heirs.owner.vault, now=ALONE - A_SECOND)
    assert heirs.now.state is LegacyState.READY
    heirs.take_effect(ALONE)
    assert (heirs.now.state, heirs.now.until_s) == (LegacyState.WAITING, int((ALONE + 30 * DAY).timestamp()))
    assert heirs.take_effect(ALONE + 30 * DAY - A_SECOND) == 0
    assert heirs.take_effect(ALONE + 30 * DAY) == 1
    assert heirs.person.state is VaultState.FROZEN
    assert heirs.steps() == ["legacy-plan", "legacy-claim", "legacy-force", "freeze"]


def test_every_sign_of_life_begins_the_days_anew(heirs: Heirs) -> None:
    heirs.publish(inactive_days=100)
    heirs.sign_in(NOW + 99 * DAY)
    heirs.take_effect(ALONE)
    assert heirs.now.state is LegacyState.READY
    heirs.take_effect(NOW + 199 * DAY)
    assert heirs.now.state is LegacyState.WAITING
    heirs.sign_in(NOW + 200 * DAY)
    assert heirs.now.state is LegacyState.READY, "nobody put the key together, so the plan stays good"
    heirs.take_effect(NOW + 299 * DAY)
    assert heirs.now.state is LegacyState.READY
    heirs.declare(now=NOW + 299 * DAY)


def test_a_sign_of_life_hours_after_another_counts_too(heirs: Heirs) -> None:
    heirs.publish(inactive_days=100)
    heirs.sign_in(NOW + 50 * DAY)
    heirs.sign_in(NOW + 50 * DAY + timedelta(hours=20))
    heirs.take_effect(NOW + 150 * DAY + timedelta(hours=20) - A_SECOND)
    assert heirs.now.state is LegacyState.READY
    heirs.take_effect(NOW + 150 * DAY + timedelta(hours=20))
    assert heirs.now.state is LegacyState.WAITING


def test_a_plan_that_does_not_say_so_never_begins_by_itself(quick: Heirs) -> None:
    quick.publish()
    assert quick.take_effect(NOW + 5_000 * DAY) == 0
    assert quick.now.state is LegacyState.READY
    quick.publish(quick.plan(None, NOW + 5_000 * DAY), NOW + 5_000 * DAY)
    quick.sign_in(NOW + 5_001 * DAY)
    quick.take_effect(NOW + 9_000 * DAY)
    assert quick.now.state is LegacyState.WITHDRAWN


def test_what_began_by_itself_freezes_and_lets_executors_do_nothing(quick: Heirs) -> None:
    quick.publish(inactive_days=100, choice=Choice.ERASE)
    quick.take_effect(ALONE)
    quick.take_effect(ALONE + 30 * DAY)
    claim, now = quick.now.claim, ALONE + 30 * DAY
    order = quick.statement(now=now, act=Act.ERASE, claim=claim)
    with pytest.raises(BadStatement), quick.database.transaction() as session:
        orders.verify_erasing(session, quick.id, order, now=now)


def test_a_vault_whose_choice_is_to_answer_is_frozen_when_nobody_declared_anything(quick: Heirs) -> None:
    quick.publish(inactive_days=100, choice=Choice.ANSWER)
    quick.take_effect(ALONE)
    quick.take_effect(ALONE + 30 * DAY)
    assert quick.person.state is VaultState.FROZEN
    assert not quick.person.profile.deceased
    quick.sign_in(ALONE + 31 * DAY)
    assert quick.now.state is LegacyState.READY


@pytest.mark.parametrize("by", ["nobody", "owner"])
def test_what_only_the_plan_froze_answers_once_executors_declared(heirs: Heirs, by: str) -> None:
    """Nobody living could unfreeze it; what the owner froze before stays as the owner wanted it."""
    heirs.publish(inactive_days=100, choice=Choice.ANSWER)
    if by == "owner":
        order = sign_freeze(heirs.owner.key, frozen=True, vault_id=heirs.owner.vault, sequence=1)
        with heirs.database.transaction() as session:
            people.follow_freeze(session, heirs.owner.vault, order, now=NOW)
    heirs.take_effect(ALONE)
    heirs.take_effect(ALONE + 30 * DAY)
    assert heirs.person.state is VaultState.FROZEN
    heirs.declare(now=ALONE + 31 * DAY)
    assert heirs.person.state is VaultState.FROZEN, "before the declaration has waited"
    assert heirs.take_effect(ALONE + 61 * DAY) == 1
    assert heirs.person.profile.deceased
    assert heirs.person.state is (VaultState.ACTIVE if by == "nobody" else VaultState.FROZEN)


def test_what_an_owner_who_came_back_left_frozen_stays_frozen(quick: Heirs) -> None:
    quick.publish(inactive_days=100, choice=Choice.ANSWER)
    quick.take_effect(ALONE)
    quick.take_effect(ALONE + 30 * DAY)
    quick.sign_in(ALONE + 31 * DAY)
    quick.declare(now=ALONE + 32 * DAY)
    quick.take_effect(ALONE + 62 * DAY)
    assert (quick.person.profile.deceased, quick.person.state) == (True, VaultState.FROZEN)


@pytest.mark.parametrize("frozen", [False, True])
def test_executors_overtake_what_began_by_itself_and_wait_in_full(heirs: Heirs, frozen: bool) -> None:
    heirs.publish(inactive_days=100, choice=Choice.ERASE)
    heirs.take_effect(ALONE)
    now = ALONE + (30 if frozen else 29) * DAY
    assert heirs.take_effect(now) == frozen
    declared = heirs.declare(now=now)
    assert (declared.state, declared.until_s) == (LegacyState.WAITING, int((now + 30 * DAY).timestamp()))
    assert heirs.take_effect(now + 30 * DAY - A_SECOND) == 0
    assert heirs.take_effect(now + 30 * DAY) == 1
    heirs.sign_in(now + 31 * DAY)
    assert heirs.now.state is LegacyState.ENDED
    with pytest.raises(BadStatement):
        heirs.declare(now=now + 40 * DAY)


def test_the_owners_programs_do_not_begin_the_days_anew(quick: Heirs) -> None:
    from vault.seal.person import Role

    quick.publish(inactive_days=100)
    quick.sign_in(LATER + 50 * DAY, role=Role.WATCHER)
    quick.sign_in(LATER + 50 * DAY, quick.source.key, Role.DEVICE)
    quick.take_effect(ALONE)
    assert quick.now.state is LegacyState.WAITING
