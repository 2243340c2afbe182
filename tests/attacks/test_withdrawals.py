"""32 askers while the owner gives and withdraws 200 times, against the app in its own process, judged by the log.

`TWINVAULT_WITHDRAWALS` sets how many times. How the askers and the owner meet is random; what must hold
holds however they meet, and over all rounds both sides of every withdrawal must have been seen.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.attacks.test_http_races import events
from tests.http_kit import PURCHASE, PURPOSE, House, Town, new_databases, slug
from tests.process_kit import RemoteCaller, app_process
from vault.encoding import b64u
from vault.proof.leaf import LeafKind
from vault.schema.consent import ConsentEvent
from vault.schema.question import NextChoice
from vault.seal.ids import ConsentId

pytestmark = pytest.mark.slow

_WITHDRAWALS = int(os.environ.get("TWINVAULT_WITHDRAWALS", "200"))
_ASKERS = 32
_QUOTA = 20
_SPREAD_S = 0.5
_ASKED = NextChoice(PURCHASE, PURPOSE, 3)
_REFUSALS = {"consent-not-active", "not-spent", "quota-spent", "keys-gone"}


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    urls: tuple[str | None, str | None] = (None, None)
    if request.param == "postgresql":
        urls = new_databases(request.getfixturevalue("postgresql_server"))
    with app_process(tmp_path_factory.mktemp("process"), *urls) as (_, found):
        yield found


Witness = tuple[RemoteCaller, ConsentId]


def settle(house: House) -> tuple[Town, list[Witness]]:
    """Let them move in; the witnesses are consents that nobody withdraws, of the same company and of the same owner."""
    ann, bob = house.owner_with_twin((1,)), house.owner_with_twin((1,))
    acme, rival = RemoteCaller(house, house.company("Acme")), RemoteCaller(house, house.company("Rival"))
    first = house.consent(ann, acme.company), house.consent(bob, rival.company)
    wide = {"quota_per_month": 1_000_000}
    others = [
        (rival, house.consent(ann, rival.company, **wide)),
        (acme, house.consent(bob, acme.company, **wide)),
        (acme, house.consent(ann, acme.company, **wide)),
    ]
    return Town(house, ann, bob, acme, rival, *first), others


@dataclass
class Life:
    """One consent from giving to withdrawing, with the token that is for it."""

    acme: RemoteCaller
    consent: ConsentId
    token: str
    over: threading.Event = field(default_factory=threading.Event)
    """Set once the withdrawal is acknowledged."""

    def ask(self, wait_s: float) -> tuple[bool, httpx.Response]:
        """Ask after a while; say whether the withdrawal was acknowledged before."""
        threading.Event().wait(wait_s)
        late = self.over.is_set()
        return late, self.acme.ask(self.consent, _ASKED, token=self.token)


def is_active(acme: RemoteCaller, token: str) -> bool:
    form = {
        "token": token,
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": acme.assertion(),
    }
    answer = acme.house.http.post("/v1/introspect", data=form)
    assert answer.status_code == 200, answer.text
    return bool(answer.json()["active"])


def test_200_withdrawals_under_32_askers(house: House) -> None:
    (town, others), rng = settle(house), random.Random(200)
    given: dict[ConsentId, int] = {}
    refused: Counter[str] = Counter()
    with ThreadPoolExecutor(_ASKERS) as pool:
        for _ in range(_WITHDRAWALS):
            consent = house.consent(town.ann, town.acme.company, quota_per_month=_QUOTA)
            token = town.acme.token(consent)
            life = Life(town.acme, consent, token)
            asked = [pool.submit(life.ask, rng.uniform(0, _SPREAD_S)) for _ in range(_ASKERS - len(others))]
            unaffected = [pool.submit(caller.ask, other, _ASKED, token=caller.token()) for caller, other in others]
            threading.Event().wait(rng.uniform(0, _SPREAD_S))
            town.ann.withdraw(consent)
            life.over.set()
            after = life.ask(0)
            answers = [*(found.result(120) for found in asked), after]
            given[consent] = sum(response.status_code == 200 for _, response in answers)
            refused.update(slug(response) for _, response in answers if response.status_code != 200)
            assert not any(late and response.status_code == 200 for late, response in answers)
            assert after[1].status_code == 403, after[1].text
            assert not is_active(town.acme, token)
            assert town.acme.token_response(consent).json()["error"] == "invalid_grant"
            for found in unaffected:
                assert found.result(120).status_code == 200, found.result().text
    assert set(refused) <= _REFUSALS
    assert refused["consent-not-active"] >= _WITHDRAWALS  # at least the one after each acknowledgement
    assert sum(given.values()) > 0
    assert max(given.values()) <= _QUOTA
    judge(town, given)


def judge(town: Town, given: dict[ConsentId, int]) -> None:
    """In the log's order: every consent's events are dense, and nothing is answered outside its life or quota."""
    chains: dict[str, list[tuple[LeafKind, dict[str, Any]]]] = defaultdict(list)
    for kind, leaf in events(town.house, town):
        if "consent_seq" in leaf:
            chains[leaf["consent"]].append((kind, leaf))
    assert {b64u(consent) for consent in given} <= chains.keys()
    for consent, count in given.items():
        chain = chains[b64u(consent)]
        assert [leaf["consent_seq"] for _, leaf in chain] == [*range(1, len(chain) + 1)]
        kinds = [kind for kind, _ in chain]
        states = [leaf["event_state"] for kind, leaf in chain if kind is LeafKind.CONSENT]
        assert states == [ConsentEvent.GIVEN.state, ConsentEvent.WITHDRAWN.state]
        withdrawn_at = len(kinds) - 1 - kinds[::-1].index(LeafKind.CONSENT)
        answered = [at for at, kind in enumerate(kinds) if kind is LeafKind.ANSWER]
        assert len(answered) == count <= _QUOTA
        assert all(at < withdrawn_at for at in answered)
        assert [chain[at][1]["quota_left"] for at in answered] == [*range(_QUOTA - 1, _QUOTA - 1 - count, -1)]
