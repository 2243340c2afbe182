"""An owner's order to erase everything, as auditors may see it: under a pairwise key, about one subject.

The order itself names the vault, so nobody else is shown it. This one names neither the vault nor another subject, and
a day instead of a second, so that nothing in it joins two subjects of one person.
"""

from __future__ import annotations

from dataclasses import dataclass

from vault.clock import DAY_S
from vault.encoding import JsonObject, b64u
from vault.seal.derive import subject_of
from vault.seal.dsse import Envelope, PayloadType, sign_record, unverified_record, verify_envelope
from vault.seal.errors import SealError
from vault.seal.fields import Fields
from vault.seal.ids import SubjectId
from vault.seal.signing import Signer


@dataclass(frozen=True, slots=True)
class SubjectErasure:
    """What a person ordered as one subject: that nothing about it stays.

    Args:
        log: Name of the log in which the events stand.
        principal_key: The pairwise Ed25519 public key, 32 bytes; the subject is its digest.
        day: Of the order: unix time / 86,400.
    """

    log: str
    principal_key: bytes
    day: int

    @property
    def subject(self) -> SubjectId:
        """The pseudonym as which it was ordered."""
        return subject_of(self.principal_key)

    @property
    def at_s(self) -> int:
        """When the day began, unix seconds."""
        return self.day * DAY_S


def sign_subject_erasure(log: str, day: int, pairwise: Signer) -> Envelope:
    """Return the order under the key towards one grantee."""
    record: JsonObject = {"log": log, "principal_key": b64u(pairwise.public_key), "day": day}
    return sign_record(PayloadType.SUBJECT_ERASURE, record, pairwise)


def verify_subject_erasure(envelope: Envelope, log: str) -> SubjectErasure:
    """Return what a person ordered as the subject whose key signed.

    Args:
        envelope: What arrived.
        log: Name of the log that it must be about.

    Raises:
        SealError: Malformed, not signed by the key that it names, or about another log.
    """
    fields = Fields(unverified_record(envelope))
    said = SubjectErasure(fields.text("log"), fields.public_key("principal_key"), fields.integer("day"))
    fields.end()
    verify_envelope(envelope, PayloadType.SUBJECT_ERASURE, said.principal_key)
    if said.log != log:
        raise SealError("The order to erase a subject is about another log.")
    return said
