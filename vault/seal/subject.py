"""The certificate that a pairwise key belongs to a vault: shown to the owner or in a dispute, never to a company."""

from __future__ import annotations

from dataclasses import dataclass

from vault.encoding import b64u
from vault.seal.dsse import Envelope, PayloadType, sign_record, verify_envelope
from vault.seal.errors import SealError
from vault.seal.fields import Fields
from vault.seal.ids import VaultId
from vault.seal.signing import Signer


@dataclass(frozen=True, slots=True)
class SubjectCertificate:
    """Whose pairwise key it is.

    Args:
        vault: The vault.
        principal_key: The pairwise Ed25519 public key, 32 bytes; the subject is its digest.
        grantee: Towards whom the key is used.
    """

    vault: VaultId
    principal_key: bytes
    grantee: str


def sign_subject(certificate: SubjectCertificate, owner: Signer) -> Envelope:
    """Return the certificate under the owner's signing key."""
    return sign_record(
        PayloadType.SUBJECT,
        {
            "vault": b64u(certificate.vault),
            "principal_key": b64u(certificate.principal_key),
            "grantee": certificate.grantee,
        },
        owner,
    )


def verify_subject(envelope: Envelope, owner_key: bytes, expected: SubjectCertificate) -> SubjectCertificate:
    """Return the certificate if the owner signed exactly what is expected.

    Args:
        envelope: What arrived.
        owner_key: The owner's Ed25519 key in force, 32 bytes.
        expected: What it must say.

    Raises:
        SealError: By another key, malformed, or about another vault, pairwise key or grantee.
    """
    fields = Fields(verify_envelope(envelope, PayloadType.SUBJECT, owner_key))
    certificate = SubjectCertificate(
        VaultId(fields.id("vault")), fields.public_key("principal_key"), fields.text("grantee")
    )
    fields.end()
    if certificate != expected:
        raise SealError("A certificate is about another vault, pairwise key or grantee.")
    return certificate
