"""C2SP signed notes: text with Ed25519 signatures by named keys.

Source: https://c2sp.org/signed-note.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vault.proof.errors import InvalidProof, MalformedProof
from vault.seal.errors import SealError
from vault.seal.signing import parse_public_key, verify_signature

ED25519 = b"\x01"
COSIGNATURE = b"\x04"
"""The type of a witness's key: Ed25519 over a timestamp and a checkpoint."""

KEY_ID_BYTES = 4
MAX_NOTE_CHARS = 65_536
MAX_SIGNATURES = 32

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]")
_SIGNATURE_LINE = re.compile(r"— ([^ ]+) ([A-Za-z0-9+/=]+)")


def b64(data: bytes) -> str:
    """Return standard base64 with padding, the spelling that the C2SP text formats use."""
    return base64.b64encode(data).decode("ascii")


def parse_b64(text: str, *, size: int | None = None) -> bytes:
    """Decode standard base64, refusing every second spelling of the same bytes.

    Raises:
        MalformedProof: Another alphabet, wrong padding, stray bits or another length than `size`.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedProof("A field is not base64.") from error
    if b64(data) != text:
        raise MalformedProof("A base64 field has stray bits after its last byte.")
    if size is not None and len(data) != size:
        raise MalformedProof(f"A base64 field has {len(data)} bytes where {size} are expected.")
    return data


@dataclass(frozen=True)
class VerifierKey:
    """An Ed25519 public key with the name it signs notes under.

    Args:
        name: Without spaces or plus; a log's name is its origin.
        public_key: 32 bytes, RFC 8032.
        kind: What its signatures cover: the note's text (`ED25519`), or a checkpoint with a time (`COSIGNATURE`).
    """

    name: str
    public_key: bytes
    kind: bytes = ED25519

    def __post_init__(self) -> None:
        if not _is_key_name(self.name):
            raise MalformedProof("A key name is empty or holds a space, plus or control character.")
        if len(self.public_key) != 32:
            raise MalformedProof("An Ed25519 public key has 32 bytes.")

    @property
    def key_id(self) -> bytes:
        """Four bytes that name key and algorithm; no security rests on them."""
        return hashlib.sha256(self.name.encode() + b"\n" + self.kind + self.public_key).digest()[:KEY_ID_BYTES]

    @property
    def text(self) -> str:
        """The key as one line `name+id+key`, the form in which verifiers are configured."""
        return f"{self.name}+{self.key_id.hex()}+{b64(self.kind + self.public_key)}"


def parse_verifier_key(text: str, kind: bytes = ED25519) -> VerifierKey:
    """Parse `name+id+key`.

    Raises:
        MalformedProof: Another shape, a key of another kind or that binds nobody, or an id that is not this key's.
    """
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    data = parse_b64(encoded, size=33)
    if data[:1] != kind:
        raise MalformedProof(f"The verifier key is not an Ed25519 key of the type 0x{kind.hex()}.")
    try:
        key = VerifierKey(name, parse_public_key(data[1:]), kind)
    except SealError as error:
        raise MalformedProof(f"The verifier key of {name} cannot be used: {error.detail}") from error
    if key.key_id.hex() != key_id:
        raise MalformedProof("The id in the verifier key is not the id of that name and key.")
    return key


@dataclass(frozen=True)
class NoteSignature:
    """One signature line, not yet checked."""

    name: str
    key_id: bytes
    signature: bytes

    @property
    def line(self) -> str:
        """The line as it stands in the note."""
        return f"— {self.name} {b64(self.key_id + self.signature)}\n"


@dataclass(frozen=True)
class Note:
    """A parsed note; its text means nothing before `verify_note`.

    Args:
        unverified_text: Ends in a newline.
        signatures: At least one; no two by the same key.
    """

    unverified_text: str
    signatures: tuple[NoteSignature, ...]


def parse_note(unverified_note: str) -> Note:
    """Split a note into text and signature lines.

    Raises:
        MalformedProof: It is not a signed note in its one spelling, has two signatures by one
            key, or is larger than any note we accept.
    """
    if len(unverified_note) > MAX_NOTE_CHARS:
        raise MalformedProof(f"A note is longer than {MAX_NOTE_CHARS} characters.")
    if _CONTROL.search(unverified_note):
        raise MalformedProof("A note holds a control character or is not UTF-8.")
    head, separator, tail = unverified_note.rpartition("\n\n")
    if not separator or not tail.endswith("\n"):
        raise MalformedProof("A note is text, an empty line and signature lines, each ended by a newline.")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise MalformedProof(f"A note carries more than {MAX_SIGNATURES} signatures.")
    signatures = tuple(map(_parse_signature, lines))
    if len({(signature.name, signature.key_id) for signature in signatures}) != len(signatures):
        raise MalformedProof("A note is signed twice by one key.")
    return Note(head + "\n", signatures)


def sign_note(text: str, key: VerifierKey, sign: Callable[[bytes], bytes]) -> str:
    """Return the note of `text` with one signature.

    Args:
        text: Ends in a newline.
        key: Public half of the key that `sign` uses.
        sign: Ed25519 over the bytes given; returns 64 bytes.

    Raises:
        InvalidProof: The signature is not by that key: publishing it would break every reader.
    """
    note = text + "\n" + NoteSignature(key.name, key.key_id, sign(text.encode())).line
    verify_note(note, [key])
    return note


def verify_note(unverified_note: str, trusted: Iterable[VerifierKey]) -> str:
    """Return the text of a note that at least one trusted key signed.

    Signatures by keys that are not trusted are ignored, as the specification demands; a wrong
    signature under a trusted key's name and id refuses the whole note.

    Raises:
        MalformedProof: It is not a note.
        InvalidProof: No trusted key signed it, or one of their signatures is wrong.
    """
    note = parse_note(unverified_note)
    keys = {(key.name, key.key_id): key for key in trusted if key.kind == ED25519}
    signed = False
    for signature in note.signatures:
        key = keys.get((signature.name, signature.key_id))
        if key is None:
            continue
        try:
            verify_signature(key.public_key, signature.signature, note.unverified_text.encode())
        except SealError as error:
            raise InvalidProof(f"The note's signature by {key.name} is wrong.") from error
        signed = True
    if not signed:
        raise InvalidProof("No trusted key signed the note.")
    return note.unverified_text


def _parse_signature(line: str) -> NoteSignature:
    match = _SIGNATURE_LINE.fullmatch(line)
    if match is None or not _is_key_name(match[1]):
        raise MalformedProof("A signature line is not a dash, a key name and base64.")
    data = parse_b64(match[2])
    if len(data) <= KEY_ID_BYTES:
        raise MalformedProof("A signature line holds no signature.")
    return NoteSignature(match[1], data[:KEY_ID_BYTES], data[KEY_ID_BYTES:])


def _is_key_name(name: str) -> bool:
    return bool(name) and "+" not in name and not _CONTROL.search(name) and not any(map(str.isspace, name))
