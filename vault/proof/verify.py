"""The verifier: numbered steps from a signed checkpoint down to why one answer was allowed.

 1 checkpoint   the pinned log key signed it, for the pinned origin
 2 inclusion    every entry is in the tree under that checkpoint
 3 openings     every opening is what its entry committed to; a range claimed whole has no hole, no shut consent
 4 keys         the pinned operator key signed every key statement
 5 consent      every version is signed by its pairwise key and follows the one before
 6 order        events of one consent are bound to its person, numbered and chained, none is hidden; nothing after its end
 7 answer       every answer's record is what its leaf committed to, about this consent
 8 question     the logged key of the company signed the question; the answer is to it
 9 decision     replaying the logged record under the logged policy set allows, or denies, the same to the same asker
10 certificate  the model was signed by the worker, logged before, not withdrawn, and certified when it answered
11 quota        every answer is counted, one by one, against the quota of its consent's month
12 erasure      every event of a consent whose opening is missing has a tombstone in a logged group, by whoever may order it
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
from functools import partial
from typing import Final

from vault.encoding import b64u, parse_b64u, parse_json
from vault.proof.bound import verify_bound_event
from vault.proof.bundle import Bundle, LoggedLeaf, Withheld
from vault.proof.certificate import parse_manifest, verify_certificate
from vault.proof.checkpoint import verify_checkpoint
from vault.proof.deferred import Each, check_signature, holds
from vault.proof.denials import verify_denials
from vault.proof.errors import InvalidProof
from vault.proof.established import SKEW_S, Carried, Evidence
from vault.proof.event import CHAINED, Event, Version
from vault.proof.jose import REQUEST_TYPE, parse_jws
from vault.proof.leaf import LeafKind, Part, verify_opening
from vault.proof.ledger import verify_ledger
from vault.proof.legacy import verify_legacies
from vault.proof.merkle import leaf_hash, verify_inclusion
from vault.proof.published import CLASSIFIERS, WORDS
from vault.proof.question import parse_signed_question
from vault.proof.quota import verify_quota
from vault.proof.reconcile import reconcile
from vault.proof.replay import verify_decision, verify_denial
from vault.proof.report import Failure, Report, Step
from vault.proof.revealed import Classifier
from vault.proof.tombstone import verify_erased
from vault.proof.trust import TrustedRoot
from vault.proof.witness import WitnessPolicy, verify_witnessed
from vault.schema.answer import Answer, parse_answer
from vault.schema.consent import parse_consent, parse_consent_request, verify_grant, verify_successor
from vault.schema.question import may_name, parse_question
from vault.schema.terms import ConsentKind
from vault.seal.dsse import PayloadType, parse_envelope, unverified_record, verify_envelope
from vault.seal.framing import frames
from vault.seal.ids import HASH_BYTES, sha256
from vault.seal.statement import KeyName, verify_key_statement

__all__ = ["Failure", "Report", "Step", "verify_bundle"]

_OF_A_CONSENT: Final = (LeafKind.CONSENT_REQUEST, LeafKind.CONSENT, LeafKind.ANSWER)  # a denial may be about none
_KEY_STATEMENT: Final = frames(PayloadType.KEY.encode())  # how the encoding of every key statement begins


def verify_bundle(
    bundle: Bundle,
    trust: TrustedRoot,
    carried: Carried | None = None,
    each: Each = map,
    *,
    classifier: Classifier | None = None,
) -> Report:
    """Check everything that a bundle shows.

    Args:
        bundle: As parsed; nothing in it is believed.
        trust: The caller's own pinned keys.
        carried: What the parts before this one established, where it is one part of an audit; it is brought up to date.
        each: Runs the dear checks, of companies' signatures and of decisions; they need nothing but what they are given.
        classifier: Holds what decisions were told of answers against the questions shown, where they name its version.

    Returns:
        What was checked and every failure with its step and leaf. If the checkpoint or an inclusion
        does not hold, nothing after it means anything and the later steps do not run.

    Source: C2SP tlog-checkpoint and tlog-proof; RFC 6962 section 2.1.
    """
    evidence = Evidence(bundle, trust, carried or Carried(), classifier)
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
        for leaf, said in evidence.unopened:
            if not evidence.may_be_closed(leaf.index):
                evidence.attempt(Step.ERASURE, leaf.index, verify_erased, leaf.index, leaf.entry, said)
        if Withheld.EVENT in bundle.withheld and evidence.carried.tally is None:
            evidence.attempt(Step.LISTING, None, _lacks_listing)
        _verify_people(evidence)
        _verify_answers(evidence)
        verify_denials(evidence, verify_denial)
        reconcile(evidence)
        verify_legacies(evidence)
        verify_ledger(evidence)
        if trust.witnesses is not None:
            evidence.attempt(Step.WITNESSES, None, _verify_witnesses, trust.witnesses)
        evidence.settle(each)
    if not evidence.failures:
        evidence.hand_on()
    return Report(
        len(bundle.leaves),
        dict(evidence.checked),
        dict(+evidence.withheld),
        tuple(evidence.failures),
        dict(evidence.erased),
    )


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
        evidence.attempt(Step.DECISION, event.index, verify_decision, event)
        evidence.attempt(Step.CERTIFICATE, event.index, _verify_model, event)
        evidence.attempt(Step.QUOTA, event.index, verify_quota, event)
    given = set(map(b64u, evidence.bundle.records))
    for event in evidence.of_kind(LeafKind.DENIAL):
        if str(event.personal.get("question")) in given:  # bundles withhold it; whoever has it can show it
            evidence.attempt(Step.QUESTION, event.index, _verify_refused, event)
        if event.personal.get("decision"):
            evidence.attempt(Step.DECISION, event.index, verify_denial, event)


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
        evidence.unopened.append((leaf, public))


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
    verify_bound_event(event.public, event.personal)
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
    body = _asked(evidence, event)
    question = parse_question(parse_json(body))
    said = (sha256(body), question.kind, question.purpose)
    if said != (answer.body_sha256, answer.kind, event.public.get("purpose")):
        raise InvalidProof("The answer is to another question than the one that its leaf names.")
    if not may_name(question, {item.code for item in answer.predictions}):
        raise InvalidProof("The answer names more than was asked for, or what was not offered.")
    evidence.questions[event.index] = question


def _verify_refused(evidence: Evidence, event: Event) -> None:
    question = parse_question(parse_json(_asked(evidence, event)))
    if question.kind != event.public.get("question_kind"):
        raise InvalidProof("The denial is of another question than the one that its leaf names.")
    evidence.questions[event.index] = question


def _asked(evidence: Evidence, event: Event) -> bytes:
    """Return a question's body, signed by the company that asked it; the owner's session signs none."""
    jws, body = parse_signed_question(evidence.record(event, event.personal, "question"))
    version, requester = evidence.version_at(event), str(event.personal.get("requester"))
    if version.terms.kind is ConsentKind.COMPANY:
        company = evidence.company_at(event)
        check = partial(
            check_signature, jws, company.question_key.jwk, company_id=requester, issuer=evidence.trust.issuer,
            consent_id=version.consent_id, question_id=parse_b64u(event.personal.get("question_id")), body=body,
            at_s=event.at,
        )  # fmt: skip
        evidence.defer(check, holds)
    return body


def _verify_model(evidence: Evidence, event: Event) -> None:
    envelope = parse_envelope(evidence.record(event, event.public, "manifest"))
    manifest = parse_manifest(envelope.payload)
    if b64u(manifest.digest) != event.public.get("model"):
        raise InvalidProof("The answer names another model than the manifest describes.")
    evidence.verify_signed(envelope, PayloadType.MANIFEST, KeyName.PROCESSOR_SIGN, event.at)
    if evidence.before(event, LeafKind.MANIFEST, "record", b64u(envelope.digest)) is None:
        raise InvalidProof("The model's manifest is not logged before the answer.")
    verify_certificate(manifest, datetime.fromtimestamp(event.at, UTC))
    if event.public.get("classifier") not in CLASSIFIERS:
        raise InvalidProof("The answer names a classifier of special categories that no release published.")
    if event.public.get("words") != b64u(WORDS.get(manifest.map_sha256, b"")):
        raise InvalidProof("The answer names other words for reading texts than were published for the model's map.")
    withdrawn = evidence.before(event, LeafKind.MODEL_WITHDRAWN, "model", b64u(manifest.digest))
    if withdrawn is not None and event.at > withdrawn.at + SKEW_S:
        raise InvalidProof("The model was withdrawn before the question was asked.")
