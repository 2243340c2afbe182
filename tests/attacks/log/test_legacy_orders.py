"""A service that acts on executors' word where nobody gave it: each act must follow from a plan in force, in its form."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest

from tests.attacks.log.liar import IN_FORCE, Liar, in_force, in_force_for_answers
from tests.legacy_kit import DAY, LATER
from tests.vault_kit import NOW
from vault.clock import unix_s
from vault.db import Database
from vault.encoding import b64u
from vault.proof.leaf import LeafKind
from vault.proof.report import Step
from vault.seal.dsse import Envelope
from vault.seal.ids import new_id
from vault.seal.legacy import Act, Choice
from vault.seal.person import sign_freeze
from vault.seal.signing import SigningKey, new_seed

MINUTE: Final = timedelta(minutes=1)


@pytest.fixture
def liar(sqlite_database: Database, shortkeys: Database) -> Liar:
    return Liar(sqlite_database, shortkeys)


def test_what_follows_from_a_plan_in_force_holds(liar: Liar) -> None:
    in_force_for_answers(liar)
    liar.ordered(LeafKind.PROFILE, None)
    liar.ordered(LeafKind.FREEZE, freezing(liar), frozen=1)
    liar.vetoed(IN_FORCE + DAY, signed=(alive := liar.answered(IN_FORCE + DAY)))
    liar.ordered(LeafKind.PROFILE, alive, IN_FORCE + DAY)
    liar.ordered(LeafKind.FREEZE, liar.declared, IN_FORCE + 2 * DAY, frozen=1, again=1)  # as after a restore
    called_dead_again(liar)
    liar.ordered(LeafKind.PROFILE, liar.answered(IN_FORCE + 4 * DAY), IN_FORCE + 4 * DAY, deceased=0)
    assert liar.report().failures == ()


def test_a_declaration_unfreezes_what_its_own_plan_froze(liar: Liar) -> None:
    began, plan = NOW + 100 * DAY, liar.plan(liar.terms(choice=Choice.ANSWER, inactive_days=100))
    liar.planned(plan)
    liar.claimed(began, plan, inactive_since=unix_s(NOW))
    liar.forced(began + 30 * DAY)
    liar.ordered(LeafKind.FREEZE, plan, began + 30 * DAY, frozen=1)
    liar.claimed(began + 31 * DAY)
    liar.forced(began + 61 * DAY)
    liar.ordered(LeafKind.PROFILE, None, began + 61 * DAY, deceased=1)
    liar.ordered(LeafKind.FREEZE, None, began + 61 * DAY, frozen=0)
    assert liar.report().failures == ()


def called_dead_again(liar: Liar) -> None:
    liar.ordered(LeafKind.PROFILE, liar.declared, IN_FORCE + 3 * DAY, deceased=1, again=1)


def freezing(liar: Liar, signer: SigningKey | None = None, **changed: Any) -> Envelope:
    return liar.statement(signer, **{"now": IN_FORCE, "claim": liar.claim, "act": Act.FREEZE} | changed)


def frozen_before_it_was_in_force(liar: Liar) -> None:
    liar.planned()
    liar.claimed()
    liar.ordered(LeafKind.FREEZE, None, LATER, frozen=1)


def frozen_after_a_sign_of_life(liar: Liar) -> None:
    in_force(liar)
    liar.vetoed(IN_FORCE + DAY)
    liar.ordered(LeafKind.FREEZE, None, IN_FORCE + DAY, frozen=1)


def frozen_by_nobody(liar: Liar) -> None:
    in_force(liar)
    liar.ordered(LeafKind.FREEZE, freezing(liar, SigningKey(new_seed())), frozen=1)


def frozen_by_an_order_signed_early(liar: Liar) -> None:
    in_force(liar)
    liar.ordered(LeafKind.FREEZE, freezing(liar, now=IN_FORCE - timedelta(seconds=1)), frozen=1)


def frozen_by_an_order_of_another_claim(liar: Liar) -> None:
    in_force(liar)
    liar.ordered(LeafKind.FREEZE, freezing(liar, claim=new_id()), frozen=1)


def frozen_by_an_order_to_erase(liar: Liar) -> None:
    in_force(liar)
    liar.ordered(LeafKind.FREEZE, freezing(liar, act=Act.ERASE), frozen=1)


def frozen_where_the_plan_answers(liar: Liar) -> None:
    in_force_for_answers(liar)
    liar.ordered(LeafKind.FREEZE, None, frozen=1)


def unfrozen_by_executors(liar: Liar) -> None:
    in_force(liar)
    liar.ordered(LeafKind.FREEZE, freezing(liar), frozen=0)


def unfrozen_what_the_owner_froze(liar: Liar) -> None:
    order = sign_freeze(liar.owner.key, frozen=True, vault_id=liar.owner.vault, sequence=1)
    liar.ordered(LeafKind.FREEZE, order, NOW, frozen=1)
    in_force_for_answers(liar)
    liar.ordered(LeafKind.FREEZE, None, frozen=0)


def unfrozen_again(liar: Liar) -> None:
    in_force(liar)
    liar.ordered(LeafKind.FREEZE, freezing(liar), frozen=0, again=1)


def called_alive_again(liar: Liar) -> None:
    in_force(liar)
    liar.ordered(LeafKind.PROFILE, None, deceased=0, again=1)


def called_dead_by_a_sign_in(liar: Liar) -> None:
    in_force_for_answers(liar)
    liar.vetoed(IN_FORCE + DAY, signed=(alive := liar.answered(IN_FORCE + DAY)))
    liar.ordered(LeafKind.PROFILE, alive, IN_FORCE + DAY, deceased=1)


def called_alive_by_an_old_sign_in(liar: Liar) -> None:
    in_force_for_answers(liar)
    called_dead_again(liar)
    liar.ordered(LeafKind.PROFILE, liar.answered(IN_FORCE), IN_FORCE + 4 * DAY, deceased=0)


def called_alive_twice_by_one_sign_in(liar: Liar) -> None:
    in_force_for_answers(liar)
    called_dead_again(liar)
    for day in (4, 5):
        liar.ordered(LeafKind.PROFILE, liar.answered(IN_FORCE + 4 * DAY), IN_FORCE + day * DAY, deceased=0)


def called_dead_where_the_plan_freezes(liar: Liar) -> None:
    in_force(liar)
    liar.ordered(LeafKind.PROFILE, None)


def called_alive_by_a_sign_in_that_ended_nothing(liar: Liar) -> None:
    in_force_for_answers(liar)
    liar.ordered(LeafKind.PROFILE, liar.answered(IN_FORCE))


def frozen_by_a_record_that_orders_nothing(liar: Liar) -> None:
    in_force(liar)
    liar.ordered(LeafKind.FREEZE, liar.owner.genesis, frozen=1)


def erasing(liar: Liar, signer: SigningKey | None = None, **changed: Any) -> Envelope:
    return liar.statement(signer, **{"now": IN_FORCE, "claim": liar.claim, "act": Act.ERASE} | changed)


def in_force_to_erase(liar: Liar) -> None:
    liar.planned(liar.plan(liar.terms(choice=Choice.ERASE)))
    liar.claimed()
    liar.forced()


def test_an_erasure_that_follows_from_the_plan_holds(liar: Liar) -> None:
    in_force_to_erase(liar)
    liar.erased(erasing(liar))
    report = liar.report()
    assert (report.failures, report.checked[Step.LEGACY]) == ((), 4)


def erased_before_it_was_in_force(liar: Liar) -> None:
    liar.planned(liar.plan(liar.terms(choice=Choice.ERASE)))
    liar.claimed()
    liar.erased(erasing(liar))


def erased_after_a_sign_of_life(liar: Liar) -> None:
    in_force_to_erase(liar)
    liar.vetoed(IN_FORCE + DAY)
    liar.erased(erasing(liar))


def erased_where_the_plan_freezes(liar: Liar) -> None:
    in_force(liar)
    liar.erased(erasing(liar))


def erased_by_nobody(liar: Liar) -> None:
    in_force_to_erase(liar)
    liar.erased(erasing(liar, SigningKey(new_seed())))


def erased_by_an_order_to_freeze(liar: Liar) -> None:
    in_force_to_erase(liar)
    liar.erased(freezing(liar))


def erased_under_another_claim(liar: Liar) -> None:
    in_force_to_erase(liar)
    liar.erased(erasing(liar), erasure=b64u(new_id()))


def erased_by_an_order_signed_early(liar: Liar) -> None:
    in_force_to_erase(liar)
    liar.erased(erasing(liar, now=IN_FORCE - timedelta(seconds=1)))


NOT_SIGNED: Final = "not signed by the expected keys"
NOT_IN_FORCE: Final = "before the declaration was in force"
ORDERS: Final[dict[Callable[[Liar], None], str]] = {
    frozen_before_it_was_in_force: NOT_IN_FORCE,
    frozen_after_a_sign_of_life: NOT_IN_FORCE,
    frozen_by_nobody: NOT_SIGNED,
    frozen_by_an_order_signed_early: "signed before the owner's waiting period had passed",
    frozen_by_an_order_of_another_claim: "its leaf do not say the same",
    frozen_by_an_order_to_erase: "its leaf do not say the same",
    frozen_where_the_plan_answers: "something else than the owner's plan says",
    unfrozen_by_executors: "its leaf do not say the same",
    unfrozen_what_the_owner_froze: "something else than the owner's plan says",
    unfrozen_again: "its leaf do not say the same",
    called_alive_again: "something else than the owner's plan says",
    called_dead_by_a_sign_in: "by a sign-in that ended nothing",
    called_alive_by_an_old_sign_in: "older than the declaration",
    called_alive_twice_by_one_sign_in: "by a sign-in that ended nothing",
    called_dead_where_the_plan_freezes: "something else than the owner's plan says",
    called_alive_by_a_sign_in_that_ended_nothing: "by a sign-in that ended nothing",
    frozen_by_a_record_that_orders_nothing: "by a record that can order nothing",
    erased_before_it_was_in_force: NOT_IN_FORCE,
    erased_after_a_sign_of_life: NOT_IN_FORCE,
    erased_where_the_plan_freezes: "does not let executors erase",
    erased_by_nobody: NOT_SIGNED,
    erased_by_an_order_to_freeze: "its leaf do not say the same",
    erased_under_another_claim: "its leaf do not say the same",
    erased_by_an_order_signed_early: "signed before the owner's waiting period had passed",
}


@pytest.mark.parametrize("attack", ORDERS, ids=lambda attack: attack.__name__)
def test_an_order_that_nobody_gave_is_noticed(liar: Liar, attack: Callable[[Liar], None]) -> None:
    attack(liar)
    failures = liar.report().failures
    assert {failure.step for failure in failures} == {Step.LEGACY}
    assert ORDERS[attack] in failures[0].detail
