"""A question as it arrived, and who sent it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from sqlmodel import Session

from vault.clock import unix_s
from vault.encoding import dump_json, parse_json
from vault.oauth.resource import CompanyGate, VerifiedRequest
from vault.parties.caller import CompanyCaller, OwnerCaller
from vault.proof.question import dump_signed_question, verify_signature
from vault.schema.answer import SALT_BYTES
from vault.schema.question import BadQuestion, Question, dump_question, parse_question
from vault.seal.ids import ConsentId


@dataclass(frozen=True, slots=True)
class CompanySender:
    """A company whose token and proof hold; the proof is not used up yet.

    Args:
        gate: Recognises companies.
        issuer: This server's base URL, for which a question must be signed.
        request: Its verified token and proof.
        unverified_jws: The `Question-Signature` header.
    """

    gate: CompanyGate
    issuer: str
    request: VerifiedRequest
    unverified_jws: str

    def identify(self, session: Session, asked: Asked) -> CompanyCaller:
        """Return the company as its row says now, if its key signed this question.

        Raises:
            Unauthenticated: The company is gone.
            BadQuestionSignature: It did not sign this question, or not now.
        """
        caller = self.gate.caller(session, self.request, now=asked.at)
        verify_signature(
            self.unverified_jws,
            caller.question_key,
            company_id=caller.company_id,
            issuer=self.issuer,
            consent_id=asked.consent_id,
            question_id=asked.question_id,
            body=asked.body,
            at_s=unix_s(asked.at),
        )
        return caller

    def use_up(self, session: Session, now: datetime) -> None:
        """Use the proof up, in the transaction of the answer or denial.

        Raises:
            Unauthenticated: It was used before.
        """
        self.gate.use_up(session, self.request, now=now)


@dataclass(frozen=True, slots=True)
class OwnerSender:
    """The owner, whose session was checked; sessions are not used up."""

    caller: OwnerCaller
    unverified_jws: str = ""

    def identify(self, session: Session, asked: Asked) -> OwnerCaller:
        """Return the owner."""
        return self.caller

    def use_up(self, session: Session, now: datetime) -> None:
        """Do nothing."""


Sender: TypeAlias = CompanySender | OwnerSender


@dataclass(frozen=True, slots=True)
class Asked:
    """One question as it arrived.

    Args:
        consent_id: Under which consent.
        question_id: 16 bytes that the asker chose: the idempotency key.
        question: What is asked.
        body: Its bytes in their one spelling.
        sender: Who sent it.
        at: When.
        salt: 16 random bytes, so that nobody who sees the record's hash can confirm a guessed question.
    """

    consent_id: ConsentId
    question_id: bytes
    question: Question
    body: bytes
    sender: Sender
    at: datetime
    salt: bytes = field(default_factory=lambda: secrets.token_bytes(SALT_BYTES))

    @property
    def record(self) -> bytes:
        """The record of the question as it was signed, which its leaf names."""
        return dump_signed_question(self.sender.unverified_jws, self.body, self.salt)


def parse_body(unverified_body: bytes) -> Question:
    """Read a question from a request's body.

    Raises:
        MalformedInput: The body is no JSON object of strings and integers.
        BadQuestion: It is no question of the catalogue, or not in its one spelling, which is what the
            company's signature and the answer's record are about.
    """
    question = parse_question(parse_json(unverified_body))
    if dump_json(dump_question(question)) != unverified_body:
        raise BadQuestion("Send the question in its one spelling: sorted keys, no spaces, as the SDK writes it.")
    return question
