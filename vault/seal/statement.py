"""Key statements: the operator's word on which public keys the service uses. Clients pin the operator's key only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from vault.encoding import b64u
from vault.seal.dsse import Envelope, PayloadType, sign_record, verify_envelope
from vault.seal.errors import SealError
from vault.seal.fields import Fields
from vault.seal.recipient import PUBLIC_BYTES, SUITE_NAME
from vault.seal.signing import Signer

ED25519: Final = "ed25519"


class KeyName(StrEnum):
    """What a key of the service is for."""

    PROCESSOR = "processor"
    """Opens what self and cohort consents hand over; the worker's."""

    PROCESSOR_SIGN = "processor-sign"
    """Signs imprint rows, manifests and reseals; the worker's."""

    SERVING = "serving"
    """Opens imprint keys; the web process's."""

    SERVICE = "service"
    """Signs acknowledgements, tokens and the ends of consents that the operator causes; the web process's."""

    LOG = "log"
    """Signs the log's checkpoints."""

    @property
    def seals(self) -> bool:
        """Whether others seal to it; otherwise it signs."""
        match self:
            case KeyName.PROCESSOR | KeyName.SERVING:
                return True
            case KeyName.PROCESSOR_SIGN | KeyName.SERVICE | KeyName.LOG:
                return False
            case _:
                assert_never(self)


@dataclass(frozen=True, slots=True)
class KeyStatement:
    """One public key of the service.

    Args:
        name: What it is for.
        epoch: 1, 2, ...; the highest one whose time has come is in force.
        public_key: 1,216 bytes for a key that others seal to, 32 bytes for one that signs.
        not_before: Unix seconds from which it is in force.
        log_origin: Origin of the log whose checkpoints a log key signs; empty for every other key.
    """

    name: KeyName
    epoch: int
    public_key: bytes
    not_before: int
    log_origin: str = ""


def sign_key_statement(statement: KeyStatement, operator: Signer) -> Envelope:
    """Return the statement under the operator's signature."""
    return sign_record(
        PayloadType.KEY,
        {
            "name": str(statement.name),
            "epoch": statement.epoch,
            "algorithm": SUITE_NAME if statement.name.seals else ED25519,
            "public_key": b64u(statement.public_key),
            "not_before": statement.not_before,
            "log_origin": statement.log_origin,
        },
        operator,
    )


def verify_key_statement(envelope: Envelope, operator_key: bytes) -> KeyStatement:
    """Return what the operator stated about a key.

    Args:
        envelope: What arrived.
        operator_key: The pinned Ed25519 key, 32 bytes.

    Raises:
        SealError: Signed by another key, malformed, or an algorithm that does not fit the name.
    """
    fields = Fields(verify_envelope(envelope, PayloadType.KEY, operator_key))
    text = fields.text("name")
    if text not in set(KeyName):
        raise SealError("A key statement names a use that TwinVault does not know.")
    name = KeyName(text)
    if fields.text("algorithm") != (SUITE_NAME if name.seals else ED25519):
        raise SealError("A key statement names an algorithm that its use does not have.")
    statement = KeyStatement(
        name,
        fields.integer("epoch", least=1),
        fields.binary("public_key", size=PUBLIC_BYTES) if name.seals else fields.public_key("public_key"),
        fields.integer("not_before"),
        fields.text("log_origin"),
    )
    fields.end()
    if bool(statement.log_origin) is not (name is KeyName.LOG):
        raise SealError("A key statement gives a log's origin, and only a log's.")
    return statement
