"""What a client demands before it believes an answer or an acknowledged consent: a receipt of the pinned log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from twinvault.api import Api, ApiError, ClientError, field
from twinvault.profile import Profile, RolledBack
from vault.encoding import JsonObject, b64u, parse_b64u
from vault.imprint.reveals import VERSION, least_revealed
from vault.proof.bound import verify_bound_event
from vault.proof.bundle import Bundle, parse_bundle
from vault.proof.certificate import parse_manifest
from vault.proof.checkpoint import Checkpoint, verify_checkpoint
from vault.proof.errors import InvalidProof
from vault.proof.leaf import LeafKind, Opening, Part, verify_opening
from vault.proof.merkle import verify_consistency
from vault.proof.note import parse_b64
from vault.proof.receipt import parse_receipt, verify_receipt
from vault.proof.revealed import Classifier
from vault.proof.trust import TrustedRoot
from vault.proof.verify import Step, verify_bundle
from vault.schema.answer import Answer, parse_answer
from vault.schema.consent import ConsentVersion
from vault.schema.question import Question, body_sha256, may_name
from vault.seal.dsse import Envelope, parse_envelope
from vault.seal.ids import ConsentId
from vault.seal.version import Remembered

_NEEDED: Final = (
    Step.CHECKPOINT, Step.INCLUSION, Step.OPENINGS, Step.KEYS, Step.CONSENT,
    Step.ORDER, Step.ANSWER, Step.QUESTION, Step.DECISION, Step.CERTIFICATE, Step.QUOTA,
)  # fmt: skip

_NOT_IN_LOG: Final = "not-in-log"

CLASSIFIER: Final = Classifier(VERSION, least_revealed)
"""Holds what decisions were told against the questions of whoever holds them."""


class NoReceipt(ClientError):
    """An answer or acknowledgement without a receipt that holds; what it says is not used."""

    slug = "no-receipt"
    title = "Receipt does not hold"


@dataclass(frozen=True, slots=True)
class VerifiedAnswer:
    """An answer whose receipt holds under the caller's own pinned keys.

    Args:
        answer: What the twin says.
        bundle: The file that proves it to anyone; keep it.
        checked: How many things the verifier looked at.
        checkpoint: The signed tree that covers it.
    """

    answer: Answer
    bundle: bytes
    checked: int
    checkpoint: Checkpoint


def answer_path(consent: ConsentId, question_id: bytes) -> str:
    """Return where a question is put; the same question put again there repeats its answer."""
    return f"/v1/consents/{b64u(consent)}/answers/{b64u(question_id)}"


def verify_answered(
    unverified_bundle: bytes, trust: TrustedRoot, *, consent: ConsentId, question_id: bytes, question: Question,
    requester: str,
) -> VerifiedAnswer:  # fmt: skip
    """Return the answer to this very question, if everything about it holds.

    Args:
        unverified_bundle: What the service returned.
        trust: The caller's pinned keys.
        consent: Under which consent it was asked.
        question_id: The asker's id of the question, 16 bytes.
        question: What was asked.
        requester: As whom it was asked.

    Raises:
        NoReceipt: A check of the verifier fails or had nothing to look at, or the answer is to
            another question, consent or requester.

    Guarantees: the answer is in the pinned log, under a consent that was live, a policy that allows
    it, a certified model and its quota (DESIGN invariant 3).
    """
    bundle = parse_bundle(unverified_bundle)
    report = verify_bundle(bundle, trust, classifier=CLASSIFIER)
    if report.failures:
        first = report.failures[0]
        raise NoReceipt(
            f"The answer does not verify: step {first.step.value} ({first.step.name.lower()}): {first.detail}"
        )
    if any(not report.checked.get(step) for step in _NEEDED):
        raise NoReceipt("The answer's bundle lacks what the verifier needs; nothing was shown to be wrong or right.")
    for leaf in bundle.leaves:
        personal = {} if leaf.personal is None else verify_opening(leaf.entry, Part.PERSONAL, leaf.personal)
        public = verify_opening(leaf.entry, Part.PUBLIC, leaf.public)
        if public["kind"] == LeafKind.ANSWER.value and personal.get("question_id") == b64u(question_id):
            _verify_classified(bundle, public, question)
            answer = parse_answer(bundle.records[parse_b64u(personal.get("record"), size=32)])
            _verify_about(answer, personal, consent, question, requester)
            checkpoint = verify_checkpoint(bundle.checkpoint, trust.log, trust.origin)
            return VerifiedAnswer(answer, unverified_bundle, sum(report.checked.values()), checkpoint)
    raise NoReceipt("The log proves no answer to this question.")


def _verify_classified(bundle: Bundle, public: JsonObject, question: Question) -> None:
    """Refuse an answer of which the verifier could not tell what it could reveal: a liar would name what nobody knows."""
    if public.get("classifier") != CLASSIFIER.version:
        raise NoReceipt(
            f"What the answer could reveal was classified by {public.get('classifier')}, which this client cannot "
            f"do again: it knows {CLASSIFIER.version}. Whichever of client and service is older must be updated."
        )
    envelope = parse_envelope(bundle.records[parse_b64u(public.get("manifest"), size=32)])
    if CLASSIFIER.least(question, parse_manifest(envelope.payload).map_sha256, frozenset()) is None:
        raise NoReceipt(
            f"The answer's model reads a map of codes that this client does not know for {question.category}, so what "
            "the answer could reveal cannot be classified again. Whichever of client and service is older must be updated."
        )


def _verify_about(answer: Answer, personal: JsonObject, consent: ConsentId, question: Question, requester: str) -> None:
    asked = (consent, question.kind, body_sha256(question), requester)
    if (answer.consent_id, answer.kind, answer.body_sha256, personal.get("requester")) != asked:
        raise NoReceipt("The proven answer is to another question, consent or requester than asked.")
    if not may_name(question, [prediction.code for prediction in answer.predictions]):
        raise NoReceipt("The proven answer names more than was asked for, or what was not offered.")


def verify_changed(receipt: Any, trust: TrustedRoot, version: ConsentVersion, envelope: Envelope) -> Checkpoint:
    """Check that the log holds this version of a consent, and return the checkpoint that shows it.

    Args:
        receipt: As the service returned it: proof, entry and both openings.
        trust: The caller's pinned keys.
        version: What the person signed.
        envelope: Its signed bytes.

    Raises:
        NoReceipt: The log holds something else.
        InvalidProof: The receipt is malformed or not this log's.
    """
    shown = verify_logged(receipt, trust)
    said = tuple(shown.personal.get(name) for name in ("consent", "version", "record", "subject"))
    if shown.kind != LeafKind.CONSENT.value or said != (
        b64u(version.consent_id), version.version, b64u(envelope.digest), b64u(version.subject),
    ):  # fmt: skip
        raise NoReceipt("The log's entry is not about the version that was signed.")
    return shown.checkpoint


@dataclass(frozen=True, slots=True)
class Logged:
    """An event that the pinned log holds.

    Args:
        kind: What happened.
        index: Its leaf.
        personal: The opened personal half.
        checkpoint: The signed tree that covers it.
    """

    kind: str
    index: int
    personal: JsonObject
    checkpoint: Checkpoint


def verify_logged(receipt: Any, trust: TrustedRoot) -> Logged:
    """Return the event of a receipt with both openings, if the pinned log holds it.

    Args:
        receipt: As the service returned it: proof, entry and both openings.
        trust: The caller's pinned keys.

    Raises:
        InvalidProof: The receipt is malformed or not this log's, or somebody else could have the event erased.
    """
    proof, entry = field(receipt, "proof"), parse_b64u(field(receipt, "entry"))
    verify_receipt(proof, entry, trust.log, trust.origin)
    public = verify_opening(entry, Part.PUBLIC, _opening(field(receipt, "public", dict)))
    personal = verify_opening(entry, Part.PERSONAL, _opening(field(receipt, "personal", dict)))
    if "subject" in personal and public["kind"] != LeafKind.HANDOVER.value:  # that one its owner alone is ever shown
        verify_bound_event(public, personal)
    parsed = parse_receipt(proof)
    return Logged(
        str(public["kind"]), parsed.index, personal, verify_checkpoint(parsed.checkpoint, trust.log, trust.origin)
    )


def remember_checkpoint(api: Api, profile: Profile, checkpoint: Checkpoint) -> None:
    """Check that the log only grew since this client last looked, and remember where it is; see `verify_grown`."""
    profile.remember_all(verify_grown(api, profile, checkpoint))


def verify_grown(api: Api, profile: Profile, checkpoint: Checkpoint) -> dict[str, Remembered]:
    """Check that the log only grew since this client last looked; return what `Profile.remember_all` is to keep of it.

    Args:
        api: Gives the consistency proof.
        profile: Remembers the last checkpoint.
        checkpoint: A verified one.

    Raises:
        RolledBack: The log was set back, rewritten or forked.
        ApiError: The service gives no proof.
    """
    last = profile.remembered("checkpoint")
    if last is not None and last.version > checkpoint.size:
        # An older answer sent again: its tree must be the beginning of the one seen before.
        _verify_grown(api, Remembered(checkpoint.size, checkpoint.root), last)
        return {}
    if last is not None and 0 < last.version < checkpoint.size:
        _verify_grown(api, last, Remembered(checkpoint.size, checkpoint.root))
    return {"checkpoint": Remembered(checkpoint.size, checkpoint.root)}


def _verify_grown(api: Api, older: Remembered, newer: Remembered) -> None:
    try:
        answer = api.get("/v1/log/proof/consistency", params={"from": older.version, "to": newer.version})
        proof = [parse_b64(str(item), size=32) for item in field(answer, "proof", list)]
        verify_consistency(older.version, newer.version, proof, older.digest, newer.digest)
    except (ApiError, InvalidProof) as error:
        if isinstance(error, ApiError) and error.slug != _NOT_IN_LOG:
            raise
        raise RolledBack(
            "The service's log is not the one that this client saw before: it was set back, or forked."
        ) from error


def _opening(record: Any) -> Opening:
    return Opening(parse_b64u(field(record, "salt")), parse_b64u(field(record, "body")))
