"""What a company sees and what answering takes depend on noisy rows, the consent and public facts, never on traces.

Two vaults with equal rows, one rich in traces and one that never held any, give equal bytes once what
must differ is masked: the ids of vault, consent, subject, question and releases, the salts, every hash
and signature over those, and the place in the log. Times need no mask: the clock stands still. Work is
counted, not timed: every SQL statement in order, and every call of a function of `vault` but those that
run a statement. What reads the log's own tree is left out of both, and so is the spelling of bytes as text, once for every hash of
a proof: their steps follow the log's public size. The sweep of used-up proofs, which names the
time, follows a hash of the asker's own proof.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from difflib import unified_diff
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy

from tests.answer_kit import NEXT, OFFER, SIGMA, Service, answer_in, neighbour, running, slug_of
from tests.consent_kit import PURPOSE
from tests.twin.lens_kit import release_trained, seen_through, with_habits
from tests.twin.worker_kit import OCTOBER, RETAIL, RETAIL_DAILY, SEPTEMBER
from tests.vault_kit import MONTH, PURCHASE
from vault.answers import routes
from vault.answers.clerks import Steps
from vault.answers.reveals import narrow
from vault.db import Database
from vault.encoding import JsonObject, b64u, parse_json
from vault.imprint.features import Cadence
from vault.imprint.noise import DiscreteGaussian, Integers
from vault.imprint.reveals import reveals_of
from vault.imprint.rows import Row, noisy
from vault.parties import people
from vault.parties.people import VaultState
from vault.proof.bound import verify_bound_event
from vault.proof.bundle import Bundle
from vault.proof.leaf import LeafKind
from vault.schema.answer import answer_bytes
from vault.schema.consent import ConsentVersion
from vault.schema.question import MAX_CANDIDATES, Candidate, NextChoice, Question, Recommend
from vault.seal.dsse import PayloadType, sign_record
from vault.seal.ids import ConsentId, new_id
from vault.seal.signing import SigningKey, new_seed
from vault.twin import rows
from vault.twin.children import Children

FEW = Recommend(PURCHASE, PURPOSE, (Candidate("acme:unheard-of", "tea"), Candidate("acme:other", "")), 1)
_NAMES = [name for name in RETAIL.names[:-2] if not reveals_of("", name)]
TEXTS = Recommend(
    PURCHASE,
    PURPOSE,
    tuple(Candidate(f"x:{at}", f"{_NAMES[at % len(_NAMES)]} of kind {at}") for at in range(MAX_CANDIDATES)),
    20,
)
_LOG_TREE = ("/vault/tlog/", "/vault/proof/merkle.py", "/vault/proof/tiles.py", "/vault/proof/receipt.py")
_UNCOUNTED = (
    "/vault/connections.py",
    "/vault/db.py",
    "/vault/driver.py",
    *_LOG_TREE,
)  # the statements themselves are compared
_NOT_OF_A_PERSON = ("log_tile", "leaf_index", "DELETE FROM spent")
_HASHED = {"question", "decision", "record", "prev", "bound", "subject_salt"}


@dataclass
class Work:
    """What one question took."""

    statements: list[str] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)


@dataclass
class Pair:
    """Two people whose rows are equal; one company may ask about both."""

    rich: Service
    empty: Service
    works: list[Work] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.consents: dict[int, ConsentVersion] = {}

    def consent(self, **changed: Any) -> None:
        self.consents = {id(one): one.consent(**changed) for one in (self.rich, self.empty)}

    def ask(self, question: Question | bytes) -> tuple[httpx.Response, httpx.Response]:
        """Ask about both, one after the other; `works` gets what each took."""
        rich, empty = (one.ask(self.consents[id(one)], question) for one in (self.rich, self.empty))
        return rich, empty

    def masked(self, responses: tuple[httpx.Response, httpx.Response]) -> list[Any]:
        return [
            masked(response, self.consents[id(one)])
            for one, response in zip((self.rich, self.empty), responses, strict=True)
        ]


def masked(response: httpx.Response, consent: ConsentVersion) -> Any:
    """Return all that a response shows, without what must differ between two people."""
    shown = {name: value for name, value in response.headers.items() if name != "content-length"}
    if response.status_code != 200:
        return response.status_code, shown, response.content
    answer, bundle = answer_in(response)
    ids = {b64u(consent.consent_id): "CONSENT", b64u(consent.subject): "SUBJECT", b64u(answer.question_id): "QUESTION"}
    blank = replace(
        answer, question_id=bytes(16), consent_id=bytes(16), subject=bytes(16), salt=bytes(16), releases=frozenset()
    )
    sizes = sorted(len(record) for record in bundle.records.values())
    return response.status_code, shown, answer_bytes(blank), len(answer.releases), sizes, _leaves(bundle, ids)


def _leaves(bundle: Bundle, ids: dict[str, str]) -> list[JsonObject]:
    found: list[JsonObject] = []
    for leaf in bundle.leaves:
        public = parse_json(leaf.public.body)
        if public["kind"] not in {LeafKind.ANSWER, LeafKind.CONSENT}:
            continue  # models, rules and companies are the same leaves for both
        personal = parse_json(leaf.personal.body) if leaf.personal else {}
        if personal:
            verify_bound_event(public, personal)  # by a salt of its own, which is left out below
        found += [
            {name: ids.get(str(value), value) for name, value in half.items() if name not in _HASHED}
            for half in (public, personal)
        ]
    return found


@contextmanager
def watched(service: Service, works: list[Work]) -> Iterator[None]:
    """Record the statements and calls of every question that is asked meanwhile."""
    current = threading.local()
    asked = routes.ask

    def profile(frame: Any, event: str, _arg: object) -> None:
        code = frame.f_code
        ours = event == "call" and "/vault/" in code.co_filename
        if ours and code.co_name not in {"b64u", "unix_s"} and not any(part in code.co_filename for part in _UNCOUNTED):
            current.work.calls[f"{code.co_filename.rpartition('/vault/')[2]}:{code.co_qualname}"] += 1

    def ask(*args: Any) -> Steps:
        work, steps = Work(), asked(*args)
        works.append(work)
        while True:
            current.work = work
            sys.setprofile(profile)
            try:
                pending = next(steps)
            except StopIteration as finished:
                return bytes(finished.value)
            finally:
                sys.setprofile(None)
                current.work = None
            yield pending

    def executed(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        work = getattr(current, "work", None)  # the sequencer's own thread has none
        if work is not None and not any(part in statement for part in _NOT_OF_A_PERSON):
            work.statements.append(statement)

    engines = (service.database.engine, service.shortkeys.engine)
    routes.ask = ask
    for engine in engines:
        sqlalchemy.event.listen(engine, "before_cursor_execute", executed)
    try:
        yield
    finally:
        routes.ask = asked
        for engine in engines:
            sqlalchemy.event.remove(engine, "before_cursor_execute", executed)


def same_work(first: Work, second: Work) -> None:
    assert list(unified_diff(first.statements, second.statements, n=0)) == []
    assert (first.calls - second.calls, second.calls - first.calls) == (Counter(), Counter())


def put_equal(values: dict[Any, Integers], *services: Service) -> None:
    for service in services:
        service.put(*(Row(new_id() * 2, RETAIL.digest, p, 0, RETAIL.clip, SIGMA, v) for p, v in values.items()))


def another(like: Service) -> Service:
    """Another person at the same app, whom the same company may ask about."""
    found = neighbour(like)
    found.company, found.client = like.company, like.client
    return found


@pytest.fixture
def pair(service: Service) -> Iterator[Pair]:
    rich, empty = another(service), another(service)
    values = noisy([RETAIL.day_vector([RETAIL.codes[3]]) * 9] * 2, DiscreteGaussian(SIGMA))
    put_equal(dict(zip((SEPTEMBER, OCTOBER), values, strict=True)), rich, empty)
    for day in range(1, 15):
        rich.buy(RETAIL.codes[day], RETAIL.codes[0], day=day)
        rich.buy(RETAIL.codes[1], day=day, period=SEPTEMBER)
    found = Pair(rich, empty)
    for question in (NEXT, OFFER, FEW):
        answer_in(service.ask(service.consent(), question))  # what all people share is warm from here on
    with watched(service, found.works):
        yield found


@pytest.mark.parametrize("question", [NEXT, OFFER, FEW, TEXTS], ids=["next", "offer", "unknown codes", "500 texts"])
def test_equal_rows_give_equal_bytes_and_equal_work(pair: Pair, question: Question) -> None:
    narrow(question, RETAIL, frozenset(), ConsentId(bytes(16)))  # what a text could reveal is found once for all people
    pair.consent()
    for _ in range(2):  # cold, then with whatever is remembered
        rich, empty = pair.masked(pair.ask(question))
        assert rich[0] == 200
        assert rich == empty
    assert [len(work.statements) > 5 for work in pair.works] == [True] * 4
    cold, warm = pair.works[:2], pair.works[2:]
    for first, second in (cold, warm):
        same_work(first, second)
    assert cold[0].calls["answers/opened.py:OpenedRows._payload"] == 2, "two rows were opened, and they were counted"


def refusals() -> dict[str, tuple[Question | bytes, Callable[[Pair], None]]]:
    def freeze(pair: Pair) -> None:
        cause = sign_record(PayloadType.FREEZE, {"why": "test"}, SigningKey(new_seed()))
        for one in (pair.rich, pair.empty):
            with one.database.transaction() as session:
                people.freeze(session, one.owner.vault, VaultState.FROZEN, cause, now=one.clock.at)

    def spend(pair: Pair) -> None:
        pair.consent(quota_per_month=1)
        pair.ask(NEXT)

    def withdraw(pair: Pair) -> None:
        for one in (pair.rich, pair.empty):
            one.withdraw(pair.consents[id(one)])

    def drop(pair: Pair) -> None:
        other = noisy([RETAIL.day_vector([]) * 0], DiscreteGaussian(SIGMA))[0]
        for one in (pair.rich, pair.empty):
            stranger = SigningKey(new_seed())
            one.put(Row(new_id() * 2, RETAIL.digest, OCTOBER, 0, RETAIL.clip, SIGMA, other), signer=stranger)

    return {
        "quota": (NEXT, spend),
        "frozen": (NEXT, freeze),
        "withdrawn": (NEXT, withdraw),
        "another purpose": (replace(NEXT, purpose="dpv:Marketing"), lambda _: None),
        "no question": (b"{}", lambda _: None),
        "a row that the worker did not sign": (NEXT, drop),
    }


@pytest.mark.parametrize("why", list(refusals()))
def test_refusals_are_equal_too(pair: Pair, why: str) -> None:
    pair.consent()
    question, prepare = refusals()[why]
    prepare(pair)
    pair.works.clear()
    responses = pair.ask(question)
    rich, empty = pair.masked(responses)
    assert rich == empty
    assert rich[0] != 200, slug_of(responses[0])
    assert len(pair.works) == (0 if why == "no question" else 2)
    for first, second in zip(pair.works[::2], pair.works[1::2], strict=True):
        same_work(first, second)


@pytest.mark.parametrize("through", [False, True], ids=["plain", "through a lens"])
@pytest.mark.parametrize("question", [NEXT, OFFER], ids=["next", "offer"])
def test_equal_daily_rows_of_full_and_empty_vaults_give_equal_bytes_and_equal_work(
    sqlite_database: Database, shortkeys: Database, tmp_path: Path, question: Question, through: bool
) -> None:
    made = Service(sqlite_database, shortkeys, keyring=tmp_path / "keyring", cadence=Cadence.DAILY)
    made.release_model()
    model = with_habits()
    if through:
        release_trained(made.database, model, made.worker_key)
    with running(made) as service, Children() as children:
        rich, empty = another(service), another(service)
        for day in range(1, 15):
            rich.buy(*RETAIL.codes[: day + 2], day=day)
        for one in (rich, empty):
            version = one.keep_twin()
            assert one.refresh(children, version).rows == 4
            one.clock.at += timedelta(days=1)
            assert one.refresh(children, version).rows == 1
            one.clock.at -= timedelta(days=1)
        # Every closed day and every month has a row in either, of one size, at one cost.
        alike = [
            [(r.period, r.mechanism, r.place, len(r.sealed), r.mu2_micro) for r in one.stored()]
            for one in (rich, empty)
        ]
        assert alike[0] == alike[1]
        assert len(alike[0]) == 5
        blocks = empty.blocks()
        expected = seen_through(model) if through else RETAIL_DAILY
        assert {block.map_digest for block in blocks} == {expected.digest}
        for one in (rich, empty):
            with one.database.transaction() as session:
                rows.forget(session, one.owner.vault)
            for block in blocks:
                one.put_block(replace(block, release_id=new_id() * 2))
        pair = Pair(rich, empty)
        answer_in(service.ask(service.consent(), question))
        with watched(service, pair.works):
            pair.consent(data_from=SEPTEMBER, data_to=MONTH)
            pair.ask(question)  # whoever asks first about a schedule of rows finds their weights, a public fact
            pair.consent(data_from=SEPTEMBER, data_to=MONTH)
            pair.works.clear()
            for _ in range(2):  # cold, then with whatever is remembered
                first, second = pair.masked(pair.ask(question))
                assert first == second
                assert first[0] == 200
        for at in (0, 2):
            same_work(*pair.works[at : at + 2])
        assert pair.works[0].calls["answers/opened.py:OpenedRows._payload"] == 4, "four blocks were opened"


def test_a_twin_of_nothing_answers_like_any_other_with_its_rows(quick: Service) -> None:
    rich, empty = another(quick), another(quick)
    rich.buy(*RETAIL.codes[:5])
    with Children() as children:
        for one in (rich, empty):
            assert one.refresh(children, one.keep_twin()).rows == 2
    # The worker made a row of every month of either, of one size, under leaves whose public halves tell nothing.
    assert [(row.period, len(row.sealed), row.mu2_micro) for row in rich.stored()] == [
        (row.period, len(row.sealed), row.mu2_micro) for row in empty.stored()
    ]
    put_equal({row.period: empty.read(row).values for row in empty.stored()}, rich)
    for one in (rich, empty):  # the same noise under the same scale, as new releases
        one.put(*(replace(empty.read(row), release_id=new_id() * 2) for row in empty.stored()))
    pair = Pair(rich, empty)
    answer_in(quick.ask(quick.consent(), OFFER))
    with watched(quick, pair.works):
        pair.consent(data_from=SEPTEMBER, data_to=MONTH)
        for question in (OFFER, NextChoice(PURCHASE, PURPOSE, 20)):
            first, second = pair.masked(pair.ask(question))
            assert first == second
            assert first[0] == 200
    same_work(*pair.works[:2])
