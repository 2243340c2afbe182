"""Askers against an owner who withdraws, narrows or freezes at the same moment, judged by the log's own order."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.http_kit import PURCHASE, PURPOSE, House, Town, slug
from vault.clock import SystemClock
from vault.encoding import b64u, parse_json
from vault.parties import people
from vault.proof.leaf import LeafKind
from vault.schema.consent import ConsentEvent
from vault.schema.question import NextChoice
from vault.seal.ids import ConsentId
from vault.seal.person import sign_freeze
from vault.tlog import log

_FEW = 2
_ROUNDS_OF_ONE = 8
_MANY = int(os.environ.get("TWINVAULT_RACES", "20"))
_ASKERS = 32
_QUOTA = 20
_ASKED = NextChoice(PURCHASE, PURPOSE, 3)  # ranks nothing, so no limit over all companies ends it

Act = Callable[[Town, ConsentId], None]


def withdraw(town: Town, consent: ConsentId) -> None:
    town.ann.withdraw(consent)


def narrow(town: Town, consent: ConsentId) -> None:
    terms = next(item.current.terms for item in town.ann.consents() if item.id == consent)
    town.ann.narrow(consent, replace(terms, quota_per_month=1))


def freeze(town: Town, consent: ConsentId) -> None:
    order(town, frozen=True)


def order(town: Town, *, frozen: bool) -> None:
    """Follow a signed order, as the executors' and the operator's path does."""
    with town.house.database.transaction() as session:
        person = people.get(session, town.ann.vault)
        envelope = sign_freeze(
            town.ann._keys.signer, frozen=frozen, vault_id=town.ann.vault, sequence=person.sequence + 1
        )
        people.follow_freeze(session, town.ann.vault, envelope, now=SystemClock().now())


def events(house: House, town: Town) -> list[tuple[LeafKind, dict[str, Any]]]:
    """Return the owner's leaves in the log's order, with both halves."""
    found: list[tuple[LeafKind, dict[str, Any]]] = []
    after = -1
    with house.database.snapshot() as session:
        while page := log.find(session, about=town.ann.vault, after=after, limit=500):
            for leaf in page:
                assert leaf.personal is not None
                found.append((leaf.kind, {**parse_json(leaf.public.body), **parse_json(leaf.personal.body)}))
            after = page[-1].index
    return found


@pytest.mark.parametrize("act", [withdraw, narrow, freeze])
def test_in_log_order_nothing_is_answered_after_the_owner_said_no(town: Town, act: Act) -> None:
    race(town, act, _FEW)


@pytest.mark.slow
@pytest.mark.parametrize("act", [withdraw, narrow, freeze])
def test_in_many_races_nothing_is_answered_after_the_owner_said_no(town: Town, act: Act) -> None:
    race(town, act, _MANY)


def race(town: Town, act: Act, rounds: int) -> None:
    rng, acme = random.Random(act.__name__), town.acme
    witness = town.house.consent(town.bob, town.acme.company)
    for turn in range(rounds):
        if turn and turn % _ROUNDS_OF_ONE == 0:  # soon nobody may ask about her any more this month
            town = replace(town, ann=town.house.owner_with_twin((1,)))
        consent = town.house.consent(town.ann, town.acme.company, quota_per_month=_QUOTA)
        token = town.acme.token(consent)
        answers: list[Any] = []
        acknowledged = threading.Event()

        def asker(token: str = token, consent: ConsentId = consent, answers: list[Any] = answers) -> None:
            while len(answers) < 4 * _ASKERS:
                late = acknowledged.is_set()  # noqa: B023  (this round's own)
                response = acme.ask(consent, _ASKED, token=token)
                answers.append((late, response))
                if late:
                    return

        threads = [threading.Thread(target=asker) for _ in range(_ASKERS)]
        for thread in threads:
            thread.start()
        threading.Event().wait(rng.uniform(0, 0.6))
        act(town, consent)
        acknowledged.set()
        other = town.acme.ask(witness, _ASKED)
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive()
        assert other.status_code == 200, other.text
        given = [response for _, response in answers if response.status_code == 200]
        assert len(given) <= _QUOTA
        assert {slug(response) for _, response in answers if response.status_code != 200} <= {
            "consent-not-active", "not-permitted", "not-spent", "quota-spent", "keys-gone",
        }  # fmt: skip
        assert not any(late and response.status_code == 200 for late, response in answers)
        if act is freeze:
            order(town, frozen=False)
        if act is not withdraw:
            town.ann.withdraw(consent)  # waits until the log holds everything before it
        judge(town, consent, act)
        assert slug(town.acme.ask(consent, _ASKED, token=token)) in {"not-permitted", "consent-not-active"}
        assert town.acme.token_response(consent).json()["error"] == "invalid_grant"


def judge(town: Town, consent: ConsentId, act: Act) -> None:
    ours = [item for item in events(town.house, town) if item[1].get("consent") in {b64u(consent), None}]
    answered, allowed, version, frozen = 0, _QUOTA, 0, False
    live = False
    seq = 0
    for kind, leaf in ours:
        if "consent_seq" in leaf and kind in {LeafKind.CONSENT, LeafKind.ANSWER, LeafKind.DENIAL}:
            seq += 1
            assert leaf["consent_seq"] == seq
        if kind is LeafKind.FREEZE:
            frozen = not frozen
        elif kind is LeafKind.CONSENT:
            live, version = leaf["event_state"] != ConsentEvent.WITHDRAWN.state, leaf["version"]
            allowed = 1 if act is narrow and version == 2 else allowed
        elif kind is LeafKind.ANSWER:
            answered += 1
            assert live and not frozen  # noqa: PT018
            assert leaf["version"] == version
            assert answered <= allowed
    assert not live
