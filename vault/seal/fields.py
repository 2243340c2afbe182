"""Strict reading of a signed record's fields."""

from __future__ import annotations

from vault.encoding import JsonObject, JsonValue, parse_b64u
from vault.seal.errors import SealError, as_seal_error
from vault.seal.ids import HASH_BYTES, ID_BYTES
from vault.seal.signing import parse_public_key


class Fields:
    """Takes each field of a record once; a field that nobody takes is refused by `end()`.

    Args:
        record: A JSON object from `vault.encoding.parse_json`.

    Raises:
        SealError: By every method, where the field is missing or not what the method says.
    """

    def __init__(self, record: JsonValue) -> None:
        if not isinstance(record, dict):
            raise SealError("A record holds something else where an object is expected.")
        self._left: JsonObject = dict(record)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def _take(self, name: str) -> JsonValue:
        if name not in self._left:
            raise SealError(f"A record lacks the field {name}.")
        return self._left.pop(name)

    def text(self, name: str, *, most: int = 256) -> str:
        """Return a text of at most `most` characters."""
        value = self._take(name)
        if not isinstance(value, str) or len(value) > most:
            raise SealError(f"The field {name} is not a text of at most {most} characters.")
        return value

    def integer(self, name: str, *, least: int = 0) -> int:
        """Return an integer not below `least`."""
        value = self._take(name)
        if not isinstance(value, int) or value < least:
            raise SealError(f"The field {name} is not an integer of at least {least}.")
        return value

    def binary(self, name: str, *, size: int | None = None) -> bytes:
        """Return base64url bytes, of exactly `size` bytes if given."""
        value = self._take(name)
        if not isinstance(value, str):
            raise SealError(f"The field {name} is not base64url text.")
        with as_seal_error():
            return parse_b64u(value, size=size)

    def id(self, name: str) -> bytes:
        """Return a 16-byte identifier."""
        return self.binary(name, size=ID_BYTES)

    def hash(self, name: str) -> bytes:
        """Return a SHA-256 value, 32 bytes."""
        return self.binary(name, size=HASH_BYTES)

    def public_key(self, name: str) -> bytes:
        """Return an Ed25519 public key that a signature can bind somebody by, 32 bytes."""
        return parse_public_key(self.binary(name))

    def object(self, name: str) -> JsonObject:
        """Return an object."""
        value = self._take(name)
        if not isinstance(value, dict):
            raise SealError(f"The field {name} is not an object.")
        return value

    def items(self, name: str) -> list[JsonValue]:
        """Return a list."""
        value = self._take(name)
        if not isinstance(value, list):
            raise SealError(f"The field {name} is not a list.")
        return value

    def hashes(self, name: str) -> list[bytes]:
        """Return a list of SHA-256 values."""
        with as_seal_error():
            return [parse_b64u(item, size=HASH_BYTES) for item in self.items(name)]

    def end(self) -> None:
        """Refuse a record with a field that nobody took: signer and reader must mean the same."""
        if self._left:
            raise SealError("A record has a field that its type does not know.")


def parse_id(text: str) -> bytes:
    """Return the 16 bytes of an identifier's text.

    Raises:
        SealError: The text is not base64url of 16 bytes.
    """
    with as_seal_error():
        return parse_b64u(text, size=ID_BYTES)


def parse_hash(text: str) -> bytes:
    """Return the 32 bytes of a hash's text.

    Raises:
        SealError: The text is not base64url of 32 bytes.
    """
    with as_seal_error():
        return parse_b64u(text, size=HASH_BYTES)
