"""The plaintext of a batch, from a device that may be compromised."""

from __future__ import annotations

import pytest
import zstandard

from tests.seal.world import CATEGORY, traces
from vault.seal.columns import MAX_PLAIN_BYTES, bucket_bytes, pack_traces, unpack_traces
from vault.seal.errors import SealError


def packed(stored: bytes, plain_bytes: int, codec: bytes = b"\x01", pad: bytes = b"\0") -> bytes:
    data = codec + len(stored).to_bytes(4, "big") + plain_bytes.to_bytes(4, "big") + stored
    return data.ljust(bucket_bytes(len(data)), pad)


def repacked(change: object) -> bytes:
    data = pack_traces(traces(5))
    stored_bytes = int.from_bytes(data[1:5], "big")
    plain = change(zstandard.decompress(data[9 : 9 + stored_bytes]))  # type: ignore[operator]
    return packed(zstandard.compress(plain), len(plain))


@pytest.mark.parametrize("count", [1, 2, 1000, 20_000])
def test_traces_come_back(count: int) -> None:
    assert unpack_traces(pack_traces(traces(count)), CATEGORY) == traces(count)


def test_padding_hides_the_length_and_costs_at_most_an_eighth() -> None:
    sizes = range(1, 200_000, 37)
    assert all(size <= bucket_bytes(size) <= max(256, size * 1.12) for size in sizes)
    assert len({bucket_bytes(size) for size in sizes}) < len(sizes) / 30
    assert len(pack_traces(traces(1))) == len(pack_traces(traces(2)))


def test_a_bomb_is_refused_before_it_unpacks() -> None:
    bomb = zstandard.compress(bytes(MAX_PLAIN_BYTES + 1))
    for claimed in (MAX_PLAIN_BYTES + 1, MAX_PLAIN_BYTES, 100, 2**32 - 1):
        with pytest.raises(SealError, match="16 MiB"):
            unpack_traces(packed(bomb, claimed), CATEGORY)


def test_a_frame_without_its_size_is_refused() -> None:
    nameless = zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 1000)
    with pytest.raises(SealError, match="16 MiB"):
        unpack_traces(packed(nameless, 1000), CATEGORY)


def test_a_second_frame_behind_the_first_is_refused() -> None:
    with pytest.raises(SealError, match="zstd"):
        unpack_traces(packed(zstandard.compress(b"x" * 9) + zstandard.compress(b"y"), 9), CATEGORY)


def test_another_codec_padding_or_size_is_refused() -> None:
    stored = zstandard.compress(b"x" * 300)
    for data in (packed(stored, 300, codec=b"\x02"), packed(stored, 300, pad=b"\1"), packed(stored, 300) + bytes(64)):
        with pytest.raises(SealError):
            unpack_traces(data, CATEGORY)


@pytest.mark.parametrize(
    "change",
    [
        lambda plain: b"\0\0\0\0" + plain[4:],
        lambda plain: b"\0\0\0\x06" + plain[4:],
        lambda plain: b"\xff\xff\xff\xff" + plain[4:],
        lambda plain: plain + b"\0",
        lambda plain: plain[:-1],
        lambda plain: plain.replace("Brötchen".encode(), b"Br\xff\xfftchen"),
        lambda plain: plain.replace(b"buybuy", b"buyeat"),
        lambda plain: plain.replace(b"EUREUR", b"EURe__"),
        lambda plain: plain[:8] + b"\xff" * 8 + plain[16:],
        lambda plain: plain[:8] + b"\0" * 7 + b"\x7f" + plain[16:],
    ],
)
def test_malformed_columns_are_refused(change: object) -> None:
    with pytest.raises(SealError):
        unpack_traces(repacked(change), CATEGORY)


def test_an_unchanged_repack_is_accepted() -> None:
    assert unpack_traces(repacked(lambda plain: plain), CATEGORY) == traces(5)


def test_no_trace_and_too_many_are_refused() -> None:
    for count in (0, 65_537):
        with pytest.raises(SealError):
            pack_traces(traces(1) * count)
