"""A service that lies about a legacy, with the log's own key: the verifier holds each step against what was signed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import pytest
import sqlalchemy

from tests.legacy_kit import DAY, LATER, ORIGIN, Heirs
from tests.vault_kit import NOW
from vault.clock import unix_s
from vault.db import Database
from vault.encoding import JsonObject, JsonValue, b64u, parse_json
from vault.evidence.bundles import _OPENED
from vault.legacy import shown, steps
from vault.legacy.models import legacy_record
from vault.proof.bundle import parse_bundle
from vault.proof.leaf import LeafKind
from vault.proof.note import VerifierKey
from vault.proof.report import Report, Step
from vault.proof.trust import TrustedRoot
from vault.proof.verify import verify_bundle
from vault.seal.dsse import Envelope
from vault.seal.ids import new_id, sha256
from vault.seal.legacy import Act, Choice, Plan, sign_plan
from vault.seal.person import Role
from vault.seal.signing import SigningKey, new_seed
from vault.tlog.log import append
from vault.tlog.sequencer import Sequencer

IN_FORCE: Final = LATER + 30 * DAY
SEALED: Final = b"s" * 32


@dataclass
class Liar(Heirs):
    """A service that logs what it likes about a legacy, rightly numbered and chained unless told otherwise."""

    log_key: SigningKey = field(default_factory=lambda: SigningKey(new_seed()))
    last: tuple[int, bytes] = (0, b"")
    claim: bytes = field(default_factory=new_id)
    declared: Envelope | None = None

    def step(self, kind: LeafKind, at: datetime, signed: Envelope, **said: Any) -> None:
        seq, prev = self.last
        personal: JsonObject = {
            "vault": b64u(self.owner.vault), "plan": b64u(self.prev), "record": b64u(signed.digest), "at": unix_s(at),
            "seq": seq + 1, "prev": b64u(prev), **said,
        }  # fmt: skip
        with self.database.transaction() as session:
            pending = append(session, kind, {"period": "2026-11"}, personal, about=self.owner.vault)
            kept = {"pending_id": pending.id, "vault_id": self.owner.vault, "envelope": signed.encoded}
            session.connection().execute(sqlalchemy.insert(legacy_record), kept)
        self.last = seq + 1, sha256(pending.openings.personal.body)

    def planned(self, signed: Envelope | None = None, at: datetime = NOW, **said: Any) -> None:
        signed = signed or self.plan(self.terms())
        self.prev, self.version = signed.digest, self.version + 1
        self.step(LeafKind.LEGACY_PLAN, at, signed, **{"version": self.version} | said)

    def claimed(self, at: datetime = LATER, signed: Envelope | None = None, **said: Any) -> None:
        self.declared = signed or self.statement(now=at, claim=self.claim)
        until = unix_s(at) + 30 * 86_400
        self.step(LeafKind.LEGACY_CLAIM, at, self.declared, **{"claim": b64u(self.claim), "until": until} | said)

    def forced(self, at: datetime = IN_FORCE, **said: Any) -> None:
        assert self.declared is not None
        self.step(LeafKind.LEGACY_FORCE, at, self.declared, **{"claim": b64u(self.claim)} | said)

    def opened(self, at: datetime = IN_FORCE, signed: Envelope | None = None, **said: Any) -> None:
        signed = signed or self.statement(now=at, claim=self.claim, act=Act.OPEN)
        named: list[JsonValue] = [b64u(SEALED)]
        self.step(LeafKind.LEGACY_OPEN, at, signed, **{"claim": b64u(self.claim), "consents": named, "count": 1} | said)

    def vetoed(self, at: datetime = LATER + DAY, signed: Envelope | None = None, **said: Any) -> None:
        signed = signed or self.answered(at)
        self.step(LeafKind.LEGACY_VETO, at, signed, **{"claim": b64u(self.claim)} | said)

    def report(self) -> Report:
        key = VerifierKey("log.example/test", self.log_key.public_key)
        sequencer = Sequencer(self.database, key, self.log_key.sign)
        sequencer.start()
        try:
            with self.database.transaction() as session:
                last = append(session, LeafKind.POLICY_SET, {}, {})
            sequencer.wait(last.id, 20)
        finally:
            sequencer.stop()
        trust = TrustedRoot(ORIGIN, key.name, key, new_seed())
        with self.database.snapshot() as session:
            return verify_bundle(parse_bundle(shown.bundle(session, self.owner.vault)), trust)


@pytest.fixture
def liar(sqlite_database: Database, shortkeys: Database) -> Iterator[Liar]:
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
    assert report.checked[Step.LEGACY] == 8
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


def in_force_for_answers(liar: Liar) -> None:
    liar.planned(liar.plan(liar.terms(choice=Choice.ANSWER, sealed=(SEALED,))))
    liar.claimed()
    liar.forced()


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
