"""The one path from a question to an answer: decide, infer, spend and log in one transaction, prove.

Everything up to the transaction only reads. What a company sees (answer, refusal and work alike)
depends on noisy rows, the consent and public facts; nobody gets an answer that is not in the signed log.

Source: DESIGN section 8.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Final, TypeAlias, assert_never

from sqlmodel import Session

from vault.answers import bundles, floods, records
from vault.answers.asked import Asked
from vault.answers.bundles import Given, Shared
from vault.answers.clerks import Steps
from vault.answers.errors import QuestionIdUsed, TwinNotReady
from vault.answers.means import Choice, Visit, find_means
from vault.answers.opened import OpenedRows
from vault.answers.records import AnsweredMeanwhile, Kept, Records
from vault.clock import month_of, unix_s
from vault.consent import consents, events, exposure, handovers
from vault.consent.consents import Consent, StoredVersion
from vault.consent.errors import NotSpent
from vault.consent.exposure import ExposureSpent, RankedMeanwhile
from vault.db import Database
from vault.encoding import JsonObject, b64u
from vault.errors import VaultError
from vault.imprint.features import Cadence, feature_map
from vault.imprint.reveals import VERSION
from vault.imprint.words import words_digest
from vault.keys.serving import Serving
from vault.oauth.resource import CompanyGate
from vault.parties import companies, people
from vault.parties.caller import CompanyCaller, OwnerCaller
from vault.parties.companies import CompanyStatus, ReplacedMeanwhile
from vault.parties.people import Person, VaultState
from vault.policy.permits import NOTHING_TOLD, Forbidden, Permit, decide_ask, verify_grantee
from vault.policy.records import Ask
from vault.proof.bound import bind
from vault.proof.decision import PolicySet
from vault.proof.leaf import LeafKind
from vault.schema.answer import SALT_BYTES, Answer, answer_bytes, release_name
from vault.schema.category import MINTED_PURPOSES
from vault.schema.terms import SELF_GRANTEE
from vault.schema.trace import periods_from
from vault.seal.handover import KeyKind
from vault.seal.ids import ConsentId, sha256
from vault.tlog import groups
from vault.tlog.log import append
from vault.tlog.sequencer import Sequencer
from vault.twin.funnel import foretell
from vault.twin.infer import infer

REPEATED_S: Final = 24 * 3600
"""For how long the same question is answered again with the same answer."""

_NOT_READY_S: Final = 30
_STEERING: Final = MINTED_PURPOSES | {"dpv:PoliticalCampaign"}
"""What nobody may do to a minor: the purposes of the rule `influence-of-minor`."""

Caller: TypeAlias = CompanyCaller | OwnerCaller


@dataclass(frozen=True)
class AnswerDesk:
    """What answering takes.

    Args:
        gate: Recognises companies.
        serving: Opens imprint keys, seals answers.
        sequencer: Gives each answer its place in the signed log.
        policy_set: The rules in force, published.
        worker_statements: The operator's statement about each `processor-sign` key, by public key; rows
            and manifests under any other key are refused.
        issuer: This server's base URL.
        tag_key: Secret, 32 bytes, under which it is remembered what was ranked for whom; shared by all processes.
        checkpoint_wait_s: How long an answer waits for its checkpoint.
        cadence: How days become rows.
    """

    gate: CompanyGate
    serving: Serving
    sequencer: Sequencer
    policy_set: PolicySet
    worker_statements: Mapping[bytes, bytes]
    issuer: str
    tag_key: bytes = field(repr=False)
    checkpoint_wait_s: float
    cadence: Cadence = Cadence.MONTHLY

    @cached_property
    def shared(self) -> Shared:
        """Models, rules and companies that bundles name."""
        return Shared(tuple(self.worker_statements.values()))

    @cached_property
    def rows(self) -> OpenedRows:
        """Opened imprint rows."""
        return OpenedRows(self.serving, self.worker_statements.keys())

    def forget(self, consent_id: ConsentId) -> None:
        """Drop what a consent has opened from this process's memory."""
        self.serving.forget(consent_id)
        self.rows.forget(consent_id)

    def forget_ended(self, session: Session) -> None:
        """Drop what consents opened that ended, changed or lost their keys, through whichever process of the service.

        Nothing in memory answers without the consent's row, which each question reads; this is so that keys that
        were taken away do not outlive it.
        """
        held = [*self.serving.versions.items(), *self.rows.versions.items()]
        live = consents.live_among(session, {consent_id for consent_id, _ in held})
        for consent_id, version in held:
            if live.get(consent_id) != version:
                self.forget(consent_id)


class _ChangedMeanwhile(Exception):  # the question is decided again
    """The person's vault was frozen, or another profile put in force, after it was read."""


@dataclass(frozen=True, slots=True)
class _Draft:
    """An answer that is allowed but neither spent nor logged, and so not given."""

    permit: Permit
    person: Person
    answer: Answer
    records: Records
    sealed: bytes
    manifest: bytes
    words: bytes
    version: StoredVersion


@dataclass(frozen=True, slots=True)
class _Denied:
    """A refusal to log.

    Args:
        refusal: What the caller is told.
        rules: Ids of the rules that decided, for the owner and the log.
        decision: The decision record; empty if there was nothing to decide on.
        chained: Whether the consent is the caller's to ask under, so that the denial joins its events.
    """

    refusal: VaultError
    rules: tuple[str, ...]
    decision: bytes
    chained: bool


def ask(desk: AnswerDesk, database: Database, asked: Asked) -> Steps:
    """Answer one question.

    Args:
        desk: What answering takes.
        database: The main database; the path opens its own transactions.
        asked: The question and who sent it, with a proof not used up yet.

    Yields:
        The event to wait for: the answer's, or the denial's.

    Returns:
        The bundle's bytes: the answer and everything that proves it.

    Raises:
        Forbidden: The rules do not allow it; the denial is logged.
        NotSpent: They did, but the consent no longer when it was to be logged; the denial is logged.
        QuestionIdUsed: The id stands for another question.
        TwinNotReady: The owner's own twin has no row yet.
        NoCertifiedModel: No model may answer now.
        KeysGone: What the consent opened was erased, and its owner has not renewed it.
        Unauthenticated: The proof was used before, or the company is gone.
        BadQuestionSignature: The company did not sign this question.
        LogBusy: The answer is logged but its checkpoint is late; the same question returns it.

    Guarantees: returned is only what a permit allowed, a quota was spent for, and a leaf under a signed
        checkpoint commits to. An answer or denial and the use of its proof commit together. Its leaf lies between that
        of the company's record that was decided on, whose key signed the question, and that of the next.
    """
    with database.snapshot() as session:
        caller = asked.sender.identify(session, asked)
        outcome = _decide(session, desk, asked, caller)
    try:
        allowed = _commit(database, asked, caller, outcome) if isinstance(outcome, _Draft) else outcome
        if isinstance(allowed, _Denied):
            _log_denial(desk, database, asked, caller, allowed)
            raise allowed.refusal
    # By a request with the same question id, whose answer is this one's too; or more was ranked for the person; or the
    # company has another record, whose key did not sign the question; or it was decided on what the person is no more.
    except (AnsweredMeanwhile, RankedMeanwhile, ReplacedMeanwhile, _ChangedMeanwhile):
        return (yield from ask(desk, database, asked))
    match allowed:
        case Kept():
            with database.transaction() as session:
                asked.sender.use_up(session, asked.at)
        case Given():
            pass
    yield allowed.leaf_id
    with database.snapshot() as session:
        given = bundles.reopen(session, allowed, desk.serving) if isinstance(allowed, Kept) else allowed
        return bundles.build(session, given, desk.shared)


def _decide(session: Session, desk: AnswerDesk, asked: Asked, caller: Caller) -> _Draft | Kept | _Denied:
    """Decide and infer on one state of the database; nothing is written."""
    try:
        consent = verify_grantee(consents.find(session, asked.consent_id), caller)
    except Forbidden as refusal:
        return _Denied(refusal, ("not-yours",), b"", chained=False)
    person = people.get(session, consent.vault_id)
    kept = records.find(session, consent.consent_id, asked.question_id)
    if kept is not None and _open_for_repeats(consent, person, caller, asked):
        return _repeated(kept, asked, caller)
    terms, mapped = consent.current.terms, feature_map(asked.question.category, desk.cadence)
    means = find_means(session, asked, mapped, terms.explicit_special, desk.worker_statements.keys())
    met = exposure.read(session, consent.vault_id, asked.at, desk.tag_key)
    facts = Ask(consent, person, caller, asked.question, means.reveals, means.model.manifest, met, asked.at)
    try:
        permit = decide_ask(facts, desk.policy_set)
    except Forbidden as refusal:
        return _Denied(refusal, refusal.rules, refusal.record, chained=True)
    if kept is not None:
        raise QuestionIdUsed("This question id is used; choose a new random one.")
    model, releases = means.model, list[bytes]()
    match means:
        case Visit():
            prognosis = foretell(means.model.backbone, means.session)
        case Choice():
            as_of = _read_as_of(permit, asked.at)
            releases, reading = desk.rows.read(session, permit, means.model, mapped, as_of=as_of, now=asked.at)
            if not releases and isinstance(caller, OwnerCaller):
                raise TwinNotReady(
                    "Your twin has no imprint row yet; refresh it, then ask again.", retry_after_s=_NOT_READY_S
                )
            prognosis = infer(reading, means.narrowed.question, means.narrowed.about)
        case _:
            assert_never(means)
    answer = Answer(
        question_id=asked.question_id,
        kind=asked.question.kind,
        body_sha256=sha256(asked.body),
        consent_id=permit.consent_id,
        consent_version=permit.version,
        subject=permit.subject,
        predictions=prognosis.predictions,
        confidence=prognosis.confidence,
        model_sha256=model.manifest.digest,
        releases=frozenset(release_name(permit.subject, one) for one in releases),
        policy_set_sha256=permit.policy_set_sha256,
        asked_at=unix_s(asked.at),
        salt=secrets.token_bytes(SALT_BYTES),
    )
    company = caller.record if isinstance(caller, CompanyCaller) else ""
    found = Records(answer_bytes(answer), permit.decision, asked.record, company.encode())
    sealed = found.seal(desk.serving, asked.consent_id, asked.question_id)
    words = words_digest(mapped) if isinstance(means, Choice) else b""  # a visit has no text to read
    return _Draft(permit, person, answer, found, sealed, model.envelope, words, consent.stored)


def _commit(database: Database, asked: Asked, caller: Caller, draft: _Draft) -> Given | _Denied:
    """Spend the quota, write the leaf and keep the answer, in one short transaction."""
    answer = draft.answer
    public: JsonObject = {
        "question_kind": answer.kind.value,
        "purpose": asked.question.purpose,
        "model": b64u(answer.model_sha256),
        "manifest": b64u(sha256(draft.manifest)),
        "policy_set": b64u(answer.policy_set_sha256),
        "classifier": VERSION,
        "words": b64u(draft.words),
        "period": month_of(asked.at),
    }
    personal: JsonObject = {
        **_about(asked, caller, draft.permit.decision),
        "version": answer.consent_version,
        "record": b64u(sha256(draft.records.answer)),
    }
    try:
        with database.transaction(durable=False) as session:  # nothing of it is shown before its checkpoint is durable
            asked.sender.use_up(session, asked.at)
            spent = events.spend(session, draft.permit, asked.at)
            # Erasing months leaves the consent as it was decided on, and takes its keys away. A statement of its own:
            # PostgreSQL's would not see within `spend` what an erasure that it waited for did to another table.
            handovers.find_live(session, asked.consent_id, answer.consent_version, KeyKind.IMPRINT)
            personal["quota_left"] = spent.quota_left
            leaf = events.log_event(session, spent, LeafKind.ANSWER, public, personal)
            kept = Kept(
                consent_id=asked.consent_id,
                question_id=asked.question_id,
                body_sha256=answer.body_sha256,
                sender=_sender_of(caller),
                asked_at=answer.asked_at,
                leaf_id=leaf.id,
                sealed=draft.sealed,
            )
            records.add(session, kept)
    except NotSpent as refusal:
        with database.snapshot() as session:
            if people.find(session, draft.permit.vault_id) != draft.person:  # a company is told of its consent alone
                raise _ChangedMeanwhile from None
        return _Denied(refusal, ("not-spent",), draft.permit.decision, chained=True)
    except ExposureSpent:
        return _Denied(Forbidden(NOTHING_TOLD), ("not-spent",), draft.permit.decision, chained=True)
    return Given(leaf.id, draft.records, answer, draft.version)


def _log_denial(desk: AnswerDesk, database: Database, asked: Asked, caller: Caller, denied: _Denied) -> None:
    public: JsonObject = {
        "question_kind": asked.question.kind.value,
        "policy_set": b64u(desk.policy_set.sha256),
        "period": month_of(asked.at),
    }
    personal: JsonObject = {**_about(asked, caller, denied.decision), "rules": [*denied.rules]}
    with database.transaction() as session:
        asked.sender.use_up(session, asked.at)
        shared = isinstance(caller, CompanyCaller) and floods.is_flood(session, caller.company_id, asked.at)
        # After the company's count, at which its denials take turns: PostgreSQL lets who shares a row pass by a suspension
        # that waits for it, so that denials which queued up with it in hand would hold that up as long as more come.
        if isinstance(caller, CompanyCaller):
            companies.hold(session, caller.company_id, caller.version)
        if not denied.chained:  # nothing about a consent that is not the caller's, not even whether there is one
            bound, opens = bind(None)
            leaf = append(session, LeafKind.DENIAL, {**public, **bound}, {**personal, **opens})
        elif shared:
            leaf = events.record_beside(session, asked.consent_id, LeafKind.DENIAL, public, personal)
        else:
            leaf = events.record_event(session, asked.consent_id, LeafKind.DENIAL, public, personal)
        if shared:
            groups.hold(session, leaf, str(personal["requester"]), unix_s(asked.at))
        if not denied.chained:
            return
        sealed = Records(b"", denied.decision, asked.record, b"").seal(
            desk.serving, asked.consent_id, asked.question_id
        )
        records.add_denial(
            session, leaf_id=leaf.id, consent_id=asked.consent_id, question_id=asked.question_id, sealed=sealed
        )


def _about(asked: Asked, caller: Caller, decision: bytes) -> JsonObject:
    return {
        "requester": caller.company_id if isinstance(caller, CompanyCaller) else SELF_GRANTEE,
        "question_id": b64u(asked.question_id),
        "question": b64u(sha256(asked.record)),
        "at": unix_s(asked.at),
        "decision": b64u(sha256(decision)) if decision else "",
    }


def _open_for_repeats(consent: Consent, person: Person, caller: Caller, asked: Asked) -> bool:
    """Say whether an answer given before may be shown again; what may not is decided, and denied, like any question."""
    active = not isinstance(caller, CompanyCaller) or caller.status is CompanyStatus.ACTIVE
    terms, profile, purpose = consent.current.terms, person.profile, asked.question.purpose
    in_window = terms.not_before <= unix_s(asked.at) < terms.not_after
    # What the rules say of a profile: deciding only about who has one would tell them by the time that it takes.
    lives = not profile.deceased or purpose in terms.post_mortem
    spoken_for = not profile.minor or (profile.guardian_ok and purpose not in _STEERING)
    return consent.live and in_window and active and person.state is VaultState.ACTIVE and lives and spoken_for


def _repeated(kept: Kept, asked: Asked, caller: Caller) -> Kept:
    same = (kept.body_sha256, kept.sender) == (sha256(asked.body), _sender_of(caller))
    if same and unix_s(asked.at) - kept.asked_at < REPEATED_S:
        return kept
    raise QuestionIdUsed("This question id stands for another question, key or day; choose a new random one.")


def _sender_of(caller: Caller) -> str:
    return caller.jkt if isinstance(caller, CompanyCaller) else SELF_GRANTEE


def _read_as_of(permit: Permit, now: datetime) -> date:
    """Return the day for which the twin speaks: a closed data window is read as of its end."""
    following = periods_from(permit.data_to, 2)[1]
    return min(now.astimezone(UTC).date(), date(int(following[:4]), int(following[5:]), 1))
