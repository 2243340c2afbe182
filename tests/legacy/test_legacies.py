"""Nothing but enough executors starts a legacy, and every sign of life stops it, whatever happens at once."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.legacy_kit import DAY, LATER, Heirs, leaf_ids
from tests.vault_kit import NOW, wait_until_blocked
from tests.waiting import together
from vault.erasure.erase import ErasureRequest
from vault.errors import VaultError
from vault.legacy import legacies, orders
from vault.legacy.errors import BadPlan, BadStatement, OwnerIsHere, UnknownLegacy
from vault.legacy.steps import LegacyState
from vault.parties import people
from vault.parties.caller import WatcherCaller
from vault.parties.people import VaultState
from vault.parties.sessions import SESSION_S, SignInRefused, find_caller
from vault.proof.leaf import LeafKind
from vault.seal.erasure import Author, Scope
from vault.seal.errors import SealError
from vault.seal.ids import new_id
from vault.seal.legacy import Act, Choice, Plan, sign_plan
from vault.seal.person import Role
from vault.seal.signing import SigningKey, new_seed
from vault.store.errors import VersionConflict

IN_FORCE = LATER + 30 * DAY
A_SECOND = timedelta(seconds=1)


def test_the_declaration_waits_and_then_the_vault_is_frozen(heirs: Heirs) -> None:
    heirs.publish()
    assert heirs.now.state is LegacyState.READY
    declared = heirs.declare()
    assert (declared.state, declared.until_s) == (LegacyState.WAITING, int(IN_FORCE.timestamp()))
    assert heirs.take_effect(IN_FORCE - A_SECOND) == 0
    with heirs.database.transaction() as session:
        assert not legacies.take_effect(session, heirs.owner.vault, now=IN_FORCE - A_SECOND)
    assert heirs.person.state is VaultState.ACTIVE
    assert heirs.take_effect(IN_FORCE) == 1
    assert heirs.take_effect(IN_FORCE) == 0
    assert heirs.now.state is LegacyState.IN_FORCE
    assert heirs.person.state is VaultState.FROZEN
    assert heirs.steps() == ["legacy-plan", "legacy-claim", "legacy-force", "freeze"]
    assert len(leaf_ids(heirs)) == 3


@pytest.mark.parametrize("wait", [timedelta(0), 29 * DAY, 30 * DAY - A_SECOND, 31 * DAY])
def test_a_sign_in_stops_it_until_the_moment_it_takes_effect(heirs: Heirs, wait: timedelta) -> None:
    heirs.publish()
    heirs.declare()
    heirs.sign_in(LATER + wait)
    assert heirs.now.state is LegacyState.ENDED
    assert heirs.take_effect(IN_FORCE + DAY) == 0
    assert heirs.person.state is VaultState.ACTIVE
    assert heirs.steps() == ["legacy-plan", "legacy-claim", "legacy-veto"]


def test_an_owner_who_comes_back_later_ends_it_and_unfreezes_the_vault_by_hand(heirs: Heirs) -> None:
    heirs.publish()
    heirs.declare()
    heirs.take_effect(IN_FORCE)
    heirs.sign_in(IN_FORCE + DAY)
    assert heirs.now.state is LegacyState.ENDED
    assert heirs.person.state is VaultState.FROZEN


def test_a_device_that_goes_on_by_itself_is_no_sign_of_life(quick: Heirs) -> None:
    quick.publish()
    quick.declare()
    quick.sign_in(LATER + DAY, quick.source.key, Role.DEVICE)
    assert quick.now.state is LegacyState.WAITING


def test_a_program_that_watches_for_the_owner_is_no_sign_of_life(quick: Heirs) -> None:
    quick.publish()
    quick.sign_in(LATER, role=Role.WATCHER)
    quick.declare()
    token = quick.sign_in(LATER + DAY, role=Role.WATCHER)
    assert quick.now.state is LegacyState.WAITING
    with quick.database.snapshot() as session:
        assert find_caller(session, token, now=LATER + DAY) == WatcherCaller(quick.owner.vault)


def test_nobody_else_gives_a_sign_of_life(quick: Heirs) -> None:
    quick.publish()
    quick.declare()
    for wrong in (SigningKey(new_seed()), quick.key):
        with pytest.raises(SignInRefused):
            quick.sign_in(LATER + DAY, wrong)
    answer = quick.answered(LATER + DAY)
    with quick.database.transaction() as session:
        quick.desk.sign_in(session, answer, now=LATER + DAY)
    assert quick.now.state is LegacyState.ENDED


def test_what_was_stopped_once_cannot_be_declared_again(quick: Heirs) -> None:
    """The key was put together, so one hand may have it now."""
    quick.publish()
    statement = quick.statement()
    quick.declare(statement)
    quick.sign_in(LATER + DAY)
    for again in (statement, quick.statement(now=LATER + 2 * DAY)):
        with pytest.raises(BadStatement, match="ended"):
            quick.declare(again, LATER + 2 * DAY)
    with pytest.raises(BadPlan, match="key of its own"):
        quick.publish(now=LATER + 2 * DAY)
    quick.secret = new_seed()
    quick.publish(now=LATER + 2 * DAY)
    quick.declare(now=LATER + 3 * DAY)


def test_only_the_legacy_key_of_the_newest_plan_declares(heirs: Heirs) -> None:
    heirs.publish()
    old, old_secret = heirs.statement(), heirs.secret
    wrong = {
        "another key": heirs.statement(SigningKey(new_seed())),
        "the owner": heirs.statement(heirs.owner.key),
        "another vault": heirs.statement(vault=new_id()),
        "another plan": heirs.statement(plan=new_id() * 2),
        "a plan": heirs.plan(heirs.terms()),
    }
    for name, statement in wrong.items():
        with pytest.raises(SealError):
            heirs.declare(statement)
        assert heirs.now.state is LegacyState.READY, name
    with pytest.raises(BadStatement):
        heirs.declare(heirs.statement(act=Act.ERASE))
    heirs.secret = new_seed()
    heirs.publish()
    with pytest.raises(SealError):
        heirs.declare(old)
    with heirs.database.transaction() as session, pytest.raises(UnknownLegacy):
        legacies.declare(session, replace_secret(heirs, old_secret).id, old, now=LATER)
    heirs.publish(heirs.plan(None))
    with pytest.raises(UnknownLegacy):
        heirs.declare()
    assert heirs.now.state is LegacyState.WITHDRAWN


def replace_secret(heirs: Heirs, secret: bytes) -> Heirs:
    found = object.__new__(Heirs)
    found.__dict__ |= {**heirs.__dict__, "secret": secret}
    return found


@pytest.mark.parametrize("shift", [-DAY - A_SECOND, timedelta(seconds=301)])
def test_a_clock_that_is_wrong_declares_nothing(quick: Heirs, shift: timedelta) -> None:
    """Declared under a clock set back, the waiting period would be over once it is set right again."""
    quick.publish()
    with pytest.raises(BadStatement, match="clock"):
        quick.declare(quick.statement(now=LATER + shift))
    with pytest.raises(BadPlan, match="clock"):
        quick.publish(quick.plan(None, NOW + shift))


def test_an_owner_who_is_signed_in_is_not_declared_gone(heirs: Heirs) -> None:
    heirs.publish()
    heirs.sign_in(LATER)
    with pytest.raises(OwnerIsHere):
        heirs.declare(now=LATER + timedelta(seconds=SESSION_S) - A_SECOND)
    heirs.declare(now=LATER + timedelta(seconds=SESSION_S))


def test_the_same_declaration_again_changes_nothing(quick: Heirs) -> None:
    quick.publish()
    statement = quick.statement()
    first = quick.declare(statement)
    assert quick.declare(statement, LATER + DAY) == first
    with pytest.raises(BadStatement, match="waiting"):
        quick.declare(now=LATER + DAY)
    assert quick.steps() == ["legacy-plan", "legacy-claim"]


def test_a_plan_follows_the_one_before_and_only_its_owners(quick: Heirs) -> None:
    first = quick.publish()
    quick.publish(first)
    quick.version = 1
    assert quick.steps() == ["legacy-plan"], "the same again changes nothing"
    quick.secret = new_seed()
    stranger = SigningKey(new_seed())
    right = Plan(quick.owner.vault, 2, quick.prev, int(NOW.timestamp()), quick.terms())
    with pytest.raises(SealError):
        quick.publish(sign_plan(right, stranger))
    with pytest.raises(SealError):
        quick.publish(sign_plan(replace(right, vault=new_id()), quick.owner.key))
    for forged in (replace(right, version=3), replace(right, prev=new_id() * 2)):
        with pytest.raises(VersionConflict):
            quick.publish(sign_plan(forged, quick.owner.key))
    assert quick.now.digest == first.digest


def test_no_two_vaults_have_one_legacy_key(heirs: Heirs) -> None:
    heirs.publish()
    other = Heirs(heirs.database, heirs.shortkeys, secret=heirs.secret)
    with pytest.raises(BadPlan):
        other.publish()
    heirs.declare()


def test_executors_erase_only_what_the_plan_lets_them_once_it_is_in_force(heirs: Heirs) -> None:
    heirs.publish(choice=Choice.ERASE)

    def ask(now: datetime, **changed: Any) -> ErasureRequest:
        said = {"act": Act.ERASE, "claim": heirs.now.claim} | changed
        signed = heirs.statement(now=said.pop("signed", now), **said)
        with heirs.database.transaction() as session:
            return orders.verify_erasing(session, heirs.id, signed, now=now)

    with pytest.raises(BadStatement, match="ready"):
        ask(LATER, claim=new_id())
    claim = heirs.declare().claim
    for early in (LATER, IN_FORCE):
        with pytest.raises(BadStatement, match="waiting"):
            ask(early)
    heirs.take_effect(IN_FORCE)
    with pytest.raises(BadStatement, match="signed before"):
        ask(IN_FORCE, signed=IN_FORCE - A_SECOND)
    for forged in ({"claim": new_id()}, {"act": Act.DECLARE}):
        with pytest.raises(BadStatement):
            ask(IN_FORCE, **forged)
    with pytest.raises(SealError), heirs.database.transaction() as session:
        forged_key = heirs.statement(SigningKey(new_seed()), IN_FORCE, act=Act.ERASE, claim=claim)
        orders.verify_erasing(session, heirs.id, forged_key, now=IN_FORCE)
    asked = ask(IN_FORCE)
    assert (asked.erasure_id, asked.scope, asked.author) == (claim, Scope(heirs.owner.vault, None), Author.EXECUTORS)
    heirs.sign_in(IN_FORCE + DAY)
    with pytest.raises(BadStatement, match="ended"):
        ask(IN_FORCE + DAY)


def test_executors_of_a_plan_that_freezes_erase_nothing(quick: Heirs) -> None:
    quick.publish()
    claim = quick.declare().claim
    quick.take_effect(IN_FORCE)
    with pytest.raises(BadStatement, match="does not let"), quick.database.transaction() as session:
        signed = quick.statement(now=IN_FORCE, act=Act.ERASE, claim=claim)
        orders.verify_erasing(session, quick.id, signed, now=IN_FORCE)


def test_an_erased_vault_has_no_legacy(heirs: Heirs) -> None:
    heirs.publish()
    heirs.declare()
    answer = heirs.answered(LATER + DAY)
    with heirs.database.transaction() as session:
        legacies.forget(session, Scope(heirs.owner.vault, (heirs.owner.compartment().id,)))
    assert heirs.now.state is LegacyState.WAITING
    with heirs.database.transaction() as session:
        people.forget(session, heirs.owner.vault)
        legacies.forget(session, Scope(heirs.owner.vault, None))
    with pytest.raises(UnknownLegacy):
        heirs.declare()
    assert heirs.take_effect(IN_FORCE) == 0
    with pytest.raises(SignInRefused), heirs.database.transaction() as session:
        heirs.desk.sign_in(session, answer, now=LATER + DAY)
    assert leaf_ids(heirs) == []


def test_what_fails_half_way_did_nothing(heirs: Heirs, monkeypatch: pytest.MonkeyPatch) -> None:
    heirs.publish()
    heirs.declare()

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as broken:
        broken.setattr(people, "freeze", fails)
        with pytest.raises(RuntimeError):
            heirs.take_effect(IN_FORCE)
    assert (heirs.now.state, heirs.steps()) == (LegacyState.WAITING, ["legacy-plan", "legacy-claim"])
    assert heirs.take_effect(IN_FORCE) == 1


def test_of_a_sign_of_life_and_the_end_of_waiting_at_once_one_comes_first(heirs: Heirs) -> None:
    heirs.publish()
    heirs.declare()
    together(
        *(lambda: heirs.sign_in(IN_FORCE) for _ in range(3)),
        *(lambda: heirs.take_effect(IN_FORCE) for _ in range(3)),
    )
    assert heirs.now.state is LegacyState.ENDED, "the sign of life ended it before or after"
    steps = heirs.steps()
    assert steps[:2] == ["legacy-plan", "legacy-claim"]
    assert steps[2:] in (["legacy-veto"], ["legacy-force", "freeze", "legacy-veto"])
    assert (heirs.person.state is VaultState.FROZEN) == ("freeze" in steps)


def test_a_sign_in_that_is_not_committed_yet_is_seen_by_a_declaration(heirs: Heirs) -> None:
    if heirs.database.is_sqlite:
        return  # one writer at a time
    heirs.publish()
    outcome: list[object] = []

    def declare() -> None:
        try:
            outcome.append(heirs.declare())
        except VaultError as refusal:
            outcome.append(type(refusal))

    thread = threading.Thread(target=declare)
    with heirs.database.transaction() as session:
        heirs.desk.sign_in(session, heirs.answered(LATER), now=LATER)
        thread.start()
        wait_until_blocked(heirs.database, lambda: bool(outcome))
    thread.join(60)
    assert outcome == [OwnerIsHere]


def test_a_declaration_that_is_not_committed_yet_is_ended_by_a_sign_in(heirs: Heirs) -> None:
    if heirs.database.is_sqlite:
        return  # one writer at a time
    heirs.publish()
    thread = threading.Thread(target=heirs.sign_in, args=(LATER,))
    with heirs.database.transaction() as session:
        legacies.declare(session, heirs.id, heirs.statement(), now=LATER)
        thread.start()
        wait_until_blocked(heirs.database, lambda: not thread.is_alive())
    thread.join(60)
    assert heirs.now.state is LegacyState.ENDED


def test_a_vault_that_is_erased_while_its_owner_signs_in_gets_no_session(heirs: Heirs) -> None:
    if heirs.database.is_sqlite:
        return  # one writer at a time
    heirs.publish()
    outcome: list[type[VaultError]] = []

    def sign_in() -> None:
        try:
            heirs.sign_in(LATER)
        except VaultError as refusal:
            outcome.append(type(refusal))

    thread = threading.Thread(target=sign_in)
    with heirs.database.transaction() as session:
        people.lock(session, heirs.owner.vault)
        thread.start()
        wait_until_blocked(heirs.database, lambda: not thread.is_alive())
        people.forget(session, heirs.owner.vault)
        legacies.forget(session, Scope(heirs.owner.vault, None))
    thread.join(60)
    assert outcome == [SignInRefused]


def test_a_restored_database_does_not_bring_back_what_the_journal_knows_to_be_over(quick: Heirs) -> None:
    quick.publish()
    quick.declare()
    with quick.database.transaction() as session:
        assert legacies.end_again(session, [quick.owner.vault, new_id()], now=LATER) == 1
        assert legacies.end_again(session, [quick.owner.vault], now=LATER) == 0
    assert quick.take_effect(IN_FORCE) == 0


def test_a_restored_database_does_not_bring_back_the_dead(quick: Heirs) -> None:
    quick.publish(choice=Choice.ANSWER)
    quick.declare()
    quick.take_effect(IN_FORCE)
    assert quick.person.profile.deceased
    with quick.database.transaction() as session:
        assert legacies.end_again(session, [quick.owner.vault], now=IN_FORCE) == 1
    assert not quick.person.profile.deceased


@pytest.mark.parametrize("planned", [False, True])
def test_an_owner_who_signs_in_is_alive_though_a_restored_database_does_not_know_who_declared_what(
    quick: Heirs, planned: bool
) -> None:
    quick.publish(choice=Choice.ANSWER)
    declared = quick.statement()
    if not planned:
        with quick.database.transaction() as session:
            legacies.forget(session, Scope(quick.owner.vault, None))
    with quick.database.transaction() as session:
        assert people.repeat(session, quick.owner.vault, LeafKind.PROFILE, declared, forbids=True, now=LATER)
    assert quick.person.profile.deceased
    quick.sign_in(IN_FORCE)
    assert not quick.person.profile.deceased
