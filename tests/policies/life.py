"""A service through whose days people change, companies ask, and all of it is decided, logged and stored."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.answer_kit import REFRESH_WINDOW, Service, become, freeze, suspend
from tests.company_kit import CompanyKit
from tests.consent_kit import PURPOSE
from tests.http_kit import await_sequencer
from tests.vault_kit import PURCHASE
from vault.answers import records
from vault.encoding import b64u, parse_b64u, parse_json
from vault.parties import companies
from vault.parties.companies import CompanyStatus
from vault.parties.people import VaultState
from vault.policy import sets
from vault.proof.decision import evaluate, parse_policy_set
from vault.proof.decision_record import parse_decision
from vault.proof.leaf import LeafKind
from vault.schema.category import CATEGORIES, Category, Purpose
from vault.schema.consent import ConsentVersion
from vault.schema.question import Candidate, NextChoice, Question, QuestionKind, Recommend
from vault.schema.terms import ConsentKind
from vault.seal.ids import sha256
from vault.seal.person import Profile
from vault.tlog import log

_TABLE = re.compile(r"^\| `([a-z-]+)` \| .+ \| `(tests/[^`]+)` \|$", re.MULTILINE)
NOT_ASKED = dict(_TABLE.findall((Path(__file__).parents[2] / "policies" / "README.md").read_text("utf-8")))
"""Rules that decide nothing that can be asked over HTTP, each with the test that shows why, as the README's table says."""

_SPECIAL = frozenset(Category(name) for name, term in CATEGORIES.items() if term.special)
LOCATION = Category("pd:Location")
_AIMS = ("x:Persuasion", "dpv:PoliticalCampaign", "dpv:SellInsightsFromData", "dpv:Marketing")
_WORDS = (
    "bread", "tea", "vitamin", "bible", "union dues", "dna test", "fingerprint", "gay pride", "hispanic", "politics",
    "prescription", "atheist", "anxiety", "condom", "medical record", "surgery", "physiotherapy",
)  # fmt: skip


@dataclass
class Life:
    """One owner, a company and a company's agent; `rng` says what happens next."""

    service: Service
    rng: random.Random
    people: CompanyKit = field(init=False)
    agent: CompanyKit = field(init=False)
    given: list[tuple[CompanyKit | None, ConsentVersion]] = field(default_factory=list)

    def __post_init__(self) -> None:
        service = self.service
        self.people, self.agent = service.company, CompanyKit(name="Bot")
        with service.database.transaction() as session:
            companies.register(session, self.agent.record(service.clock.at, agent=1), now=service.clock.at)
        every = frozenset({PURPOSE, *map(Purpose, _AIMS)})
        wide: dict[str, Any] = {"quota_per_month": 900}
        self._give(self.people, **wide)
        self._give(self.people, purposes=every, influence_opt_in=True, explicit_special=_SPECIAL, **wide)
        self._give(self.people, purposes=every, post_mortem=frozenset({PURPOSE}), **wide)
        self._give(self.people, questions=frozenset({QuestionKind.RECOMMEND}), **wide)
        self._give(self.people, necessary=frozenset({LOCATION}), **wide)
        self._give(self.people, quota_per_month=3)
        self._give(self.people, not_after=self._in(days=1), **wide)
        self._give(self.agent, **wide)
        self._give(self.agent, agent_allowed=True, **wide)
        self.given.append(self.given[-1])  # asked twice as often, so that its smaller quota ends
        service.withdraw(self._give(self.people, **wide))
        self.given.append((None, service.give(ConsentKind.SELF, **REFRESH_WINDOW, quota_per_month=900)))
        service.clock.at += timedelta(days=2)

    def ask(self, count: int) -> None:
        """Ask so many questions; now and then something changes for the person or a company."""
        for _ in range(count):
            self.service.clock.at += timedelta(seconds=7)  # so seldom that no denial is one of a flood
            if self.rng.random() < 0.15:
                self.rng.choice(self._changes())()
            asker, consent = self.rng.choice(self.given)
            question = self._question()
            if asker is None:
                response = self.service.ask_own(consent, question)
            else:
                self.service.company = asker
                response = self.service.ask(consent, question)
            assert response.status_code in {200, 403, 429}, response.text

    def _give(self, to: CompanyKit, **changed: Any) -> ConsentVersion:
        self.service.company = to
        made = self.service.consent(**changed)
        self.given.append((to, made))
        return made

    def _in(self, days: int) -> int:
        return int((self.service.clock.at + timedelta(days=days)).timestamp())

    def _question(self) -> Question:
        purpose = PURPOSE if self.rng.random() < 0.7 else Purpose(self.rng.choice(_AIMS))
        if self.rng.random() < 0.6:
            return NextChoice(PURCHASE, purpose, self.rng.randint(1, 5))
        named = self.rng.sample(_WORDS, self.rng.randint(1, 3)) if self.rng.random() < 0.5 else ["bread"]
        candidates = [Candidate(f"acme:{self.rng.randint(0, 60)}-{word.split()[0]}", word) for word in named]
        return Recommend(PURCHASE, purpose, tuple(candidates), 1)

    def _changes(self) -> list[Callable[[], None]]:
        service = self.service
        calm: list[Callable[[], None]] = [
            lambda: become(service, Profile()),
            lambda: freeze(service, VaultState.ACTIVE),
            lambda: suspend(service, CompanyStatus.ACTIVE),
        ]
        profiles = (Profile(minor=True), Profile(minor=True, guardian_ok=True), Profile(deceased=True))
        return [
            *calm,
            *calm,
            *calm,
            *(lambda profile=profile: become(service, profile) for profile in profiles),
            lambda: freeze(service),
            lambda: suspend(service),
        ]


def read_decisions(service: Service) -> tuple[bytes, list[tuple[bytes, bool, list[str]]]]:
    """Return the policy set's bytes and every decision as stored: its record, whether it allowed, and the rules logged.

    An answer's leaf names no rule: its permit follows from the record under the stored set.
    """
    found: list[tuple[bytes, bool, list[str]]] = []
    await_sequencer(service.database)
    with service.database.snapshot() as session:
        source = sets.get(session, service.rules.sha256)
        rules, after = parse_policy_set(source), -1
        while page := log.find(session, about=service.owner.vault, after=after, limit=256):
            after = page[-1].index
            decided = {leaf.pending_id: leaf for leaf in page if leaf.kind in {LeafKind.ANSWER, LeafKind.DENIAL}}
            kept = records.read(session, service.desk().serving, decided)
            for name, leaf in decided.items():
                assert leaf.personal is not None
                personal, decision = parse_json(leaf.personal.body), kept[name].decision
                assert parse_b64u(parse_json(leaf.public.body)["policy_set"]) == service.rules.sha256
                assert personal["decision"] == b64u(sha256(decision))
                allowed = leaf.kind is LeafKind.ANSWER
                named = (
                    personal["rules"] if not allowed else evaluate(parse_decision(parse_json(decision)), rules).reasons
                )
                found.append((decision, allowed, [str(name) for name in named]))
    return source, found
