from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.client_kit import PURCHASE, Service, Tamper, company_terms, purchases
from twinvault.api import Api, ApiError
from twinvault.auditor import Auditor
from twinvault.company import Company
from twinvault.owner import Owner
from twinvault.profile import RolledBack
from twinvault.receipts import NoReceipt, verify_answered
from twinvault.terms import OWN_PURPOSE
from vault.encoding import b64u, parse_b64u, parse_json
from vault.errors import VaultError
from vault.proof.bundle import Withheld, dump_bundle, parse_bundle, records_by_hash
from vault.proof.leaf import LeafKind, Part, verify_opening
from vault.proof.note import VerifierKey
from vault.proof.published import CLASSIFIERS
from vault.schema.answer import SCHEMA_VERSION
from vault.schema.category import Purpose
from vault.schema.question import Candidate, NextChoice, Question, Recommend
from vault.schema.terms import ConsentKind
from vault.seal.ids import ID_BYTES, ConsentId
from vault.seal.signing import SigningKey, new_seed

PURPOSE = Purpose("dpv:ProvideProductRecommendations")
CODES = ("completejourney:bacon", "completejourney:apples", "completejourney:bag-snacks")
QUESTION = Recommend(PURCHASE, PURPOSE, tuple(Candidate(code, "") for code in CODES), 2)

INSULIN = Recommend(PURCHASE, PURPOSE, (Candidate(CODES[0], ""), Candidate("acme:1", "Insulin pen, 3 ml")), 1)


@dataclass
class Twin:
    """An owner whose twin was refreshed, and a company that may ask it."""

    owner: Owner
    company: Company
    consent: ConsentId


@pytest.fixture
def twin(owner: Owner, company: Company, work: Callable[[], None]) -> Twin:
    owner.give(owner.terms_for(ConsentKind.SELF, [PURCHASE]))
    for month in (1, 2, 3):
        owner.import_traces(purchases(20, month=month))
    owner.refresh()
    work()
    assert owner.twin()["releases"], owner.twin()
    terms = replace(company_terms(company, owner, quota_per_month=50), purposes=frozenset({PURPOSE}))
    asked = owner.read_request(company.sign_request(terms))
    return Twin(owner, company, owner.give_company(asked).version.consent_id)


def test_a_company_and_the_owner_get_proven_answers(twin: Twin, service: Service, tmp_path: Path) -> None:
    answered = twin.company.ask(twin.consent, QUESTION)
    assert {item.code for item in answered.answer.predictions} <= set(CODES)
    own = twin.owner.ask(NextChoice(PURCHASE, OWN_PURPOSE, 5))
    assert len(own.answer.predictions) <= 5
    file = tmp_path / "answer.bundle"
    for found in (answered, own):
        file.write_bytes(found.bundle)
        report = Auditor(service.trust).verify(file)
        assert (report.failures, bool(report.checked)) == ((), True)
    kinds = [event["kind"] for event in twin.owner.history()]
    assert kinds.count("answer") == 2


def test_the_same_question_id_repeats_the_answer_and_another_body_is_refused(twin: Twin, api: Api) -> None:
    question_id = secrets.token_bytes(ID_BYTES)
    first = twin.company.ask(twin.consent, QUESTION, question_id)
    again = Company.load(twin.company.profile.folder, api=api).ask(twin.consent, QUESTION, question_id)
    assert again.answer == first.answer
    with pytest.raises(ApiError) as refusal:
        twin.company.ask(twin.consent, replace(QUESTION, top_n=1), question_id)
    assert refusal.value.status == 409


def test_after_a_withdrawal_nobody_answers(twin: Twin) -> None:
    twin.company.ask(twin.consent, QUESTION)
    twin.owner.withdraw(twin.consent)
    with pytest.raises(ApiError):
        twin.company.ask(twin.consent, QUESTION)


def test_another_purpose_is_denied_and_the_owner_sees_the_rule(twin: Twin) -> None:
    with pytest.raises(ApiError):
        twin.company.ask(twin.consent, replace(QUESTION, purpose=Purpose("dpv:Marketing")))
    twin.owner.withdraw(twin.consent)  # waits until the log holds everything before it
    (denial,) = [event for event in twin.owner.history() if event["kind"] == "denial"]
    assert denial["personal"]["rules"] == ["purpose-not-covered"]


# --- a server that lies -------------------------------------------------------------------------------------------


@pytest.fixture
def other_answers(twin: Twin, tamper: Tamper) -> Iterator[Callable[[Callable[[bytes], bytes]], None]]:
    """Let the answer's bytes pass through a change."""

    def on(change: Callable[[bytes], bytes]) -> None:
        tamper.rules.clear()
        tamper.rules.append(
            ("PUT", "", lambda r: r if r.status_code != 200 else httpx.Response(200, content=change(r.content)))
        )

    yield on
    tamper.rules.clear()


def test_an_answer_without_a_receipt_is_refused(twin: Twin, other_answers: Any) -> None:
    def only_the_record(data: bytes) -> bytes:
        bundle = parse_bundle(data)
        return next(record for record in bundle.records.values() if SCHEMA_VERSION.encode() in record)

    def no_leaves(data: bytes) -> bytes:
        return dump_bundle(replace(parse_bundle(data), leaves=()))

    def closed(data: bytes) -> bytes:
        bundle = parse_bundle(data)
        return dump_bundle(replace(bundle, leaves=tuple(replace(leaf, personal=None) for leaf in bundle.leaves)))

    for change in (only_the_record, no_leaves, closed, lambda data: data[:-100], lambda _: b"", lambda _: b"{}\n"):
        other_answers(change)
        with pytest.raises(VaultError) as refusal:
            twin.company.ask(twin.consent, QUESTION)
        assert not isinstance(refusal.value, ApiError)


def test_a_receipt_of_another_log_is_refused(twin: Twin, api: Api, service: Service) -> None:
    forged = VerifierKey(service.trust.origin, SigningKey(new_seed()).public_key)
    company = Company.load(twin.company.profile.folder, api=api)
    company.profile.trust = replace(company.profile.trust, log=forged)
    with pytest.raises(NoReceipt, match="step 1"):
        company.ask(twin.consent, QUESTION)
    company.profile.trust = replace(service.trust, operator=SigningKey(new_seed()).public_key)
    with pytest.raises(NoReceipt, match="keys"):
        company.ask(twin.consent, QUESTION)


def test_an_altered_prediction_is_refused(twin: Twin, other_answers: Any) -> None:
    def alter(data: bytes) -> bytes:
        bundle = parse_bundle(data)
        records = []
        for record in bundle.records.values():
            if SCHEMA_VERSION.encode() in record:
                altered = record.replace(CODES[0].encode(), b"completejourney:candy")
                records.append(altered if altered != record else record.replace(b'score_ppm":', b'score_ppm":1'))
            else:
                records.append(record)
        return dump_bundle(replace(bundle, records=records_by_hash(records)))

    other_answers(alter)
    with pytest.raises(NoReceipt):
        twin.company.ask(twin.consent, QUESTION)


def test_a_proven_answer_to_something_else_is_refused(twin: Twin, other_answers: Any) -> None:
    genuine = twin.company.ask(twin.consent, QUESTION).bundle
    other_answers(lambda _: genuine)
    with pytest.raises(NoReceipt):
        twin.company.ask(twin.consent, QUESTION)
    id_of_it = _question_id(genuine)
    with pytest.raises(NoReceipt, match="another question"):
        _verify(twin, genuine, id_of_it, replace(QUESTION, top_n=1))
    with pytest.raises(NoReceipt, match="another question"):
        _verify(twin, genuine, id_of_it, QUESTION, consent=ConsentId(bytes(16)))
    with pytest.raises(NoReceipt, match="another question"):
        _verify(twin, genuine, id_of_it, QUESTION, requester="A" * 22)
    _verify(twin, genuine, id_of_it, QUESTION)


def test_a_service_that_tells_its_rules_of_nothing_special_is_named_by_whoever_asked(
    twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule denies this question; told nothing of it, it does not, and no auditor sees the question."""
    with pytest.raises(ApiError):
        twin.company.ask(twin.consent, INSULIN)
    monkeypatch.setattr("vault.answers.reveals.revealed_by", lambda _: frozenset())
    with pytest.raises(NoReceipt, match=r"step 9 \(decision\): The decision was told of other special categories"):
        twin.company.ask(twin.consent, INSULIN)


def test_an_answer_by_another_classifier_than_the_clients_is_not_believed_unseen(
    twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a service that lies names an older one."""
    monkeypatch.setattr("vault.answers.ask.VERSION", CLASSIFIERS[0])
    with pytest.raises(NoReceipt, match=f"classified by {CLASSIFIERS[0]}"):
        twin.company.ask(twin.consent, QUESTION)


def test_a_service_that_withholds_the_question_from_whoever_asked_it_is_not_believed(
    twin: Twin, other_answers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody signs what a bundle withholds: a service could call the question so, and nothing would be classified again."""
    monkeypatch.setattr("vault.answers.reveals.revealed_by", lambda _: frozenset())
    other_answers(lambda data: dump_bundle(replace(parse_bundle(data), withheld=frozenset({Withheld.QUESTION}))))
    with pytest.raises(NoReceipt, match="lacks what the verifier needs"):
        twin.company.ask(twin.consent, INSULIN)


def test_an_answer_of_a_model_whose_map_the_client_does_not_know_is_not_believed_unseen(
    twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a service that lies names a model of another category, whose codes say nothing about the question."""
    monkeypatch.setattr("vault.answers.reveals.revealed_by", lambda _: frozenset())
    monkeypatch.setattr("vault.imprint.reveals.mapped_for", lambda _: ())  # of this process, the client alone asks that
    with pytest.raises(NoReceipt, match="reads a map of codes that this client does not know"):
        twin.company.ask(twin.consent, INSULIN)


def _question_id(data: bytes) -> bytes:
    for leaf in parse_bundle(data).leaves:
        if verify_opening(leaf.entry, Part.PUBLIC, leaf.public)["kind"] == LeafKind.ANSWER.value:
            assert leaf.personal is not None
            return parse_b64u(parse_json(leaf.personal.body)["question_id"])
    raise AssertionError("the bundle holds no answer")


def _verify(twin: Twin, data: bytes, question_id: bytes, question: Question, **changed: Any) -> None:
    values = {"consent": twin.consent, "requester": twin.company.company_id, **changed}
    verify_answered(data, twin.company.profile.trust, question_id=question_id, question=question, **values)


def test_a_log_that_was_set_back_is_told_with_what_to_do_if_its_operator_is_believed(twin: Twin) -> None:
    """As after a backup was put back: the service's log is shorter than the one that this client saw."""
    assert twin.company.ask(twin.consent, QUESTION).checked
    profile = twin.company.profile
    seen = profile.remembered("checkpoint")
    assert seen is not None
    profile.remember("checkpoint", replace(seen, version=seen.version + 1_000))
    for _ in range(2):
        with pytest.raises(RolledBack, match=r"set back, or forked\. Do not trust it\. .* delete memory\.json"):
            twin.company.ask(twin.consent, QUESTION)
    (profile.folder / "memory.json").unlink()
    assert twin.company.ask(twin.consent, QUESTION).checked


def test_an_auditor_notices_a_log_that_was_rewritten(twin: Twin, service: Service, tmp_path: Path, api: Api) -> None:
    first, second = (twin.company.ask(twin.consent, QUESTION).bundle for _ in range(2))
    Auditor.register(tmp_path / "auditor", service.trust, name="Auditors Inc")
    auditor = Auditor.load(tmp_path / "auditor", api)
    assert auditor.verify_bytes(first).failures == ()
    assert auditor.verify_bytes(second).failures == ()
    assert auditor.verify_bytes(first).failures == ()
    memory = tmp_path / "auditor" / "memory.json"
    last = auditor._profile.remembered("checkpoint")  # type: ignore[union-attr]
    assert last is not None
    memory.write_bytes(memory.read_bytes().replace(b64u(last.digest).encode(), b64u(bytes(32)).encode()))
    third = twin.company.ask(twin.consent, QUESTION).bundle
    for data in (second, third):
        with pytest.raises(RolledBack):
            auditor.verify_bytes(data)
