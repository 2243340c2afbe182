"""A service that lies about a legacy, with the log's own key: the verifier holds each step against what was signed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest

from tests.attacks.log.liar import IN_FORCE, SEALED, Liar, in_force_for_answers
from tests.legacy_kit import DAY, LATER
from tests.vault_kit import NOW
from vault.clock import unix_s
from vault.db import Database
from vault.encoding import b64u, parse_json
from vault.evidence.bundles import _OPENED
from vault.legacy import steps
from vault.proof.report import Step
from vault.seal.ids import new_id
from vault.seal.legacy import Act, Choice, Plan, sign_plan
from vault.seal.person import Role
from vault.seal.signing import SigningKey, new_seed

MINUTE: Final = timedelta(minutes=1)


@pytest.fixture
def liar(sqlite_database: Database, shortkeys: Database) -> Liar:
    return Liar(sqlite_database, shortkeys)


def test_what_the_service_really_logs_holds(sqlite_database: Database, shortkeys: Database) -> None:
    honest = Liar(sqlite_database, shortkeys)
    honest.publish(choice=Choice.ERASE)
    honest.declare()
    honest.take_effect(IN_FORCE)
    honest.sign_in(IN_FORCE + DAY)
    honest.secret = new_seed()
    honest.publish(now=IN_FORCE + DAY)
    honest.declare(now=IN_FORCE + 2 * DAY)
    honest.sign_in(IN_FORCE + 3 * DAY)
    honest.publish(honest.plan(None, IN_FORCE + 3 * DAY), IN_FORCE + 3 * DAY)
    report = honest.report()
    assert report.failures == ()
    assert report.checked[Step.LEGACY] == 9  # the freeze too
    with sqlite_database.transaction() as session:
        assert len(steps.records(session, honest.owner.vault)) == 8


def test_the_same_logged_by_hand_holds(liar: Liar) -> None:
    """No attack: what follows is noticed for what it changes, and for nothing else."""
    liar.planned()
    liar.claimed()
    liar.forced()
    liar.vetoed(IN_FORCE + DAY)
    assert liar.report().failures == ()


def test_what_was_sealed_in_advance_and_opened_in_time_holds(liar: Liar) -> None:
    in_force_for_answers(liar)
    liar.opened()
    assert liar.report().failures == ()


def opened_before_it_was_in_force(liar: Liar) -> None:
    liar.planned(liar.plan(liar.terms(choice=Choice.ANSWER, sealed=(SEALED,))))
    liar.claimed()
    liar.opened()


def opened_what_the_plan_does_not_name(liar: Liar) -> None:
    in_force_for_answers(liar)
    liar.opened(consents=[b64u(SEALED), b64u(bytes(32))])


def opened_by_nobody(liar: Liar) -> None:
    in_force_for_answers(liar)
    liar.opened(signed=liar.statement(SigningKey(new_seed()), IN_FORCE, claim=liar.claim, act=Act.OPEN))


def opened_by_a_statement_signed_early(liar: Liar) -> None:
    in_force_for_answers(liar)
    early = IN_FORCE - timedelta(seconds=1)
    liar.opened(signed=liar.statement(now=early, claim=liar.claim, act=Act.OPEN))


def opened_by_the_declaration(liar: Liar) -> None:
    in_force_for_answers(liar)
    liar.opened(signed=liar.declared)


def test_what_began_by_itself_in_time_holds_and_may_be_overtaken(liar: Liar) -> None:
    alone(liar)
    liar.forced(NOW + 130 * DAY)
    liar.vetoed(NOW + 131 * DAY)
    liar.claim = new_id()
    liar.claimed(NOW + 132 * DAY)
    liar.vetoed(NOW + 133 * DAY)
    assert liar.report().failures == ()


def alone(liar: Liar, **said: Any) -> None:
    plan = liar.plan(liar.terms(inactive_days=100))
    liar.planned(plan)
    liar.claimed(NOW + 100 * DAY, plan, **{"inactive_since": unix_s(NOW)} | said)


def begun_alone_too_early(liar: Liar) -> None:
    alone(liar, inactive_since=unix_s(NOW) + 1)


def begun_alone_for_a_shorter_time(liar: Liar) -> None:
    alone(liar, until=unix_s(NOW + 107 * DAY))


def begun_alone_where_the_plan_says_never(liar: Liar) -> None:
    plan = liar.plan(liar.terms())
    liar.planned(plan)
    liar.claimed(NOW + 100 * DAY, plan, inactive_since=unix_s(NOW))


def opened_what_began_by_itself(liar: Liar) -> None:
    plan = liar.plan(liar.terms(inactive_days=100, choice=Choice.ANSWER, sealed=(SEALED,)))
    liar.planned(plan)
    liar.claimed(NOW + 100 * DAY, plan, inactive_since=unix_s(NOW))
    liar.forced(NOW + 130 * DAY)
    liar.opened(NOW + 130 * DAY)


def declared_by_nobody(liar: Liar) -> None:
    liar.planned()
    liar.claimed(signed=liar.statement(SigningKey(new_seed()), claim=liar.claim))


def declared_by_the_owners_key(liar: Liar) -> None:
    liar.planned()
    liar.claimed(signed=liar.statement(liar.owner.key, claim=liar.claim))


def declared_without_a_plan(liar: Liar) -> None:
    liar.claimed()


def declared_under_a_withdrawn_plan(liar: Liar) -> None:
    liar.planned()
    old = liar.prev
    liar.planned(liar.plan(None))
    liar.claimed(signed=liar.statement(plan=old, claim=liar.claim))


def declared_under_a_former_plan(liar: Liar) -> None:
    liar.planned()
    old = liar.statement(claim=liar.claim)
    liar.secret = new_seed()
    liar.planned()
    liar.claimed(signed=old)


def declared_about_another_claim(liar: Liar) -> None:
    liar.planned()
    liar.claimed(claim=b64u(new_id()))


def an_order_to_erase_taken_for_a_declaration(liar: Liar) -> None:
    liar.planned()
    liar.claimed(signed=liar.statement(claim=liar.claim, act=Act.ERASE))


def waiting_shorter_than_planned(liar: Liar) -> None:
    liar.planned()
    liar.claimed(until=unix_s(LATER) + 7 * 86_400)
    liar.forced(LATER + 7 * DAY)


def in_force_before_the_time(liar: Liar) -> None:
    liar.planned()
    liar.claimed()
    liar.forced(IN_FORCE - timedelta(seconds=1))


def in_force_without_a_declaration(liar: Liar) -> None:
    liar.planned()
    liar.declared = liar.statement(claim=liar.claim)
    liar.forced()


def in_force_with_another_declaration(liar: Liar) -> None:
    liar.planned()
    liar.claimed()
    liar.declared = liar.statement(claim=liar.claim, reason="another")
    liar.forced()


def in_force_twice(liar: Liar) -> None:
    liar.planned()
    liar.claimed()
    liar.forced()
    liar.forced()


def in_force_after_a_sign_of_life(liar: Liar) -> None:
    liar.planned()
    liar.claimed()
    liar.vetoed()
    liar.forced()


def a_sign_of_life_hidden(liar: Liar) -> None:
    """Its leaf is taken out of what is shown; what took effect after it was chained when it was there."""
    liar.planned()
    liar.claimed()
    liar.vetoed()
    liar.forced()
    with liar.database.transaction() as session:
        session.connection().exec_driver_sql("UPDATE log_entry SET about = NULL WHERE kind = 'legacy-veto'")


def a_declaration_dated_back(liar: Liar) -> None:
    liar.planned()
    signed = liar.statement(now=LATER + 30 * DAY, claim=liar.claim)
    liar.claimed(signed=signed)
    liar.forced()


def a_step_dated_before_the_last(liar: Liar) -> None:
    liar.planned()
    liar.claimed()
    liar.vetoed(LATER + DAY)
    liar.secret = new_seed()
    liar.planned()


def declared_again_after_a_sign_of_life(liar: Liar) -> None:
    liar.planned()
    liar.claimed()
    liar.vetoed()
    liar.claimed(LATER + 2 * DAY)


def an_old_sign_in_taken_for_a_sign_of_life(liar: Liar) -> None:
    """A service that will not act can always refuse; it cannot say that the owner did it."""
    liar.planned()
    old = liar.answered(NOW)
    liar.claimed()
    liar.vetoed(signed=old)


def a_strangers_sign_in_taken_for_a_sign_of_life(liar: Liar) -> None:
    liar.planned()
    liar.claimed()
    liar.vetoed(signed=liar.answered(LATER + DAY, SigningKey(new_seed())))


def a_watchers_sign_in_taken_for_a_sign_of_life(liar: Liar) -> None:
    liar.planned()
    liar.claimed()
    liar.vetoed(signed=liar.answered(LATER + DAY, role=Role.WATCHER))


def a_plan_by_another_key(liar: Liar) -> None:
    right = Plan(liar.owner.vault, 1, liar.prev, unix_s(NOW), liar.terms())
    liar.planned(sign_plan(right, SigningKey(new_seed())))


def a_plan_told_to_seal_nothing(liar: Liar) -> None:
    liar.planned(liar.plan(liar.terms(choice=Choice.ANSWER, sealed=(SEALED,))), sealed=0)


def a_former_plan_again(liar: Liar) -> None:
    first = liar.plan(liar.terms())
    liar.planned(first)
    liar.secret = new_seed()
    liar.planned()
    liar.planned(first, version=1)


def a_plan_with_a_spent_key(liar: Liar) -> None:
    liar.planned()
    liar.claimed()
    liar.vetoed(LATER)
    liar.planned(liar.plan(liar.terms()), LATER)


def a_step_out_of_its_chain(liar: Liar) -> None:
    liar.planned()
    liar.claimed(prev=b64u(bytes(32)))


def a_step_with_another_number(liar: Liar) -> None:
    liar.planned()
    liar.claimed(seq=3)


def another_vaults_legacy(liar: Liar) -> None:
    """What somebody else's executors signed, logged as if it were about this vault."""
    other = Liar(liar.database, liar.shortkeys)
    liar.planned(other.plan(other.terms()))


NOT_SIGNED: Final = "not signed by the expected keys"
NOT_CHAINED: Final = "withheld before this one"
NOT_IN_FORCE: Final = "before the declaration was in force"
NO_CLAIM: Final = "another declaration than the one that waits"
NO_PLAN: Final = "without a plan, or under one that was used already"
ATTACKS: Final[dict[Callable[[Liar], None], str]] = {
    declared_by_nobody: NOT_SIGNED,
    declared_by_the_owners_key: NOT_SIGNED,
    declared_without_a_plan: NO_PLAN,
    declared_under_a_withdrawn_plan: NO_PLAN,
    declared_under_a_former_plan: NOT_SIGNED,
    declared_about_another_claim: "its leaf do not say the same",
    an_order_to_erase_taken_for_a_declaration: "its leaf do not say the same",
    waiting_shorter_than_planned: "at another time than the owner's plan says",
    in_force_before_the_time: "before the owner's waiting period had passed",
    in_force_without_a_declaration: NO_CLAIM,
    in_force_with_another_declaration: "not what was declared",
    in_force_twice: "took effect already",
    in_force_after_a_sign_of_life: NO_CLAIM,
    a_sign_of_life_hidden: NOT_CHAINED,
    a_declaration_dated_back: "dated long before or after it was signed",
    a_step_dated_before_the_last: "dated before the one that it follows",
    declared_again_after_a_sign_of_life: NO_PLAN,
    an_old_sign_in_taken_for_a_sign_of_life: "older than the declaration",
    a_strangers_sign_in_taken_for_a_sign_of_life: NOT_SIGNED,
    a_watchers_sign_in_taken_for_a_sign_of_life: "none of this vault's owner",
    a_plan_told_to_seal_nothing: "its leaf says something else",
    opened_before_it_was_in_force: "before the declaration was in force",
    opened_what_the_plan_does_not_name: "that the owner's plan does not name",
    opened_by_nobody: NOT_SIGNED,
    opened_by_a_statement_signed_early: "signed before the owner's waiting period had passed",
    opened_by_the_declaration: "its leaf do not say the same",
    begun_alone_too_early: "by itself before the owner's plan says",
    begun_alone_for_a_shorter_time: "at another time than the owner's plan says",
    begun_alone_where_the_plan_says_never: "where the owner's plan does not say so",
    opened_what_began_by_itself: "before the declaration was in force",
    a_plan_by_another_key: NOT_SIGNED,
    a_former_plan_again: "does not follow the one before",
    a_plan_with_a_spent_key: "the legacy key of an earlier one",
    a_step_out_of_its_chain: NOT_CHAINED,
    a_step_with_another_number: NOT_CHAINED,
    another_vaults_legacy: NOT_SIGNED,
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_it_is_noticed(liar: Liar, attack: Callable[[Liar], None]) -> None:
    attack(liar)
    failures = liar.report().failures
    assert {failure.step for failure in failures} == {Step.LEGACY}
    assert ATTACKS[attack] in failures[0].detail


def test_no_vault_is_named_in_public_and_auditors_are_shown_nothing_else(liar: Liar) -> None:
    liar.planned()
    liar.claimed()
    liar.vetoed()
    with liar.database.snapshot() as session:
        rows = session.connection().exec_driver_sql(
            "SELECT public_body FROM log_opening JOIN log_entry ON id = entry_id WHERE kind IN "
            "('legacy-plan', 'legacy-claim', 'legacy-force', 'legacy-open', 'legacy-veto')"
        )
        bodies = [parse_json(bytes(body)) for (body,) in rows]
    assert [body.keys() for body in bodies] == [{"kind", "period"}] * 3
    assert not {kind.value for kind in _OPENED} & {str(body["kind"]) for body in bodies}
