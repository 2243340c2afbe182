"""A legacy's waiting period that was none, although every date of the service says that it was: witnesses' clocks tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest

from tests.attacks.log.liar import IN_FORCE, Liar, in_force
from tests.legacy_kit import LATER
from vault.db import Database
from vault.proof.report import Step
from vault.proof.waited import parse_waited
from vault.seal.signing import SigningKey, new_seed

MINUTE: Final = timedelta(minutes=1)


@pytest.fixture
def liar(sqlite_database: Database, shortkeys: Database) -> Liar:
    return Liar(sqlite_database, shortkeys)


def test_the_waiting_that_witnesses_saw_holds_by_their_clocks(sqlite_database: Database, shortkeys: Database) -> None:
    watched = Liar(sqlite_database, shortkeys)
    watched.publish()
    watched.declare()
    assert watched.take_effect(LATER) == 0  # the log has not numbered it
    watched.seen(LATER + MINUTE)
    assert watched.take_effect(LATER + MINUTE) == 0
    watched.seen(IN_FORCE - MINUTE)
    assert watched.take_effect(IN_FORCE) == 1
    watched.seen(IN_FORCE)
    assert watched.report(watched=True).failures == ()


def test_where_witnesses_came_late_the_waiting_takes_longer(sqlite_database: Database, shortkeys: Database) -> None:
    watched, late = Liar(sqlite_database, shortkeys), timedelta(hours=5)
    watched.publish()
    watched.declare()
    watched.seen(LATER + late)
    assert watched.take_effect(LATER + late) == 0
    watched.seen(IN_FORCE)
    assert watched.take_effect(IN_FORCE) == 0
    watched.seen(IN_FORCE + late)
    assert watched.take_effect(IN_FORCE + late) == 1
    watched.seen(IN_FORCE + late)
    assert watched.report(watched=True).failures == ()


def dated_back_and_put_in_force_at_once(liar: Liar) -> None:
    """Executors and service together: every date of theirs is right, and all of it is from today."""
    liar.planned()
    liar.claimed()
    begun = liar.seen(IN_FORCE)
    liar.forced(witnessed=liar.saw(begun, liar.seen(IN_FORCE)))


def watched_by_nobody(liar: Liar) -> None:
    in_force(liar)


def watched_by_a_stranger(liar: Liar) -> None:
    liar.planned()
    liar.claimed()
    trusted, liar.witness_key = liar.witness_key, SigningKey(new_seed())
    begun = liar.seen(LATER)
    liar.forced(witnessed=liar.saw(begun, liar.seen(IN_FORCE)))
    liar.witness_key = trusted


def watched_before_it_was_declared(liar: Liar) -> None:
    """An old checkpoint, which does not cover the declaration, for the first that does."""
    liar.planned()
    before = liar.seen(LATER)
    liar.claimed()
    right = parse_waited(liar.saw(liar.seen(IN_FORCE), liar.seen(IN_FORCE)))
    liar.forced(witnessed=replace(right, begun=before).dump())


def watched_by_what_is_no_proof(liar: Liar) -> None:
    liar.planned()
    liar.claimed()
    liar.forced(witnessed=b"\x00\x00\x00\xff")


UNWATCHED: Final[dict[Callable[[Liar], None], str]] = {
    dated_back_and_put_in_force_at_once: "By the witnesses' clocks",
    watched_by_nobody: "No witness saw",
    watched_by_a_stranger: "0 trusted witnesses cosigned",
    watched_before_it_was_declared: "has no leaf",
    watched_by_what_is_no_proof: "cut short or altered",
}


@pytest.mark.parametrize("attack", UNWATCHED, ids=lambda attack: attack.__name__)
def test_a_waiting_period_that_was_none_is_noticed(liar: Liar, attack: Callable[[Liar], None]) -> None:
    attack(liar)
    liar.seen(IN_FORCE)
    assert liar.report().failures == (), "by the service's own dates it waited"
    failures = liar.report(watched=True).failures
    assert [failure.step for failure in failures] == [Step.LEGACY]
    assert UNWATCHED[attack] in failures[0].detail
