"""Blocks of daily rows: one noise for every chain, payloads that round-trip, names that bind what made them."""

import contextlib
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.errors import MalformedInput
from vault.imprint.block import (
    COLUMN_SQUARE,
    Block,
    block_id,
    dump_block,
    dump_carried,
    late_id,
    late_sigma,
    on_time_sensitivity,
    parse_block,
    parse_carried,
    sensitivity,
    strategy_from,
)
from vault.imprint.chain import MAX_HORIZON, errors, prefix
from vault.imprint.features import Cadence, feature_map
from vault.schema.category import Category

PURCHASE = Category("pd:Purchase")
RETAIL = feature_map(PURCHASE, Cadence.DAILY)
VAULT, HASHES = b"v" * 16, [bytes([i]) * 32 for i in range(3)]
START, FIRST, LAST = date(2026, 2, 1), date(2026, 3, 30), date(2026, 3, 31)


def test_the_daily_map_has_the_monthly_ones_coordinates_and_another_digest() -> None:
    monthly = feature_map(PURCHASE)
    assert (RETAIL.codes, RETAIL.names, RETAIL.hierarchy) == (monthly.codes, monthly.names, monthly.version)
    assert RETAIL.digest != monthly.digest
    assert RETAIL.active_day**2 * 20 <= RETAIL.clip**2


def test_no_chain_shows_more_of_a_day_than_is_charged_whatever_day_it_begins() -> None:
    worst = max(prefix(horizon).column_square for horizon in range(1, MAX_HORIZON + 1))
    assert worst == COLUMN_SQUARE
    assert sensitivity(RETAIL.clip) ** 2 >= RETAIL.clip**2 * worst > (sensitivity(RETAIL.clip) - 1) ** 2
    assert strategy_from(date(2028, 1, 1)).horizon == 366
    assert strategy_from(date(2026, 12, 31)).horizon == 1


@given(st.integers(1, 256), st.integers(1, 65_536))
def test_a_late_row_takes_no_more_than_its_share(clip: int, sigma: int) -> None:
    late = late_sigma(clip, sigma)
    on_time, share = sensitivity(clip) ** 2 / sigma**2, clip**2 / late**2
    assert share <= on_time * 1 / 99 * (1 + 1e-12)
    assert late == 1 or clip**2 / (late - 1) ** 2 > on_time * 1 / 99 * (1 - 1e-12)


@given(st.integers(1, 256), st.integers(1, 65_536))
def test_a_day_on_time_and_late_stays_within_what_was_reserved(clip: int, sigma: int) -> None:
    late, on_time = late_sigma(clip, sigma), sensitivity(clip)
    # S^2 / sigma^2 + clip^2 / late^2 <= S'^2 / sigma^2 with S' the on-time sensitivity, in whole numbers.
    assert on_time**2 * late**2 + clip**2 * sigma**2 <= on_time_sensitivity(on_time) ** 2 * late**2


def block(values: np.ndarray, first: date = FIRST, start: date = START) -> Block:
    return Block(b"r" * 32, RETAIL.digest, start, first, RETAIL.clip, 13_948, values)


GOOD = dump_block(block(np.arange(6, dtype=np.int64).reshape(2, 3)))


@given(st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=3, max_size=3), min_size=1, max_size=2))
def test_a_payload_round_trips(values: list[list[int]]) -> None:
    payload = dump_block(block(np.array(values, dtype=np.int64)))
    back = parse_block(payload)
    assert back.values.tolist() == values
    assert dump_block(back) == payload
    assert (back.start, back.first, back.index, (back.last - back.first).days) == (START, FIRST, 57, len(values) - 1)
    with pytest.raises(ValueError, match="read-only"):
        back.values += 1


@pytest.mark.parametrize(
    "wrong",
    [
        block(np.zeros((3, 2), dtype=np.int64)),  # into April
        block(np.zeros((1, 2), dtype=np.int64), start=date(2026, 4, 1)),
        block(np.zeros((1, 2), dtype=np.int64), start=date(2025, 12, 1)),
        block(np.zeros((32, 2), dtype=np.int64), first=date(2026, 3, 1)),
    ],
)
def test_days_outside_the_month_or_the_chain_are_malformed(wrong: Block) -> None:
    with pytest.raises(MalformedInput):
        parse_block(dump_block(wrong))


@given(st.one_of(st.binary(max_size=200), st.integers(0, len(GOOD) - 1).map(lambda n: GOOD[:n]), st.just(GOOD + b"\0")))
def test_any_other_bytes_are_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedInput):
        parse_block(payload)


@given(st.integers(0, len(GOOD) * 8 - 1))
def test_a_flipped_bit_is_refused_or_read_as_what_it_says(bit: int) -> None:
    payload = bytearray(GOOD)
    payload[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(MalformedInput):
        assert dump_block(parse_block(bytes(payload))) == bytes(payload)


@pytest.mark.parametrize(
    ("value", "each_bytes"),
    [(0, 2), (32_767, 2), (-32_768, 2), (32_768, 4), (-32_769, 4), (2**31 - 1, 4), (-(2**31), 4)],
)
def test_values_take_16_bits_where_all_of_them_fit(value: int, each_bytes: int) -> None:
    one = block(np.array([[1, value]], dtype=np.int64))
    data = dump_block(one)
    assert len(data) - len(dump_block(block(np.zeros((1, 1), dtype=np.int64)))) == 2 * each_bytes - 2
    assert parse_block(data).values.tolist() == [[1, value]]


def test_what_was_written_in_32_bits_before_is_still_read() -> None:
    wide = dump_block(block(np.array([[2**20]], dtype=np.int64)))
    narrow_value = wide[:-4] + (5).to_bytes(4, "little")
    assert parse_block(narrow_value).values.tolist() == [[5]]
    with pytest.raises(MalformedInput):
        parse_block(bytes([3]) + narrow_value[1:])


def test_a_value_that_would_wrap_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bits"):
        dump_block(block(np.array([[2**31]], dtype=np.int64)))


def test_what_a_chain_goes_on_with_round_trips_and_refuses_anything_else() -> None:
    heads = {(b"c" * 16, b"d" * 16): 7, (b"c" * 16, b"e" * 16): 1}
    noise = np.arange(-6, 6, dtype=np.int64).reshape(4, 3)
    data = dump_carried(heads, noise)
    found, back = parse_carried(data)
    assert (found, back.tolist()) == (heads, noise.tolist())
    for wrong in (b"", data[:30], data[:-1], data + b"\0"):
        with pytest.raises(MalformedInput):
            parse_carried(wrong)


def test_a_block_is_named_by_everything_that_made_it() -> None:
    def name(**changed: object) -> bytes:
        args = {"vault_id": VAULT, "start": START, "days": (FIRST, LAST), "sigma": 400, "batch_hashes": HASHES}
        return block_id(RETAIL, **(args | changed))  # type: ignore[arg-type]

    assert name() == name(batch_hashes=[*reversed(HASHES), HASHES[0]])
    others = {
        name(vault_id=b"w" * 16),
        name(start=date(2026, 1, 1)),
        name(days=(FIRST, FIRST)),
        name(days=(LAST, LAST)),
        name(sigma=401),
        name(batch_hashes=HASHES[:-1]),
        name(batch_hashes=[]),
        late_id(RETAIL, VAULT, (FIRST, LAST), sigma=400, batch_hashes=HASHES),
        block_id(feature_map(PURCHASE), VAULT, START, (FIRST, LAST), sigma=400, batch_hashes=HASHES),
    }
    assert len(others | {name()}) == 10
    with pytest.raises(ValueError, match="32 bytes"):
        name(batch_hashes=[b"short"])


def test_a_chain_made_in_pieces_is_the_chain_made_at_once() -> None:
    strategy = strategy_from(date(2026, 11, 1))
    noise = np.random.default_rng(1).integers(-30_000, 30_000, (61, 5))
    whole = errors(strategy, noise)
    known = whole[:0]
    for first, last in ((0, 20), (20, 21), (21, 30), (30, 61)):
        _, carried = parse_carried(dump_carried({}, errors(strategy, noise[first:last], known)))
        known = np.concatenate([known, carried])
    assert (known == whole).all()
