"""Rows: bounded towards one local day, the same support for neighbours, one name for one input."""

import contextlib
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.errors import MalformedInput
from vault.imprint.features import feature_map
from vault.imprint.noise import DiscreteGaussian
from vault.imprint.rows import Row, dump_row, month_sum, noisy, parse_row, release_id
from vault.schema.category import Category
from vault.schema.trace import Action, Period, Trace, local_date

RETAIL = feature_map(Category("pd:Purchase"))
PERIOD = Period("2026-10")  # Europe/Berlin leaves summer time on the 25th
BERLIN = ZoneInfo("Europe/Berlin")
HASHES = [bytes([i]) * 32 for i in range(4)]
VAULT = b"v" * 16


def trace(at: datetime, code: str = RETAIL.codes[0], category: str = "pd:Purchase") -> Trace:
    return Trace("1", "test", at, Category(category), Action.BUY, code)


def no_noise(size: int) -> bytes:
    """Uniform bytes that fall on zero: half of the mass lies below."""
    return (b"\0" * 7 + b"\x80") * (size // 8)


minutes = st.integers(0, 34 * 24 * 60).map(lambda m: datetime(2026, 9, 29, tzinfo=UTC) + timedelta(minutes=m))
some_traces = st.lists(st.builds(trace, minutes, st.sampled_from([*RETAIL.codes, "x:y"])), max_size=60)


@given(some_traces, st.integers(0, 33))
def test_all_traces_of_one_local_day_move_the_month_by_at_most_the_clip(traces: list[Trace], offset: int) -> None:
    day = datetime(2026, 9, 29, 12, tzinfo=UTC).date() + timedelta(days=offset)
    rest = [t for t in traces if local_date(t.occurred_at, BERLIN) != day]
    step = month_sum(RETAIL, PERIOD, BERLIN, traces) - month_sum(RETAIL, PERIOD, BERLIN, rest)
    assert sum(int(v) ** 2 for v in step) <= RETAIL.clip**2


def test_the_25_hours_of_a_clock_change_are_one_day() -> None:
    start = datetime(2026, 10, 24, 22, tzinfo=UTC)  # midnight in Berlin, still summer time
    traces = [trace(start + timedelta(hours=h), RETAIL.codes[h]) for h in range(25)]
    total = month_sum(RETAIL, PERIOD, BERLIN, traces)
    assert np.array_equal(total, RETAIL.day_vector(RETAIL.codes[:25]))
    two_days = month_sum(RETAIL, PERIOD, BERLIN, [*traces, trace(start + timedelta(hours=25))])
    assert two_days[-1] == 2 * RETAIL.active_day


def test_days_of_other_months_and_other_categories_add_nothing() -> None:
    outside = [
        trace(datetime(2026, 9, 30, 21, 59, tzinfo=UTC)),  # a minute before October in Berlin
        trace(datetime(2026, 10, 31, 23, 0, tzinfo=UTC)),  # November there, October in UTC
        trace(datetime(2026, 10, 5, tzinfo=UTC), category="pd:BrowsingBehaviour"),
    ]
    assert not month_sum(RETAIL, PERIOD, BERLIN, outside).any()
    inside = trace(datetime(2026, 9, 30, 22, 0, tzinfo=UTC))
    assert month_sum(RETAIL, PERIOD, BERLIN, [inside])[-1] == RETAIL.active_day


def test_zero_noise_gives_the_plain_sums() -> None:
    sums = [RETAIL.day_vector([]), RETAIL.day_vector(RETAIL.codes[:3])]
    assert np.array_equal(noisy(sums, DiscreteGaussian(400), no_noise), np.stack(sums))


def test_noise_is_whole_so_neighbours_share_their_support() -> None:
    noise = DiscreteGaussian(2)
    with_day, without = RETAIL.day_vector(RETAIL.codes[:7]), RETAIL.day_vector([])
    released = noisy([with_day, without], noise)
    assert released.dtype == np.int64
    with pytest.raises(TypeError, match="integers"):
        noisy([with_day / 3], noise)
    # Every integer within reach of both comes out of both: small sigma, many draws, one coordinate.
    a = set(noisy([np.zeros(20_000, dtype=np.int64)], noise)[0].tolist())
    b = set(noisy([np.ones(20_000, dtype=np.int64)], noise)[0].tolist())
    assert set(range(-4, 6)) <= a & b


def test_two_releases_never_share_noise() -> None:
    sums = [RETAIL.day_vector([])] * 2
    first, second = noisy(sums, DiscreteGaussian(400))
    assert not np.array_equal(first, second)
    assert not np.array_equal(noisy(sums, DiscreteGaussian(400))[0], first)


def test_a_release_is_named_by_everything_that_made_it() -> None:
    name = release_id(RETAIL, VAULT, PERIOD, DiscreteGaussian(400), HASHES)
    assert name == release_id(RETAIL, VAULT, PERIOD, DiscreteGaussian(400), [*reversed(HASHES), HASHES[0]])
    others = {
        release_id(RETAIL, b"w" * 16, PERIOD, DiscreteGaussian(400), HASHES),
        release_id(RETAIL, VAULT, Period("2026-11"), DiscreteGaussian(400), HASHES),
        release_id(RETAIL, VAULT, PERIOD, DiscreteGaussian(401), HASHES),
        release_id(RETAIL, VAULT, PERIOD, DiscreteGaussian(400), HASHES[:-1]),
        release_id(RETAIL, VAULT, PERIOD, DiscreteGaussian(400), []),
        release_id(RETAIL, VAULT, PERIOD, DiscreteGaussian(400), HASHES, index=1),
    }
    assert len(others | {name}) == 7
    with pytest.raises(ValueError, match="32 bytes"):
        release_id(RETAIL, VAULT, PERIOD, DiscreteGaussian(400), [b"short"])


def row(values: np.ndarray) -> Row:
    return Row(b"r" * 32, RETAIL.digest, PERIOD, 0, RETAIL.clip, 421, values)


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=50))
def test_a_payload_round_trips(values: list[int]) -> None:
    payload = dump_row(row(np.array(values, dtype=np.int64)))
    back = parse_row(payload)
    assert back.values.tolist() == values
    assert dump_row(back) == payload
    assert (back.release_id, back.map_digest, back.period) == (b"r" * 32, RETAIL.digest, PERIOD)
    assert (back.index, back.clip, back.sigma) == (0, RETAIL.clip, 421)
    with pytest.raises(ValueError, match="read-only"):
        back.values += 1


def test_a_value_that_would_wrap_is_refused() -> None:
    for value in (2**31, -(2**31) - 1, -(2**63)):
        with pytest.raises(ValueError, match="32 bits"):
            dump_row(row(np.array([value], dtype=np.int64)))


GOOD = dump_row(row(np.arange(5, dtype=np.int64)))


@given(st.one_of(st.binary(max_size=200), st.integers(0, len(GOOD) - 1).map(lambda n: GOOD[:n]), st.just(GOOD + b"\0")))
def test_any_other_bytes_are_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedInput):
        parse_row(payload)


@given(st.integers(0, len(GOOD) * 8 - 1))
def test_a_flipped_bit_is_refused_or_read_as_what_it_says(bit: int) -> None:
    payload = bytearray(GOOD)
    payload[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(MalformedInput):
        assert dump_row(parse_row(bytes(payload))) == bytes(payload)
