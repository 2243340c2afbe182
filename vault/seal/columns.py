"""The plaintext of a batch: traces as columns, zstd, padding.

Layout: codec (1 byte), stored length (4), plain length (4), zstd frame, zeros up to the bucket.
Plain: row count (4), then per field one frame. Numbers are little-endian 64-bit differences to the
row before (-2**53 stands for none); texts are one frame of 16-bit character counts and one of UTF-8.

Sealed bytes come from a device that may be compromised. So the reader is small and checks each
length before it allocates; Arrow IPC was measured and set aside because its own buffers may be
compressed again, past any limit set here, and its framing is larger.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from itertools import accumulate
from operator import sub
from typing import Final

import zstandard

from vault.errors import MalformedInput
from vault.schema.category import Category
from vault.schema.trace import Trace, at_ms, occurred_ms, parse_action
from vault.seal.errors import SealError, as_seal_error
from vault.seal.framing import Reader, frames

MAX_PLAIN_BYTES: Final = 16 << 20
MAX_TRACES: Final = 65_536
_CODEC: Final = b"\x01"
_HEADER_BYTES: Final = 9
_NONE: Final = -(2**53)
_LEVEL: Final = 3


def bucket_bytes(size: int) -> int:
    """Return the padded size: at most 12 % more, and only O(log log) bits of the length show.

    Source: PADME, "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", PETS 2019.
    """
    exponent = max(size, 2).bit_length() - 1
    low_bits = exponent - exponent.bit_length()
    mask = (1 << low_bits) - 1
    return max((size + mask) & ~mask, 256)


def pack_traces(traces: Sequence[Trace]) -> bytes:
    """Return the padded plaintext of a batch; the category is the compartment's and is not written.

    Raises:
        SealError: No trace, more than 65,536, more than 16 MiB, or text that is not Unicode.
    """
    if not 0 < len(traces) <= MAX_TRACES:
        raise SealError("A batch holds between 1 and 65,536 traces.")
    try:
        plain = len(traces).to_bytes(4, "big") + b"".join(_columns(traces))
    except UnicodeEncodeError as error:
        raise SealError("A trace's text holds half of a surrogate pair.") from error
    if len(plain) > MAX_PLAIN_BYTES:
        raise SealError("A batch has more than 16 MiB; split it.")
    stored = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False).compress(plain)
    packed = _CODEC + len(stored).to_bytes(4, "big") + len(plain).to_bytes(4, "big") + stored
    return packed.ljust(bucket_bytes(len(packed)), b"\0")


def unpack_traces(packed: bytes, category: Category) -> list[Trace]:
    """Return the traces of a padded plaintext, all of the compartment's category.

    Raises:
        SealError: Another codec, wrong lengths or padding, more than 16 MiB, or a malformed trace.
    """
    plain = Reader(_decompress(packed), MAX_PLAIN_BYTES)
    rows = int.from_bytes(plain.take(4), "big")
    if not 0 < rows <= MAX_TRACES:
        raise SealError("A batch holds between 1 and 65,536 traces.")
    times, quantities, amounts = (_parse_numbers(plain.frame(), rows) for _ in range(3))
    texts = [_parse_texts(plain.frame(), plain.frame(), rows) for _ in range(7)]
    plain.end()
    with as_seal_error():
        return [
            Trace(
                trace_id, source, at_ms(_present(at)), category, parse_action(action), code, text, quantity, unit,
                amount, currency,
            )
            for at, quantity, amount, trace_id, source, action, code, text, unit, currency in zip(
                times, quantities, amounts, *texts, strict=True
            )
        ]  # fmt: skip


def _present(number: int | None) -> int:
    if number is None:
        raise MalformedInput("A trace has no time.")
    return number


def _columns(traces: Sequence[Trace]) -> list[bytes]:
    numbers = (
        [occurred_ms(trace) for trace in traces],
        [_NONE if trace.quantity_milli is None else trace.quantity_milli for trace in traces],
        [_NONE if trace.amount_milli is None else trace.amount_milli for trace in traces],
    )
    texts = zip(*((t.id, t.source, t.action, t.object, t.text, t.unit, t.currency) for t in traces), strict=True)
    return [_numbers(column) for column in numbers] + [_texts(column) for column in texts]


def _numbers(column: list[int]) -> bytes:
    return frames(_little(array("q", map(sub, column, [0, *column[:-1]]))))


def _parse_numbers(data: bytes, rows: int) -> list[int | None]:
    if len(data) != 8 * rows:
        raise SealError("A batch's column has another number of rows.")
    column = [None if number == _NONE else number for number in accumulate(_from_little("q", data))]
    if any(number is not None and abs(number) >= -_NONE for number in column):
        raise SealError("A batch holds an integer beyond 2**53 - 1.")
    return column


def _texts(column: Sequence[str]) -> bytes:
    return frames(_little(array("H", map(len, column))), "".join(column).encode())


def _parse_texts(counts_data: bytes, data: bytes, rows: int) -> list[str]:
    if len(counts_data) != 2 * rows:
        raise SealError("A batch's column has another number of rows.")
    try:
        joined = data.decode()
    except UnicodeDecodeError as error:
        raise SealError("A batch's text is not UTF-8.") from error
    ends = list(accumulate(_from_little("H", counts_data)))
    if ends[-1] != len(joined):
        raise SealError("A batch's texts do not add up to its column.")
    return [joined[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _little(column: array[int]) -> bytes:
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()


def _from_little(kind: str, data: bytes) -> array[int]:
    column = array(kind, data)
    if sys.byteorder == "big":
        column.byteswap()
    return column


def _decompress(packed: bytes) -> bytes:
    reader = Reader(packed, MAX_PLAIN_BYTES)
    if reader.take(1) != _CODEC:
        raise SealError("A batch is packed with a codec that TwinVault does not know.")
    stored_bytes, plain_bytes = (int.from_bytes(reader.take(4), "big") for _ in range(2))
    stored = reader.take(stored_bytes)
    padding = reader.take(reader.left_bytes)
    if len(packed) != bucket_bytes(_HEADER_BYTES + stored_bytes) or padding.strip(b"\0"):
        raise SealError("A batch's padding is not the one that its length asks for.")
    try:
        # The frame names its own size and the decoder allocates that much: check it first.
        if plain_bytes > MAX_PLAIN_BYTES or zstandard.get_frame_parameters(stored).content_size != plain_bytes:
            raise SealError("A batch unpacks to more than 16 MiB or to another length than it says.")
        plain = zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise SealError("A batch is not a zstd frame.") from error
    if len(plain) != plain_bytes:
        raise SealError("A batch unpacks to more than 16 MiB or to another length than it says.")
    return plain
