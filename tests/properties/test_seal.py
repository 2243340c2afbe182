"""No byte of a sealed object can change, and no bytes whatever raise anything but the one refusal."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.seal.world import CATEGORY, WORLD
from vault.schema.category import Category
from vault.schema.trace import Action, Trace, at_ms
from vault.seal.columns import pack_traces, unpack_traces
from vault.seal.dsse import parse_envelope, unverified_record
from vault.seal.errors import SealError
from vault.seal.fields import Fields, parse_hash, parse_id
from vault.seal.identity import Identity
from vault.seal.kit import parse_kit
from vault.seal.recipient import Recipient
from vault.seal.wrap import unlock

KINDS = sorted(WORLD.objects)
SMALL = ["row", "slot", "account"]
bounded = settings(max_examples=60, deadline=None)


def refuses(reading: object, data: bytes) -> None:
    with pytest.raises(SealError):
        reading(data)  # type: ignore[operator]  # every reading takes bytes


@pytest.mark.parametrize("kind", KINDS)
def test_each_object_reads_as_it_was_made(kind: str) -> None:
    data, reading = WORLD.objects[kind]
    assert reading(data)


@pytest.mark.parametrize("kind", KINDS)
@given(choice=st.data())
@bounded
def test_a_flipped_bit_is_refused(kind: str, choice: st.DataObject) -> None:
    data, reading = WORLD.objects[kind]
    bit = choice.draw(st.integers(0, 8 * len(data) - 1))
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    refuses(reading, bytes(flipped))


@pytest.mark.parametrize("kind", SMALL)
def test_every_bit_of_a_small_object_counts(kind: str) -> None:
    data, reading = WORLD.objects[kind]
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        refuses(reading, bytes(flipped))


@pytest.mark.parametrize("kind", KINDS)
@given(choice=st.data())
@bounded
def test_a_cut_or_longer_object_is_refused(kind: str, choice: st.DataObject) -> None:
    data, reading = WORLD.objects[kind]
    refuses(reading, data[: choice.draw(st.integers(0, len(data) - 1))])
    refuses(reading, data + choice.draw(st.binary(min_size=1, max_size=100)))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.binary(max_size=400))
@bounded
def test_any_bytes_are_refused_in_one_way(kind: str, data: bytes) -> None:
    refuses(WORLD.objects[kind][1], data)


@pytest.mark.parametrize("kind", KINDS)
@given(other=st.sampled_from(KINDS))
@bounded
def test_no_object_is_taken_for_another_kind(kind: str, other: str) -> None:
    if kind != other:
        refuses(WORLD.objects[kind][1], WORLD.objects[other][0])


json_values = st.recursive(
    st.integers() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
KNOWN_FIELDS = ["vault", "version", "prev", "period", "compartments", "pages", "devices", "issued_at", "signing"]


@given(record=st.dictionaries(st.sampled_from(KNOWN_FIELDS) | st.text(max_size=5), json_values, max_size=8))
@settings(max_examples=300, deadline=None)
def test_any_record_that_the_owner_signed_is_read_or_refused(record: dict[str, object]) -> None:
    from vault.seal.dsse import PayloadType, sign_record

    for payload_type, kind in [
        (PayloadType.RING_PAGE, "page"),
        (PayloadType.RING_HEAD, "head"),
        (PayloadType.ACCOUNT, "account"),
    ]:
        try:
            envelope = sign_record(payload_type, record, WORLD.owner)  # type: ignore[arg-type]  # that is the test
        except SealError:
            continue
        refuses(WORLD.objects[kind][1], envelope.encoded)


texts = st.text(max_size=20)
numbers = st.none() | st.integers(-(2**53) + 1, 2**53 - 1)


@st.composite
def any_trace(draw: st.DrawFn) -> Trace:
    quantity, amount = draw(numbers), draw(numbers)
    return Trace(
        draw(st.text(min_size=1, max_size=128)),
        draw(st.text(min_size=1, max_size=64)),
        at_ms(draw(st.integers(0, 7_258_118_399_999))),
        CATEGORY,
        draw(st.sampled_from(Action)),
        draw(texts),
        draw(st.text(max_size=1024)),
        quantity,
        "" if quantity is None else draw(st.text(max_size=16)),
        amount,
        "" if amount is None else "EUR",
    )


@given(st.lists(any_trace(), min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_traces_come_back_as_they_were_packed(traces: list[Trace]) -> None:
    assert unpack_traces(pack_traces(traces), CATEGORY) == traces


@given(st.binary(max_size=600), st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_every_other_entry_point_refuses_in_one_way(data: bytes, text: str) -> None:
    for reading in (
        lambda: unpack_traces(data, Category("pd:Purchase")),
        lambda: parse_envelope(data),
        lambda: Recipient(data).seal(b"", b""),
        lambda: Recipient(data.ljust(1216, b"\0")[:1216]).seal(b"", b""),
        lambda: WORLD.processor.open(data, b""),
        lambda: WORLD.processor.open(data.ljust(1200, b"\0"), b""),
        lambda: Identity(data),
        lambda: unlock(data, data, b""),
        lambda: unlock(bytes(32), data, b""),
        lambda: parse_id(text),
        lambda: parse_hash(text),
        lambda: Fields(text),
        lambda: parse_kit(text),
    ):
        try:
            reading()
        except SealError:
            continue


@given(st.binary(max_size=600))
@bounded
def test_a_payload_is_read_or_refused(payload: bytes) -> None:
    from vault.seal.dsse import Envelope, PayloadType

    try:
        unverified_record(Envelope(PayloadType.CONSENT, payload, ()))
    except SealError:
        return
