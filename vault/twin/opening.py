"""The child process: it opens one vault's batches and answers with whole numbers, never with a trace.

`serve` is a small fork server, started as a fresh interpreter before the worker holds a seed or
torch. For each vault it forks a child that is sent that vault's seeds and nothing else. Sealed bytes
come from devices that may be compromised, so a child has no environment, no database, no file it may
write, bounded memory and processor time; what it sends back is read as fixed-size integers.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Any, Final, assert_never
from zoneinfo import ZoneInfo

import numpy as np

from vault.encoding import JsonObject, JsonValue, b64u, dump_json, parse_b64u, parse_json
from vault.errors import VaultError
from vault.imprint.block import Heads
from vault.imprint.features import Cadence, FeatureMap, feature_map, mapped_for
from vault.imprint.noise import Integers
from vault.imprint.rows import month_sum, objects_by_day
from vault.imprint.words import words_of
from vault.keys.compartment import compartment_opener
from vault.schema.category import parse_category
from vault.schema.trace import Period, Trace, local_date, parse_period
from vault.seal.batch import MAX_BATCH_BYTES, Batch, open_batch, parse_batch, verify_batch
from vault.seal.device import ChainHead
from vault.seal.dsse import parse_envelope
from vault.seal.errors import SealError
from vault.seal.framing import Reader, frames
from vault.seal.ids import CompartmentId, DeviceId, VaultId
from vault.seal.recipient import Opener
from vault.seal.ring import Ring, verify_ring

MAX_MESSAGE_BYTES: Final = 64 << 20
REPLY_S: Final = 60.0

BATCH: Final = b"b"
NO_MORE: Final = b"."

_PREFIX_BYTES: Final = 4
_MEMORY_BYTES: Final = 4 << 30
_NUMBERS: Final = b"n"
_REFUSED: Final = b"r"


class Wanted(StrEnum):
    """What is computed from a month's traces."""

    SUM = "sum"
    """The private sum that an imprint row hides under noise: int64[K]."""

    DAYS = "days"
    """Days with a trace, on how many of them each code occurred, and the private sum of them all: int64[2 K]."""

    VECTORS = "vectors"
    """The private vector of each of some days: int64[days, K]."""

    LATE = "late"
    """The private sum of what came after the rows of some days were made: int64[K]."""


@dataclass(frozen=True)
class Made:
    """Consecutive days of the month.

    Args:
        first: First day.
        days: How many.
        heads: How far each device's batches had been read when their rows were made.
    """

    first: date
    days: int
    heads: Heads

    def __contains__(self, day: date) -> bool:
        """Say whether a day is one of them."""
        return 0 <= (day - self.first).days < self.days


@dataclass(frozen=True)
class Ask:
    """What a child is asked about a month.

    Args:
        wanted: What.
        mapped: Map of the category.
        period: The month.
        made: For `VECTORS` the days; for `LATE` those that have rows.
    """

    wanted: Wanted
    mapped: FeatureMap
    period: Period
    made: tuple[Made, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the answer."""
        match self.wanted:
            case Wanted.VECTORS:
                return (self.made[0].days, self.mapped.size)
            case Wanted.DAYS:
                return (2 * self.mapped.size,)
            case Wanted.SUM | Wanted.LATE:
                return (self.mapped.size,)
            case _ as other:
                assert_never(other)


class Channel:
    """Length-prefixed messages over a socket, for both ends.

    Args:
        sock: Connected; owned by the channel.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, message: bytes) -> None:
        """Send one message."""
        self._sock.sendall(len(message).to_bytes(_PREFIX_BYTES, "big") + message)

    def receive(self, limit_bytes: int) -> bytes | None:
        """Return the next message, or None if the other end is gone or sends more than it may."""
        prefix = self._take(_PREFIX_BYTES)
        size = -1 if prefix is None else int.from_bytes(prefix, "big")
        return self._take(size) if 0 <= size <= limit_bytes else None

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def _take(self, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            part = self._sock.recv(min(size - len(data), 1 << 20))
            if not part:
                return None
            data += part
        return bytes(data)


@dataclass(frozen=True)
class VaultKeys:
    """All that a child knows: one vault.

    Args:
        vault: Whose.
        owner_key: The owner's signing key in force.
        time_zone: IANA name.
        head: Envelope of the ring head.
        pages: Envelopes of the pages of the months that will be opened.
        seeds: By compartment.
    """

    vault: VaultId
    owner_key: bytes
    time_zone: str
    head: bytes
    pages: tuple[bytes, ...]
    seeds: dict[CompartmentId, bytes]

    def dump(self) -> bytes:
        """Return the first message to the child."""
        seeds = [part for pair in self.seeds.items() for part in pair]
        return frames(
            self.vault, self.owner_key, self.time_zone.encode(), self.head, frames(*self.pages), frames(*seeds)
        )


def parse_keys(message: bytes) -> VaultKeys:
    """Undo `VaultKeys.dump`."""
    reader = Reader(message, MAX_MESSAGE_BYTES)
    vault, owner_key, zone, head, pages, seeds = (reader.frame() for _ in range(6))
    reader.end()
    pairs = _split(seeds)
    keys = {CompartmentId(name): seed for name, seed in zip(pairs[::2], pairs[1::2], strict=True)}
    return VaultKeys(VaultId(vault), owner_key, zone.decode(), head, tuple(_split(pages)), keys)


def dump_ask(ask: Ask) -> bytes:
    """Return the message that asks for a month; its batches follow as `BATCH` messages, then `NO_MORE`."""
    record: JsonObject = {
        "wanted": ask.wanted.value,
        "category": ask.mapped.category,
        "cadence": ask.mapped.cadence.value,
        "period": ask.period,
        "made": [_dump_made(made) for made in ask.made],
    }
    return dump_json(record)


def _dump_made(made: Made) -> JsonObject:
    heads: list[JsonValue] = [[b64u(place), b64u(device), seq] for (place, device), seq in sorted(made.heads.items())]
    return {"first": made.first.isoformat(), "days": made.days, "heads": heads}


def parse_ask(message: bytes) -> Ask:
    """Undo `dump_ask`; the worker wrote it."""
    record: Any = parse_json(message)
    mapped = feature_map(parse_category(record["category"]), Cadence(record["cadence"]))
    made = tuple(
        Made(
            date.fromisoformat(one["first"]),
            one["days"],
            {(parse_b64u(place), parse_b64u(device)): seq for place, device, seq in one["heads"]},
        )
        for one in record["made"]
    )
    return Ask(Wanted(record["wanted"]), mapped, parse_period(record["period"]), made)


def parse_reply(message: bytes | None, shape: tuple[int, ...]) -> Integers | None:
    """Return the numbers of a reply, or None for a refusal.

    Args:
        message: From a child that may be under an attacker's control.
        shape: Of the numbers that were asked for.

    Raises:
        SealError: Neither: the child died, or answers something else.
    """
    if message == _REFUSED:
        return None
    if message is None or message[:1] != _NUMBERS or len(message) != reply_bytes(shape):
        raise SealError("The process that opened the batches ended without an answer.")
    return np.frombuffer(message, dtype="<i8", offset=1).astype(np.int64).reshape(shape)


def reply_bytes(shape: tuple[int, ...]) -> int:
    """Return how long a reply with so many numbers is."""
    return 1 + 8 * math.prod(shape)


def serve(control: socket.socket, *, read_texts: bool) -> None:
    """Fork a child for each connection that arrives, until the worker is gone.

    Args:
        control: To the worker.
        read_texts: Whether to read the words of maps here rather than in every child.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children need no waiting for
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker decides when to stop
    for cadence in Cadence:
        for category in mapped_for(cadence):
            mapped = feature_map(category, cadence)  # read once here rather than in every child
            if read_texts and mapped.rules.words:
                words_of(mapped)
    while True:
        _, received, _, _ = socket.recv_fds(control, 1, 1)
        if not received:
            return
        if os.fork() == 0:
            control.close()
            _child(socket.socket(fileno=received[0]))
        os.close(received[0])


def _child(sock: socket.socket) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    channel, status = Channel(sock), 1
    try:
        _answer(channel)
        status = 0
    except VaultError:
        channel.send(_REFUSED)
    finally:
        os._exit(status)  # no handler, buffer or traceback of a process that has seen traces


def _answer(channel: Channel) -> None:
    first = channel.receive(MAX_MESSAGE_BYTES)
    if first is None:
        return
    opened = _Vault(parse_keys(first))
    while (ask := channel.receive(MAX_MESSAGE_BYTES)) is not None:
        # Each month has its own allowance: a batch that loops dies with its child.
        used_s = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
        resource.setrlimit(resource.RLIMIT_CPU, (used_s + int(REPLY_S), resource.RLIM_INFINITY))
        channel.send(_NUMBERS + opened.month(ask, channel).astype("<i8").tobytes())


class _Vault:
    """One vault's verified ring and opened seeds."""

    def __init__(self, keys: VaultKeys) -> None:
        envelopes = [parse_envelope(page) for page in keys.pages]
        self._ring: Ring = verify_ring(parse_envelope(keys.head), envelopes, keys.owner_key, keys.vault)
        self._zone = ZoneInfo(keys.time_zone)
        self._openers: dict[CompartmentId, Opener] = {
            name: compartment_opener(seed) for name, seed in keys.seeds.items()
        }

    def month(self, message: bytes, channel: Channel) -> Integers:
        """Return what is wanted of one month."""
        ask = parse_ask(message)
        mapped, period = ask.mapped, ask.period
        read = self._traces(mapped, period, channel)
        match ask.wanted:
            case Wanted.SUM:
                return month_sum(mapped, period, self._zone, (trace for _, trace in read))
            case Wanted.DAYS:
                days = objects_by_day(mapped, period, self._zone, (trace for _, trace in read))
                vectors = np.stack([np.zeros(mapped.size, np.int64), *map(mapped.day_vector, days.values())])
                return np.concatenate([[len(days)], (vectors[:, :-1] > 0).sum(0), vectors.sum(0)])
            case Wanted.VECTORS:
                days = objects_by_day(mapped, period, self._zone, (trace for _, trace in read))
                (made,) = ask.made
                return np.stack(
                    [mapped.day_vector(days.get(made.first + timedelta(at), ())) for at in range(made.days)]
                )
            case Wanted.LATE:
                return month_sum(mapped, period, self._zone, self._late(ask.made, read))
            case _ as other:
                assert_never(other)

    def _late(self, made: tuple[Made, ...], read: Iterator[tuple[Batch, Trace]]) -> Iterator[Trace]:
        for batch, trace in read:
            day = local_date(trace.occurred_at, self._zone)
            place = batch.compartment, batch.device
            if any(batch.seq > rows.heads.get(place, 0) for rows in made if day in rows):
                yield trace

    def _traces(self, mapped: FeatureMap, period: Period, channel: Channel) -> Iterator[tuple[Batch, Trace]]:
        heads: dict[tuple[DeviceId, CompartmentId], ChainHead] = {}
        while (message := channel.receive(1 + MAX_BATCH_BYTES)) != NO_MORE:
            batch = parse_batch((message or b"")[1:])
            device, compartment = (
                self._ring.head.devices.get(batch.device),
                self._ring.compartments.get(batch.compartment),
            )
            if device is None or compartment is None or compartment.id not in self._openers:
                raise SealError("A batch is of a device or compartment that the owner's ring does not list.")
            if (compartment.category, compartment.period) != (mapped.category, period):
                raise SealError("A batch belongs to another category or month.")
            place = batch.device, batch.compartment
            verified = verify_batch(
                batch, self._ring.head.vault, compartment.recipient.key_hash, device.public_key, heads.get(place)
            )
            heads[place] = batch.head
            if device.may_have_sealed(compartment.id, batch.seq):
                for trace in open_batch(verified, self._openers[compartment.id], compartment.category):
                    yield batch, trace


def _split(data: bytes) -> list[bytes]:
    reader = Reader(data, MAX_MESSAGE_BYTES)
    parts = []
    while reader.left_bytes:
        parts.append(reader.frame())
    return parts


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as inherited:
        serve(inherited, read_texts=sys.argv[2] == "1")
