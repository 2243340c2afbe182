"""The answer record: what leaves, in the bytes that the log's leaf commits to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, cast

from vault.encoding import JsonObject, JsonValue, b64u, dump_json, parse_json
from vault.errors import MalformedInput, VaultError
from vault.schema.question import CODE, MAX_TOP_N, QuestionKind
from vault.schema.reader import Reader

SCHEMA_VERSION: Final = "twinvault-answer/1"
MAX_RELEASES: Final = 4096
SALT_BYTES: Final = 16


class BadAnswer(VaultError):
    """An answer that does not have the documented shape or contradicts itself."""

    slug = "bad-answer"
    title = "Answer record is not acceptable"
    status = 422


class Confidence(StrEnum):
    """How far the calibrated scores can be relied on, in buckets so that no fine score leaks."""

    NONE = "none"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Prediction:
    """One predicted choice.

    Args:
        code: Taxonomy code.
        score_ppm: Calibrated probability in millionths, rounded by shaping, 0 to 1,000,000.
    """

    code: str
    score_ppm: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One shaped answer; its bytes are committed to by a leaf of the log.

    Args:
        question_id: 16 bytes chosen by the asker; the idempotency key.
        kind: The question's kind.
        body_sha256: Digest of the question's body, 32 bytes.
        consent_id: 16 bytes.
        consent_version: The version that allowed the answer, from 1.
        subject: The person's pairwise pseudonym, 16 bytes.
        predictions: Best first; codes differ; empty exactly when the twin abstains.
        confidence: `none` exactly when the twin abstains.
        model_sha256: Digest of the model's manifest, 32 bytes.
        releases: Pairwise names of the imprint releases that were read, 32 bytes each; see `release_name`.
        policy_set_sha256: Digest of the policy set that allowed it, 32 bytes.
        asked_at: When the question arrived, unix seconds.
        salt: 16 random bytes: auditors see the record's hash, and an answer could be guessed.

    Raises:
        BadAnswer: The fields contradict each other.
    """

    question_id: bytes
    kind: QuestionKind
    body_sha256: bytes
    consent_id: bytes
    consent_version: int
    subject: bytes
    predictions: tuple[Prediction, ...]
    confidence: Confidence
    model_sha256: bytes
    releases: frozenset[bytes]
    policy_set_sha256: bytes
    asked_at: int
    salt: bytes

    def __post_init__(self) -> None:
        if (self.confidence is Confidence.NONE) is not self.abstained:
            raise BadAnswer("An answer has no confidence exactly when it predicts nothing.")
        ranked = sorted(self.predictions, key=lambda item: (-item.score_ppm, item.code))
        if list(self.predictions) != ranked or len({item.code for item in ranked}) != len(ranked):
            raise BadAnswer("Predictions name each code once, by falling score and then by code.")

    @property
    def abstained(self) -> bool:
        """Whether the twin knows too little to predict anything."""
        return not self.predictions


def release_name(subject: bytes, release_id: bytes) -> bytes:
    """Return how an answer names an imprint release: another name towards each grantee.

    Two companies that compare answers cannot join them by the releases; the owner, who knows the ids, can.

    Args:
        subject: The person's pairwise pseudonym, 16 bytes.
        release_id: 32 bytes.
    """
    return hashlib.sha256(b"twinvault/release-name/v1" + subject + release_id).digest()


def answer_bytes(answer: Answer) -> bytes:
    """Return the record's bytes: what is hashed, logged, sent and kept."""
    return dump_json(
        {
            "schema_version": SCHEMA_VERSION,
            "question_id": b64u(answer.question_id),
            "kind": answer.kind.value,
            "body_sha256": b64u(answer.body_sha256),
            "consent_id": b64u(answer.consent_id),
            "consent_version": answer.consent_version,
            "subject": b64u(answer.subject),
            "predictions": [{"code": item.code, "score_ppm": item.score_ppm} for item in answer.predictions],
            "abstained": int(answer.abstained),
            "confidence": answer.confidence.value,
            "model_sha256": b64u(answer.model_sha256),
            "releases": cast("list[JsonValue]", sorted(map(b64u, answer.releases))),
            "policy_set_sha256": b64u(answer.policy_set_sha256),
            "asked_at": answer.asked_at,
            "salt": b64u(answer.salt),
        }
    )


def parse_answer(unverified_data: bytes) -> Answer:
    """Read an answer's bytes; every answer has exactly one spelling.

    Raises:
        BadAnswer: The bytes are no answer, or spell one in another way than `answer_bytes`.
    """
    try:
        record = parse_json(unverified_data)
    except MalformedInput as error:
        raise BadAnswer("An answer is not one JSON object of strings and integers.") from error
    answer = _parse_record(record)
    if answer_bytes(answer) != unverified_data:
        raise BadAnswer("An answer is not in the one fixed JSON spelling that its leaf commits to.")
    return answer


def _parse_record(record: JsonObject) -> Answer:
    r = Reader(record, BadAnswer, "answer")
    r.exactly("schema_version", SCHEMA_VERSION)
    predictions = []
    for item in r.objects("predictions", at_most=MAX_TOP_N):
        predictions.append(Prediction(item.text("code", CODE), item.integer("score_ppm", 0, 1_000_000)))
        item.end()
    answer = Answer(
        question_id=r.binary("question_id", 16),
        kind=r.word("kind", QuestionKind),
        body_sha256=r.binary("body_sha256", 32),
        consent_id=r.binary("consent_id", 16),
        consent_version=r.integer("consent_version", 1),
        subject=r.binary("subject", 16),
        predictions=tuple(predictions),
        confidence=r.word("confidence", Confidence),
        model_sha256=r.binary("model_sha256", 32),
        releases=frozenset(r.binaries("releases", 32, at_most=MAX_RELEASES)),
        policy_set_sha256=r.binary("policy_set_sha256", 32),
        asked_at=r.time("asked_at"),
        salt=r.binary("salt", SALT_BYTES),
    )
    if r.flag("abstained") is not answer.abstained:
        raise BadAnswer("An answer abstains exactly when it predicts nothing.")
    r.end()
    return answer
