"""A signed binary object: header frame, ciphertext frame, one Ed25519 signature. Batches and rows have this form.

The signature covers the DSSE pre-authentication encoding of header and SHA-256(ciphertext), so a
server checks it without keeping the ciphertext in memory twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from vault.encoding import JsonObject, dump_json, parse_json
from vault.seal.dsse import PayloadType, pre_authentication_encoding
from vault.seal.errors import SealError, as_seal_error
from vault.seal.framing import Reader, frames
from vault.seal.ids import sha256
from vault.seal.signing import SIGNATURE_BYTES, Signer, verify_signature


@dataclass(frozen=True, slots=True)
class Blob:
    """A binary object whose signature nobody has checked yet.

    Args:
        header: Canonical JSON bytes.
        ciphertext: What is sealed.
        signature: 64 bytes.
    """

    header: bytes
    ciphertext: bytes
    signature: bytes

    @property
    def encoded(self) -> bytes:
        """The one binary encoding."""
        return frames(self.header, self.ciphertext) + self.signature

    def record(self) -> JsonObject:
        """Return the header as an object.

        Raises:
            SealError: It is not signed JSON in its one spelling.
        """
        with as_seal_error():
            record = parse_json(self.header)
            if dump_json(record) != self.header:
                raise SealError("A header is not in its one spelling.")
        return record

    def verify(self, payload_type: PayloadType, public_key: bytes) -> None:
        """Check the signature.

        Raises:
            SealError: It is not by this key over this header and ciphertext.
        """
        verify_signature(public_key, self.signature, _message(payload_type, self.header, self.ciphertext))


def sign_blob(payload_type: PayloadType, header: bytes, ciphertext: bytes, signer: Signer) -> Blob:
    """Return header and ciphertext under the signer's signature.

    Args:
        payload_type: What the object is; signed with it, so that no kind passes for another.
        header: In clear, as sealed with the ciphertext.
        ciphertext: Signed by its SHA-256.
        signer: Whose word it is.
    """
    return Blob(header, ciphertext, signer.sign(_message(payload_type, header, ciphertext)))


def parse_blob(data: bytes, limit_bytes: int) -> Blob:
    """Take a binary object apart.

    Raises:
        SealError: Too long, cut short or followed by other bytes.
    """
    reader = Reader(data, limit_bytes)
    blob = Blob(reader.frame(), reader.frame(), reader.take(SIGNATURE_BYTES))
    reader.end()
    return blob


def _message(payload_type: PayloadType, header: bytes, ciphertext: bytes) -> bytes:
    return pre_authentication_encoding(payload_type, header + sha256(ciphertext))
