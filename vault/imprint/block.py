"""Blocks: what is stored of a chain. The rows of consecutive days of one month that were made together.

A block holds stored rows y (see `vault.imprint.chain`), so whoever opens the blocks of some months learns of
the days of those months and of no other: what a chain carries on from block to block is noise. That noise, e,
is kept beside each block under a key that only opens with the traces themselves, for y - e is the exact day.

What arrived after a day's row was made goes into the one late row of its month, which is always made.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from math import isqrt
from typing import Final

import numpy as np
import numpy.typing as npt

from vault.encoding import JsonObject, b64u, dump_json
from vault.errors import MalformedInput
from vault.imprint.chain import Strategy, prefix
from vault.imprint.features import FeatureMap
from vault.imprint.noise import MAX_SIGMA, Integers

DAILY: Final = "daily/1"
LATE: Final = "late/1"
LATE_PERCENT: Final = 1
"""What part of a day's mu^2 its late row may use: as it is always made, and no answer reads it, little."""
LATE_AFTER: Final = timedelta(days=30)
"""How long after a month closed its late row is made."""
COLUMN_SQUARE: Final = 16_697
"""Squared norm that no column of a served strategy exceeds, whatever its horizon: one noise fits all chains."""

_HEADER: Final = struct.Struct(">B32s32sIIIIHI")
_NARROW: Final = 3
_WIDE: Final = 2
_KINDS: Final = {_NARROW: "<i2", _WIDE: "<i4"}
"""How a payload's values are written, by its version: in 16 bits where all of them fit, as those of most days do."""
_MOST_DAYS: Final = 31
_MOST_COORDINATES: Final = 65_536
_LIMIT: Final = 2**31
_HEAD: Final = struct.Struct(">16s16sI")
_COUNT: Final = struct.Struct(">I")

Heads = Mapping[tuple[bytes, bytes], int]
"""How far a compartment's batches were read: by compartment and device, the sequence number of the last one."""


def sensitivity(clip: int) -> int:
    """Return the L2 sensitivity of every served chain to one day of norm at most `clip`, rounded up."""
    return isqrt(clip**2 * COLUMN_SQUARE - 1) + 1


def on_time_sensitivity(sensitivity: int) -> int:
    """Return what to divide by mu for the noise of on-time rows, so that late rows fit under the same mu."""
    square = -(-(sensitivity**2) * 100 // (100 - LATE_PERCENT))
    return isqrt(square - 1) + 1


def late_sigma(clip: int, sigma: int) -> int:
    """Return the noise of a month's late row, so that it takes `LATE_PERCENT` of a day's mu^2, rounded up."""
    square = -(-(clip**2 * sigma**2 * (100 - LATE_PERCENT)) // (LATE_PERCENT * sensitivity(clip) ** 2))
    return isqrt(square - 1) + 1


def mu2_micro(sensitivity: int, sigma: int) -> int:
    """Return what a row costs each of its days: millionths of (sensitivity / sigma)^2, rounded up."""
    return -(-(10**6) * sensitivity**2 // sigma**2)


def sigma_that_costs(sensitivity: int, mu2_micro: int) -> int:
    """Return the noise that `mu2_micro` was computed from: exactly that, as far as each noise costs another sum."""
    square = -(-(10**6) * sensitivity**2 // mu2_micro)
    return isqrt(square - 1) + 1


@lru_cache(maxsize=512)
def strategy_from(start: date) -> Strategy:
    """Return the strategy of the chain that begins on a day: its horizon, to the end of the year, is fixed with it.

    Raises:
        ValueError: It would show more of a day than is charged.
    """
    strategy = prefix((date(start.year + 1, 1, 1) - start).days)
    if strategy.column_square > COLUMN_SQUARE:
        raise ValueError("a strategy shows more of a day than its charge covers")
    return strategy


@dataclass(frozen=True, eq=False)
class Block:
    """Released rows: everything in it may be read by whoever holds the imprint key.

    Args:
        release_id: 32 bytes, see `block_id`.
        map_digest: Digest of the feature map that made it, 32 bytes.
        start: First day of its chain.
        first: First day of the block, in its chain's year.
        clip: L2 norm of one day, in quantised units.
        sigma: Noise of the chain, in units of u.
        values: int64[days, K] stored rows y, read-only.
    """

    release_id: bytes
    map_digest: bytes
    start: date
    first: date
    clip: int
    sigma: int
    values: Integers

    @property
    def index(self) -> int:
        """Where its first day stands in the chain."""
        return (self.first - self.start).days

    @property
    def last(self) -> date:
        """Last day."""
        return self.first + timedelta(days=len(self.values) - 1)


def block_id(
    feature_map: FeatureMap,
    vault_id: bytes,
    start: date,
    days: tuple[date, date],
    *,
    sigma: int,
    batch_hashes: Iterable[bytes],
) -> bytes:
    """Return the name of a block: the same inputs give the same name, any other input another.

    Args:
        feature_map: Map in use.
        vault_id: 16 bytes.
        start: First day of the chain.
        days: First and last day.
        sigma: Noise.
        batch_hashes: SHA-256 of every batch read, in any order.

    Returns:
        32 bytes.
    """
    first, last = days
    about: JsonObject = {"strategy": b64u(strategy_from(start).digest), "start": start.isoformat()}
    return _name(DAILY, feature_map, vault_id, about | _days(first, last) | _noise(sigma, batch_hashes))


def late_id(
    feature_map: FeatureMap, vault_id: bytes, days: tuple[date, date], *, sigma: int, batch_hashes: Iterable[bytes]
) -> bytes:
    """Return the name of a month's late row; see `block_id`."""
    return _name(LATE, feature_map, vault_id, _days(*days) | _noise(sigma, batch_hashes))


def _days(first: date, last: date) -> JsonObject:
    return {"first": first.isoformat(), "last": last.isoformat()}


def _noise(sigma: int, batch_hashes: Iterable[bytes]) -> JsonObject:
    hashes = sorted(set(batch_hashes))
    if any(len(digest) != 32 for digest in hashes):
        raise ValueError("a batch hash has 32 bytes; others could be cut differently and name the same release")
    return {"sigma": sigma, "inputs": b64u(hashlib.sha256(b"".join(hashes)).digest())}


def _name(mechanism: str, mapped: FeatureMap, vault_id: bytes, about: JsonObject) -> bytes:
    record: JsonObject = {
        "mechanism": mechanism,
        "vault": b64u(vault_id),
        "category": str(mapped.category),
        "map": b64u(mapped.digest),
        "clip": mapped.clip,
        **about,
    }
    return hashlib.sha256(dump_json(record)).digest()


def dump_block(block: Block) -> bytes:
    """Return the payload that is sealed under the imprint key.

    Raises:
        ValueError: A value does not fit 32 bits, which the noise cannot cause in a lifetime.
    """
    days, size = block.values.shape
    ordinals = block.start.toordinal(), block.first.toordinal()
    version = _NARROW if (block.values.astype(_KINDS[_NARROW]) == block.values).all() else _WIDE
    header = (version, block.release_id, block.map_digest, *ordinals, block.clip, block.sigma, days, size)
    return _HEADER.pack(*header) + _dump_rows(block.values, _KINDS[version])


def parse_block(payload: bytes) -> Block:
    """Parse an opened payload.

    Args:
        payload: What `dump_block` wrote.

    Raises:
        MalformedInput: The bytes are not one such block.
    """
    if len(payload) < _HEADER.size or payload[0] not in _KINDS:
        raise MalformedInput("An imprint block is too short or of an unknown version.")
    version, release, digest, unverified_start, unverified_first, clip, sigma, days, size = _HEADER.unpack_from(payload)
    kind = np.dtype(_KINDS[version])
    length = _HEADER.size + kind.itemsize * days * size
    if not (1 <= days <= _MOST_DAYS and size <= _MOST_COORDINATES and len(payload) == length):
        raise MalformedInput("An imprint block's length is not what its header says.")
    if not (1 <= sigma <= MAX_SIGMA and 1 <= clip < _LIMIT):
        raise MalformedInput("An imprint block's clip or noise is out of range.")
    try:
        start, first = date.fromordinal(unverified_start), date.fromordinal(unverified_first)
        last = first + timedelta(days=days - 1)
    except (ValueError, OverflowError) as error:
        raise MalformedInput("An imprint block's days are no days.") from error
    if not (start <= first and start.year == last.year and (first.month == last.month)):
        raise MalformedInput("An imprint block's days are not of one month of its chain.")
    values = _parse_rows(payload[_HEADER.size :], days, kind)
    values.flags.writeable = False
    return Block(release, digest, start, first, clip, sigma, values)


def dump_carried(heads: Heads, errors: Integers) -> bytes:
    """Return what a later refresh needs of a block, as private as the traces: how far was read, and the noise.

    Args:
        heads: How far each device's batches were read for it.
        errors: int64[days, K] e of its days.
    """
    listed = b"".join(_HEAD.pack(*place, seq) for place, seq in sorted(heads.items()))
    return _COUNT.pack(len(heads)) + listed + _COUNT.pack(len(errors)) + _dump_rows(errors)


def parse_carried(data: bytes) -> tuple[dict[tuple[bytes, bytes], int], Integers]:
    """Undo `dump_carried`.

    Raises:
        MalformedInput: The bytes are not what it wrote.
    """
    try:
        (count,) = _COUNT.unpack_from(data)
        at = _COUNT.size + count * _HEAD.size
        places = [_HEAD.unpack_from(data, _COUNT.size + index * _HEAD.size) for index in range(count)]
        (days,) = _COUNT.unpack_from(data, at)
        errors = _parse_rows(data[at + _COUNT.size :], days)
    except (struct.error, ValueError) as error:
        raise MalformedInput("What a chain carries on is not what was written.") from error
    return {(compartment, device): seq for compartment, device, seq in places}, errors


def _dump_rows(values: Integers, kind: str = "<i4") -> bytes:
    small = values.astype(kind)
    if (small != values).any():
        raise ValueError("a row's value does not fit 32 bits")
    return small.tobytes()


def _parse_rows(data: bytes, days: int, kind: npt.DTypeLike = "<i4") -> Integers:
    return np.frombuffer(data, dtype=kind).astype(np.int64).reshape(days, -1)
