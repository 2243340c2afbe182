"""Imprint rows: one noisy integer vector for each category and closed month."""

from __future__ import annotations

import hashlib
import os
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from vault.encoding import JsonObject, b64u, dump_json
from vault.errors import MalformedInput
from vault.imprint.features import Day, FeatureMap
from vault.imprint.noise import MAX_SIGMA, DiscreteGaussian, Integers, RandomBytes
from vault.schema.trace import Period, Trace, local_date, parse_period, period_of

MONTHLY: Final = "monthly/1"

_HEADER: Final = struct.Struct(">B32s32s7sIIII")
_VERSION: Final = 1
_MAX_COORDINATES: Final = 65_536
_LIMIT: Final = 2**31


@dataclass(frozen=True, eq=False)
class Row:
    """One released row: everything in it may be read by whoever holds the imprint key.

    Args:
        release_id: 32 bytes, see `release_id`.
        map_digest: Digest of the feature map that made it, 32 bytes.
        period: The month it sums.
        index: Position in its release; 0 for a monthly release.
        clip: L2 sensitivity to one local day, in quantised units.
        sigma: Noise, in quantised units.
        values: int64[K], read-only.
    """

    release_id: bytes
    map_digest: bytes
    period: Period
    index: int
    clip: int
    sigma: int
    values: Integers


def release_id(
    feature_map: FeatureMap,
    vault_id: bytes,
    period: Period,
    noise: DiscreteGaussian,
    batch_hashes: Iterable[bytes],
    *,
    index: int = 0,
) -> bytes:
    """Return the name of a release: the same inputs give the same name, any other input another.

    The caller stores the rows under this name in the transaction that commits the charge, and
    returns the stored bytes when the name comes up again: noise is drawn once for a name.

    Args:
        feature_map: Map in use.
        vault_id: 16 bytes; two vaults' empty months are two releases.
        period: The month.
        noise: The noise in use.
        batch_hashes: SHA-256 of every batch read, in any order.
        index: Row index.

    Returns:
        32 bytes.

    Raises:
        ValueError: A batch hash is not 32 bytes long.
    """
    hashes = sorted(set(batch_hashes))
    if any(len(digest) != 32 for digest in hashes):
        raise ValueError("a batch hash has 32 bytes; others could be cut differently and name the same release")
    inputs = hashlib.sha256(b"".join(hashes)).digest()
    record: JsonObject = {
        "mechanism": MONTHLY,
        "vault": b64u(vault_id),
        "category": str(feature_map.category),
        "map": b64u(feature_map.digest),
        "period": str(period),
        "index": index,
        "clip": feature_map.clip,
        "sigma": noise.sigma,
        "inputs": b64u(inputs),
    }
    return hashlib.sha256(dump_json(record)).digest()


def objects_by_day(
    feature_map: FeatureMap, period: Period, time_zone: ZoneInfo, traces: Iterable[Trace]
) -> Mapping[date, set[str]]:
    """Return what occurred on each local date of a month that has a trace.

    Traces of other categories or of local dates outside the month are left out, whatever batch they
    came in: their day is charged elsewhere.

    Args:
        feature_map: Map of the category.
        period: The month.
        time_zone: The vault's fixed time zone.
        traces: The opened traces, in any order.
    """
    days: defaultdict[date, Day] = defaultdict(lambda: Day(feature_map, time_zone))
    for trace in traces:
        day = local_date(trace.occurred_at, time_zone)
        if trace.category == feature_map.category and period_of(day) == period:
            days[day].add(trace)
    return {day: one.codes() for day, one in days.items()}


def month_sum(feature_map: FeatureMap, period: Period, time_zone: ZoneInfo, traces: Iterable[Trace]) -> Integers:
    """Return the exact, private sum of a month's day vectors; it never leaves the caller's memory.

    Args:
        feature_map: Map of the category.
        period: The month.
        time_zone: The vault's fixed time zone.
        traces: The opened traces, in any order; of others than `objects_by_day` keeps nothing is added.

    Returns:
        int64[K]. All traces of one local date together move it by at most `feature_map.clip` in L2 norm.
    """
    total = np.zeros(feature_map.size, dtype=np.int64)
    for objects in objects_by_day(feature_map, period, time_zone, traces).values():
        total += feature_map.day_vector(objects)
    return total


def noisy(sums: Sequence[Integers], noise: DiscreteGaussian, random_bytes: RandomBytes = os.urandom) -> Integers:
    """Add fresh noise to many months at once.

    Args:
        sums: int64[K] each, from `month_sum`, all under the same map.
        noise: The charged noise.
        random_bytes: Source of uniform bytes; anything but the default is for tests of this
            function alone.

    Returns:
        int64[N, K].

    Raises:
        TypeError: A sum is not of whole numbers.

    Guarantees: each row is rho-zCDP with rho = clip^2 / (2 sigma^2) towards the traces of one local date,
    up to the noise's total variation; empty months are treated no differently.
    """
    stacked = np.stack(sums)
    if stacked.dtype != np.int64:
        raise TypeError("only integers may be released; noise on fractions hides nothing")
    return stacked + noise.sample(stacked.shape, random_bytes)


def dump_row(row: Row) -> bytes:
    """Return the payload that is sealed under the imprint key.

    Raises:
        ValueError: A value does not fit 32 bits, which the noise cannot cause in a lifetime.
    """
    values = row.values.astype("<i4")
    if (values != row.values).any():
        raise ValueError("a row's value does not fit 32 bits")
    period = row.period.encode("ascii")
    header = (_VERSION, row.release_id, row.map_digest, period, row.index, row.clip, row.sigma, len(row.values))
    return _HEADER.pack(*header) + values.tobytes()


def parse_row(payload: bytes) -> Row:
    """Parse an opened payload.

    Args:
        payload: What `dump_row` wrote.

    Raises:
        MalformedInput: The bytes are not one such row.
    """
    if len(payload) < _HEADER.size or payload[0] != _VERSION:
        raise MalformedInput("An imprint row is too short or of an unknown version.")
    _, release, digest, unverified_period, index, clip, sigma, count = _HEADER.unpack_from(payload)
    if count > _MAX_COORDINATES or len(payload) != _HEADER.size + 4 * count:
        raise MalformedInput("An imprint row's length is not what its header says.")
    if not (1 <= sigma <= MAX_SIGMA and 1 <= clip < _LIMIT):
        raise MalformedInput("An imprint row's clip or noise is out of range.")
    try:
        period = parse_period(unverified_period.decode("ascii"))
    except UnicodeDecodeError as error:
        raise MalformedInput("An imprint row's period is not a month.") from error
    values = np.frombuffer(payload, dtype="<i4", offset=_HEADER.size).astype(np.int64)
    values.flags.writeable = False
    return Row(release, digest, period, index, clip, sigma, values)
