"""Whose an event is, committed to beside what it says: so that only this person's own key can let it be erased.

The commitment stands in the public half and stays; what opens it stands in the personal half. Whoever sees an event
open checks that it is bound to the subject that the event names. Once it is erased on its owner's order, salt and
subject alone are shown, with the order under that subject's key: what anybody has seen open, nobody else can bury.

Source: DESIGN sections 4 and 9.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from vault.encoding import JsonObject, b64u, parse_b64u
from vault.errors import MalformedInput
from vault.proof.errors import InvalidProof
from vault.seal.ids import ID_BYTES, SubjectId

SALT_BYTES: Final = 64  # as many subjects fit any commitment, so that what was erased on nobody's key stays hidden
_TAG: Final = b"twinvault/leaf-subject/v1\n"
_NOBODY: Final = SubjectId(bytes(ID_BYTES))


def bind(subject: SubjectId | None) -> tuple[JsonObject, JsonObject]:
    """Return what an event's public and personal half say of whose it is.

    Args:
        subject: The person's pseudonym towards the consent's grantee; None for an event that concerns nobody, which
            its public half must not tell.
    """
    salt = secrets.token_bytes(SALT_BYTES)
    return {"bound": b64u(_commit(salt, subject or _NOBODY))}, {"subject_salt": b64u(salt)}


def verify_bound(public: JsonObject, subject: bytes, salt: bytes) -> None:
    """Check that an event is bound to a subject.

    Args:
        public: Its verified public half.
        subject: 16 bytes.
        salt: What opens the commitment, 64 bytes.

    Raises:
        InvalidProof: It is bound to somebody else, or to nobody.
    """
    if len(salt) != SALT_BYTES or public.get("bound") != b64u(_commit(salt, subject)):
        raise InvalidProof("The event is not bound to the person whom it is about: somebody else could have it erased.")


def verify_bound_event(public: JsonObject, personal: JsonObject) -> None:
    """Check that an event whose personal half is open is bound to the subject that it names.

    Raises:
        InvalidProof: It is not, or names none.
    """
    try:
        subject = parse_b64u(personal.get("subject"), size=ID_BYTES)
        salt = parse_b64u(personal.get("subject_salt"), size=SALT_BYTES)
    except MalformedInput as error:
        raise InvalidProof("The event does not open to whom it is bound.") from error
    verify_bound(public, subject, salt)


def _commit(salt: bytes, subject: bytes) -> bytes:
    return hashlib.sha256(_TAG + salt + subject).digest()
