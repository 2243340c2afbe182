"""Length-prefixed parts: the only framing in sealed objects, so each object has one encoding.

A frame is a 4-byte big-endian length and that many bytes. Objects are sequences of frames and
fields of fixed size; nothing may follow the last one.
"""

from __future__ import annotations

from vault.seal.errors import SealError

_PREFIX_BYTES = 4
_CUT_SHORT = "A sealed object is cut short."


def frames(*parts: bytes) -> bytes:
    """Return the parts, each behind its length."""
    return b"".join(len(part).to_bytes(_PREFIX_BYTES, "big") + part for part in parts)


class Reader:
    """Takes an object apart from the front; the caller ends with `end()`.

    Args:
        data: The whole object.
        limit_bytes: Most bytes the object may have.

    Raises:
        SealError: The object is longer than the limit.
    """

    def __init__(self, data: bytes, limit_bytes: int) -> None:
        if len(data) > limit_bytes:
            raise SealError(f"A sealed object has more than {limit_bytes} bytes.")
        self._data = data
        self._at = 0

    @property
    def left_bytes(self) -> int:
        """Bytes not yet taken."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes.

        Raises:
            SealError: Fewer are left.
        """
        if size > self.left_bytes:
            raise SealError(_CUT_SHORT)
        self._at += size
        return self._data[self._at - size : self._at]

    def frame(self) -> bytes:
        """Return the next length-prefixed part.

        Raises:
            SealError: It is cut short.
        """
        start = self._at + _PREFIX_BYTES
        end = start + int.from_bytes(self._data[self._at : start], "big")
        if end > len(self._data):
            raise SealError(_CUT_SHORT)
        self._at = end
        return self._data[start:end]

    def end(self) -> None:
        """Check that nothing is left.

        Raises:
            SealError: Bytes follow the last part.
        """
        if self.left_bytes:
            raise SealError("A sealed object has bytes after its end.")
