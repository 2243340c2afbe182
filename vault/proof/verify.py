"""The verifier: numbered steps from a signed checkpoint down to why one answer was allowed.

 1 checkpoint   the pinned log key signed it, for the pinned origin
 2 inclusion    every entry is in the tree under that checkpoint
 3 openings     every opening is what its entry committed to; a range claimed whole has no hole, no shut consent
 4 keys         the pinned operator key signed every key statement
 5 consent      every version is signed by its pairwise key and follows the one before
 6 order        events of one consent are numbered and chained, a range claimed whole hides none; nothing after its end
 7 answer       every answer's record is what its leaf committed to, about this consent
 8 question     the logged key of the company signed the question; the answer is to it
 9 decision     replaying the logged record under the logged policy set allows, or denies, the same to the same asker
10 certificate  the model was signed by the worker, logged before, not withdrawn, and certified when it answered
11 quota        every answer is counted, one by one, against the quota of its consent's month
12 erasure      every event of a consent whose opening is missing has a tombstone in a logged group
13 witnesses    as many as the caller demands cosigned, recently enough, a tree that this one continues
14 time         no answer or denial is dated before what was logged before it
15 records      no record, and so no decision, comes without a leaf that names it; the leaves of keys, models, companies say theirs
16 ledger       every release was charged what its mechanism costs, stays under the caps, and is the one published
17 legacy       every step of a legacy, and what was done on executors' word, follows what owner and executors signed
18 groups       every denial that shares a leaf with others is shown, or has a tombstone
19 listing      where an auditor opened some consents only: the listing counts what the log has (`vault.proof.sampled`)

Steps 9 to 11 read the leaf, with which step 7 compares the answer: they run even where answers and
questions are withheld from an auditor; 7 and 8 then count as withheld, never as checked.
Trusted keys come from the caller; whatever keys a bundle brings along prove nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from vault.encoding import b64u, parse_b64u, parse_json
from vault.proof.bundle import Bundle, LoggedLeaf, Withheld
from vault.proof.certificate import parse_manifest, verify_certificate
from vault.proof.checkpoint import verify_checkpoint
from vault.proof.decision import Decision, evaluate, parse_policy_set
from vault.proof.decision_record import DecisionRecord, consent_entity, parse_decision
from vault.proof.denials import verify_denials
from vault.proof.errors import InvalidProof
from vault.proof.established import CHAINED, SKEW_S, Carried, Event, Evidence, Version
from vault.proof.jose import REQUEST_TYPE, JwsKey, parse_jws
from vault.proof.leaf import LeafKind, Part, verify_opening
from vault.proof.ledger import verify_ledger
from vault.proof.legacy import verify_legacies
from vault.proof.merkle import leaf_hash, verify_inclusion
from vault.proof.question import parse_company, parse_signed_question, verify_signature
from vault.proof.reconcile import reconcile
from vault.proof.report import Failure, Report, Step
from vault.proof.tombstone import verify_erased
from vault.proof.trust import TrustedRoot
from vault.proof.witness import WitnessPolicy, verify_witnessed
from vault.schema.answer import Answer, parse_answer
from vault.schema.consent import ConsentVersion, parse_consent, parse_consent_request, verify_grant, verify_successor
from vault.schema.question import may_name, parse_question
from vault.schema.terms import AGENT_ANSWERS_PER_MONTH, ConsentKind
from vault.seal.dsse import PayloadType, parse_envelope, unverified_record, verify_envelope
from vault.seal.framing import frames
from vault.seal.ids import HASH_BYTES, sha256
from vault.seal.statement import KeyName, verify_key_statement

__all__ = ["Failure", "Report", "Step", "verify_bundle"]

_NOT_SPENT: Final = ["not-spent"]  # the rules allowed, but no longer when it was to be logged
_OF_A_CONSENT: Final = (LeafKind.CONSENT_REQUEST, LeafKind.CONSENT, LeafKind.ANSWER)  # a denial may be about none
_KEY_STATEMENT: Final = frames(PayloadType.KEY.encode())  # how the encoding of every key statement begins


def verify_bundle(bundle: Bundle, trust: TrustedRoot, carried: Carried | None = None) -> Report:
    """Check everything that a bundle shows.

    Args:
        bundle: As parsed; nothing in it is believed.
        trust: The caller's own pinned keys.
        carried: What the parts before this one established, where it is one part of an audit; it is brought up to date.

    Returns:
        What was checked and every failure with its step and leaf. If the checkpoint or an inclusion
        does not hold, nothing after it means anything and the later steps do not run.

    Source: C2SP tlog-checkpoint and tlog-proof; RFC 6962 section 2.1.
    """
    evidence = Evidence(bundle, trust, carried or Carried())
    evidence.attempt(Step.CHECKPOINT, None, _verify_root)
    for leaf in bundle.leaves if evidence.checkpoint else ():
        evidence.attempt(Step.INCLUSION, leaf.index, _verify_entry, leaf)
    if not evidence.failures:
        for leaf in bundle.leaves:
            evidence.attempt(Step.OPENINGS, leaf.index, _open_leaf, leaf)
        if evidence.carried.complete_from is not None:
            evidence.attempt(Step.OPENINGS, None, _verify_continues)
        present = {leaf.index for leaf in bundle.leaves}
        missing = next((index for index in evidence.whole if index not in present), None)
        evidence.attempt(Step.OPENINGS, missing, _verify_whole, missing)
        for record in bundle.records.values():
            if record.startswith(_KEY_STATEMENT):
                evidence.attempt(Step.KEYS, None, _verify_key, record)
        for leaf in evidence.unopened:
            if not evidence.may_be_closed(leaf.index):
                evidence.attempt(Step.ERASURE, leaf.index, verify_erased, leaf.index, leaf.entry)
        if Withheld.EVENT in bundle.withheld and evidence.carried.tally is None:
            evidence.attempt(Step.LISTING, None, _lacks_listing)
        _verify_people(evidence)
        _verify_answers(evidence)
        verify_denials(evidence, _verify_denial)
        reconcile(evidence)
        verify_legacies(evidence)
        verify_ledger(evidence)
        if trust.witnesses is not None:
            evidence.attempt(Step.WITNESSES, None, _verify_witnesses, trust.witnesses)
    if not evidence.failures:
        evidence.hand_on()
    return Report(len(bundle.leaves), dict(evidence.checked), dict(+evidence.withheld), tuple(evidence.failures))


def _verify_people(evidence: Evidence) -> None:
    for event in evidence.of_kind(LeafKind.CONSENT):
        evidence.attempt(Step.CONSENT, event.index, _verify_consent, event)
    for kind in _OF_A_CONSENT:
        for event in evidence.events[kind]:
            if event.personal_body is not None and "consent" not in event.personal:
                evidence.attempt(Step.ORDER, event.index, _verify_named)
    previous = dict(evidence.carried.last)
    for event in evidence.of_kind(*CHAINED):
        if event.index >= evidence.carried.complete_to:  # what is shown again was looked at in an earlier part
            evidence.attempt(Step.ORDER, event.index, _verify_place, event, previous.get(event.consent))
            previous[event.consent] = event


def _verify_answers(evidence: Evidence) -> None:
    for event in evidence.of_kind(LeafKind.ANSWER):
        if evidence.shows(Step.ANSWER, Withheld.ANSWER):
            evidence.attempt(Step.ANSWER, event.index, _verify_answer, event)
        answer = evidence.answers.get(event.index)
        if evidence.shows(Step.QUESTION, Withheld.QUESTION) and answer is not None:
            evidence.attempt(Step.QUESTION, event.index, _verify_question, event, answer)
        evidence.attempt(Step.DECISION, event.index, _verify_decision, event)
        evidence.attempt(Step.CERTIFICATE, event.index, _verify_model, event)
        evidence.attempt(Step.QUOTA, event.index, _verify_quota, event)
    for event in evidence.of_kind(LeafKind.DENIAL):
        if event.personal.get("decision"):
            evidence.attempt(Step.DECISION, event.index, _verify_denial, event)


def _lacks_listing(_: Evidence) -> None:
    raise InvalidProof(
        "The bundle does not open every consent: only beside the engagement's listing does it prove anything."
    )


def _verify_root(evidence: Evidence) -> None:
    evidence.checkpoint = verify_checkpoint(evidence.bundle.checkpoint, evidence.trust.log, evidence.trust.origin)


def _verify_witnesses(evidence: Evidence, policy: WitnessPolicy) -> None:
    assert evidence.checkpoint is not None
    verify_witnessed(evidence.bundle.witnessed, evidence.checkpoint, evidence.trust.log, policy, evidence.latest_s)


def _verify_entry(evidence: Evidence, leaf: LoggedLeaf) -> None:
    assert evidence.checkpoint is not None
    verify_inclusion(leaf_hash(leaf.entry), leaf.index, evidence.checkpoint.size, leaf.path, evidence.checkpoint.root)


def _open_leaf(evidence: Evidence, leaf: LoggedLeaf) -> None:
    public = verify_opening(leaf.entry, Part.PUBLIC, leaf.public)
    personal = {} if leaf.personal is None else verify_opening(leaf.entry, Part.PERSONAL, leaf.personal)
    body = None if leaf.personal is None else leaf.personal.body
    event = Event(leaf.index, LeafKind(str(public["kind"])), public, personal, body)
    evidence.events[event.kind].append(event)
    if event.kind in CHAINED and leaf.personal is None and leaf.index in evidence.whole:
        evidence.unopened.append(leaf)


def _verify_continues(evidence: Evidence) -> None:
    at, seen, now = evidence.carried.complete_to, evidence.carried.checkpoint, evidence.checkpoint
    if evidence.whole.start != at:
        raise InvalidProof(f"The part begins at leaf {evidence.whole.start} where the one before it ended at {at}.")
    if seen is not None and now is not None and (now.size < seen.size or (now.size == seen.size and now != seen)):
        raise InvalidProof("The part is of an older log than the one before it, or of another.")


def _verify_whole(evidence: Evidence, missing: int | None) -> None:
    if missing is not None:
        whole = evidence.whole
        raise InvalidProof(f"The bundle claims to be whole from {whole.start} to {whole.stop} but lacks {missing}.")


def _verify_key(evidence: Evidence, record: bytes) -> None:
    envelope = parse_envelope(record)
    evidence.keys[b64u(envelope.digest)] = verify_key_statement(envelope, evidence.trust.operator)


def _verify_consent(evidence: Evidence, event: Event) -> None:
    envelope = parse_envelope(evidence.record(event, event.personal, "record"))
    version = parse_consent(unverified_record(envelope))
    if version.event.by_person:
        verify_envelope(envelope, PayloadType.CONSENT, version.principal_key)
    else:
        evidence.verify_signed(envelope, PayloadType.CONSENT, KeyName.SERVICE, version.event_time)
    personal = {
        "consent": b64u(version.consent_id),
        "version": version.version,
        "subject": b64u(version.subject),
        "grantee": version.terms.grantee,
        "event": version.event.value,
        "at": version.event_time,
    }
    public = {"consent_kind": version.terms.kind.value, "event_state": version.event.state}
    if not (personal.items() <= event.personal.items() and public.items() <= event.public.items()):
        raise InvalidProof("The consent's leaf and its signed version do not say the same.")
    request = evidence.bundle.records.get(version.request_sha256)
    if request is not None:  # the person signed its hash, so the company's signature adds nothing here
        asked = parse_consent_request(parse_jws(request.decode("ascii", "replace"), REQUEST_TYPE).unverified_claims)
        verify_grant(version, asked, version.request_sha256)
    versions = evidence.versions[event.consent]
    if versions and version.version == versions[-1].version.version + 1:
        verify_successor(version, versions[-1].version, versions[-1].envelope_sha256)
    versions.append(Version(event.index, version, envelope.digest))


def _verify_named(_: Evidence) -> None:
    raise InvalidProof("The event is about a consent and names none: nothing could be checked of it.")


def _verify_place(evidence: Evidence, event: Event, before: Event | None) -> None:
    number, prev = event.personal.get("consent_seq"), parse_b64u(event.personal.get("prev"))
    if not isinstance(number, int) or number < 1 or len(prev) != (HASH_BYTES if number > 1 else 0):
        raise InvalidProof("The event does not say which of its consent's it is, and what the one before was.")
    if before is None and number > 1 and evidence.looked_at.start == 0 and event.index in evidence.looked_at:
        raise InvalidProof(
            "The events of this consent before this one are withheld: the log is shown from its first leaf."
        )
    if before is not None:
        first, second = before.personal.get("consent_seq"), event.personal.get("consent_seq")
        if not isinstance(first, int) or not isinstance(second, int) or second <= first:
            raise InvalidProof("Events of one consent are not logged in the order of their numbers.")
        if second != first + 1 and before.index in evidence.looked_at and event.index in evidence.looked_at:
            raise InvalidProof("An event of this consent is withheld between the one before and this one.")
        if second == first + 1 and event.personal.get("prev") != b64u(sha256(before.personal_body or b"")):
            raise InvalidProof("The event does not name the one before it: one of the two was exchanged.")
    if event.kind is LeafKind.CONSENT:
        return
    version = evidence.version_at(event)
    if event.personal.get("subject") != b64u(version.subject):
        raise InvalidProof("The event names another person than signed the consent.")
    if event.kind is LeafKind.ANSWER:
        if not version.event.live:
            raise InvalidProof(f"The answer is logged after the consent was {version.event}.")
        if version.version != event.personal.get("version"):
            raise InvalidProof("The answer was given under a version of the consent that was no longer in force.")


def _verify_answer(evidence: Evidence, event: Event) -> None:
    answer = parse_answer(evidence.record(event, event.personal, "record"))
    said = {
        "consent": b64u(answer.consent_id),
        "subject": b64u(answer.subject),
        "version": answer.consent_version,
        "question_id": b64u(answer.question_id),
        "at": answer.asked_at,
    }
    public = {
        "question_kind": answer.kind.value,
        "model": b64u(answer.model_sha256),
        "policy_set": b64u(answer.policy_set_sha256),
    }
    if not (said.items() <= event.personal.items() and public.items() <= event.public.items()):
        raise InvalidProof("The answer's record and its leaf do not say the same.")
    evidence.answers[event.index] = answer


def _verify_question(evidence: Evidence, event: Event, answer: Answer) -> None:
    jws, body = parse_signed_question(evidence.record(event, event.personal, "question"))
    question = parse_question(parse_json(body))
    said = (sha256(body), question.kind, question.purpose)
    if said != (answer.body_sha256, answer.kind, event.public.get("purpose")):
        raise InvalidProof("The answer is to another question than the one that its leaf names.")
    if not may_name(question, {item.code for item in answer.predictions}):
        raise InvalidProof("The answer names more than was asked for, or what was not offered.")
    evidence.questions[event.index] = question
    requester = str(event.personal.get("requester"))
    if evidence.version_at(event).terms.kind is ConsentKind.COMPANY:
        verify_signature(
            jws, _question_key(evidence, event, requester), company_id=requester, issuer=evidence.trust.issuer,
            consent_id=answer.consent_id, question_id=answer.question_id, body=body, at_s=answer.asked_at,
        )  # fmt: skip


def _question_key(evidence: Evidence, event: Event, company_id: str) -> JwsKey:
    registered = evidence.before(event, LeafKind.COMPANY, company=company_id)
    if registered is None:
        raise InvalidProof("No record of the company is logged before its question.")
    record = evidence.record(registered, registered.public, "record_sha256")
    return parse_company(record.decode("ascii", "replace"), company_id)


def _replay(evidence: Evidence, event: Event) -> tuple[DecisionRecord, Decision]:
    decision = parse_decision(parse_json(evidence.record(event, event.personal, "decision")))
    if decision.context.get("agent"):
        evidence.by_agents.add(event.index)
    digest = parse_b64u(event.public.get("policy_set"), size=32)
    if digest not in evidence.policy_sets:
        evidence.policy_sets[digest] = parse_policy_set(evidence.record(event, event.public, "policy_set"))
    if evidence.before(event, LeafKind.POLICY_SET, policy_set=b64u(digest)) is None:
        raise InvalidProof("The policy set is not logged before the question.")
    context = decision.context
    if (context.get("question"), context.get("now")) != (event.public.get("question_kind"), event.at):
        raise InvalidProof("The decision was made about another kind of question or for another time.")
    return decision, evaluate(decision, evidence.policy_sets[digest])


def _verify_denial(evidence: Evidence, event: Event) -> None:
    decision, outcome = _replay(evidence, event)
    # While a question is decided its consent may get another version: any that was logged may have decided.
    _verify_terms(event, decision, evidence.versions_before(event))
    if event.personal.get("rules") != (_NOT_SPENT if outcome.allowed else [*outcome.reasons]):
        raise InvalidProof("Replaying the decision does not deny it for the reasons that the leaf tells the person.")


def _verify_terms(event: Event, decision: DecisionRecord, versions: list[ConsentVersion]) -> None:
    signed = [consent_entity(version, decision.resource) for version in versions]
    used = [consent.uid.reference for consent in signed if consent in decision.entities]
    if decision.context.get("consent") not in used:
        raise InvalidProof("The decision was made on other terms than the person signed.")
    requester, terms = event.personal.get("requester"), versions[-1].terms
    if terms.grantee != requester:
        raise InvalidProof("Somebody else asked than the consent was given to.")
    if terms.kind is ConsentKind.COMPANY and decision.principal.id != requester:
        raise InvalidProof("The decision was made about another requester.")


def _verify_decision(evidence: Evidence, event: Event) -> None:
    decision, outcome = _replay(evidence, event)
    if not outcome.allowed:
        raise InvalidProof(f"Replaying the decision denies it: {', '.join(outcome.reasons) or outcome.code}.")
    _verify_terms(event, decision, [evidence.version_at(event)])
    context = decision.context
    if context.get("purpose") != event.public.get("purpose"):
        raise InvalidProof("The decision was made for another purpose.")
    question = evidence.questions.get(event.index)
    if question is not None and context.get("categories") != [question.category]:
        raise InvalidProof("The decision was made about another category of data.")
    requester = str(event.personal.get("requester"))
    status = evidence.before(event, LeafKind.COMPANY_STATUS, company=requester)
    if status is not None and status.public.get("status") != "active":
        raise InvalidProof("The company was suspended when it asked.")


def _verify_model(evidence: Evidence, event: Event) -> None:
    envelope = parse_envelope(evidence.record(event, event.public, "manifest"))
    manifest = parse_manifest(envelope.payload)
    if b64u(manifest.digest) != event.public.get("model"):
        raise InvalidProof("The answer names another model than the manifest describes.")
    evidence.verify_signed(envelope, PayloadType.MANIFEST, KeyName.PROCESSOR_SIGN, event.at)
    if evidence.before(event, LeafKind.MANIFEST, record=b64u(envelope.digest)) is None:
        raise InvalidProof("The model's manifest is not logged before the answer.")
    verify_certificate(manifest, datetime.fromtimestamp(event.at, UTC))
    withdrawn = evidence.before(event, LeafKind.MODEL_WITHDRAWN, model=b64u(manifest.digest))
    if withdrawn is not None and event.at > withdrawn.at + SKEW_S:
        raise InvalidProof("The model was withdrawn before the question was asked.")


def _verify_quota(evidence: Evidence, event: Event) -> None:
    """Count as the service must: one more than the answer before, and from one again only in a later month."""
    quota, left = evidence.version_at(event).terms.quota_per_month, event.personal.get("quota_left")
    if event.index in evidence.by_agents:
        quota = min(quota, AGENT_ANSWERS_PER_MONTH)
    if not isinstance(left, int) or not 0 <= left < quota:
        raise InvalidProof("The consent gave more answers this month than its signed quota.")
    said, period = quota - left, str(event.public.get("period"))
    if period != datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m"):
        raise InvalidProof("The answer is counted in another month than it was given in.")
    spent = evidence.carried.spent
    month, before = spent.get(event.consent, ("", 0))
    expected = 1 if period > month else before + 1
    # Where the log is looked at from the middle of a consent's life on, only its service knows what went before.
    given = evidence.versions[event.consent][0]
    seen_whole = given.version.version == 1 and given.index in evidence.looked_at
    if said != expected and (month or seen_whole):
        raise InvalidProof(f"The answer is number {expected} of its month under this consent, but counted as {said}.")
    spent[event.consent] = max(period, month), said
