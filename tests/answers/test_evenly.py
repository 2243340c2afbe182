"""Whether a consent is unknown or its person refused: neither the bytes nor the time of the refusal tells."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.answer_kit import NEXT, Service, neighbour
from tests.waiting import together, until
from vault.answers import clerks, evenly
from vault.answers.evenly import BEAT_S, even_refusals
from vault.parties import people
from vault.parties.people import VaultState
from vault.policy.permits import Forbidden, QuotaSpent
from vault.seal.dsse import PayloadType, sign_record
from vault.seal.ids import new_id
from vault.seal.signing import SigningKey, new_seed


class Watch:
    """A clock that moves only when somebody works or sleeps."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch = Watch()
    monkeypatch.setattr(evenly, "time", watch)
    monkeypatch.setattr(evenly, "asyncio", watch)
    return watch


async def refused(watch: Watch, work_s: float, refusal: Exception) -> None:
    async with even_refusals():
        watch.now_s += work_s
        raise refusal


async def answered() -> None:
    async with even_refusals():
        pass


def taken(watch: Watch, work_s: float, refusal: Exception) -> float:
    started_s = watch.now_s
    with pytest.raises(type(refusal)):
        asyncio.run(refused(watch, work_s, refusal))
    return round((watch.now_s - started_s) / BEAT_S, 6)


@pytest.mark.parametrize(("work", "beats"), [(0, 1), (0.01, 1), (0.99, 1), (1.01, 2), (7.5, 8)])
def test_refusals_that_name_nothing_leave_on_the_beat(watch: Watch, work: float, beats: int) -> None:
    assert taken(watch, work * BEAT_S, Forbidden("no")) == beats


def test_what_may_be_told_waits_for_nothing(watch: Watch) -> None:
    assert taken(watch, 0.5 * BEAT_S, QuotaSpent("no")) == 0.5
    assert taken(watch, 0.5 * BEAT_S, ValueError()) == 0.5
    asyncio.run(answered())
    assert watch.now_s == pytest.approx(1000 + BEAT_S)


def test_a_wait_for_a_clerk_does_not_move_the_beat(service: Service, watch: Watch) -> None:
    office, free = service.client.app.state.clerks, threading.Event()  # type: ignore[attr-defined]
    busy = [office._submit(clerks._Turn.DECIDE, free.wait) for _ in range(office._count)]
    until(lambda: all(one.running() for one in busy), "every clerk has begun, so only the question can wait")

    def free_one_late() -> None:
        until(lambda: office._tasks.qsize() == 1, "the question waits for a clerk")
        watch.now_s += 0.9 * BEAT_S
        free.set()

    response, _ = together(lambda: service.ask(new_id(), NEXT), free_one_late)
    assert response.status_code == 403
    assert all(waiting.result() for waiting in busy)
    assert (watch.now_s - 1000.0) / BEAT_S == pytest.approx(1.9)


def rank(ours: list[float], theirs: list[float]) -> float:
    """Return how often one sample exceeds another: 0.5 if nobody can tell them apart (Mann-Whitney)."""
    return sum((a > b) + 0.5 * (a == b) for a in ours for b in theirs) / (len(ours) * len(theirs))


@pytest.mark.slow
def test_an_unknown_consent_and_a_refused_person_cannot_be_told_apart(service: Service) -> None:
    mine, stranger = service.consent(), neighbour(service).consent()
    cause = sign_record(PayloadType.FREEZE, {"why": "test"}, SigningKey(new_seed()))
    with service.database.transaction() as session:
        people.freeze(session, service.owner.vault, VaultState.FROZEN, cause, now=service.clock.at)
    kinds: dict[str, Callable[[], Any]] = {
        "unknown": new_id,
        "somebody else's": lambda: stranger,
        "refused": lambda: mine,
    }
    took: dict[str, list[float]] = {kind: [] for kind in kinds}
    seen = set()
    rng = random.Random(5)
    for _ in range(120):
        for kind in rng.sample(sorted(kinds), len(kinds)):
            asked_s = time.perf_counter()
            response = service.ask(kinds[kind](), NEXT)
            took[kind].append(time.perf_counter() - asked_s)
            seen.add((response.status_code, response.content, tuple(sorted(response.headers.items()))))
    assert len(seen) == 1, "status, headers and body are the same bytes"
    assert 0.3 < rank(took["refused"], took["unknown"]) < 0.7
    assert 0.3 < rank(took["refused"], took["somebody else's"]) < 0.7
