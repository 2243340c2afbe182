"""Uploads that race with each other and with the ring keep one chain, and lose nothing acknowledged."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from sqlalchemy import text

from tests.ingest.test_accept import send, stored
from tests.vault_kit import Source, begin, meet_after, publish
from vault.db import Database
from vault.ingest import accept as accepting
from vault.ingest.accept import BrokenChain, ClosedEpoch
from vault.parties.caller import DeviceCaller
from vault.seal.upload import parse_upload
from vault.store.errors import VersionConflict


def test_racing_uploads_of_one_device_keep_one_chain(
    database: Database, shortkeys: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, source = begin(database, shortkeys)
    meet_after(monkeypatch, accepting, "_split", database)
    rivals = [Source(source.vault, source.key) for _ in range(6)]
    bodies = [rival.upload(owner.compartment(), text=f"rival {n}") for n, rival in enumerate(rivals)]
    start, outcomes = threading.Barrier(6), []

    def race(body: bytes) -> None:
        start.wait()
        try:
            send(database, source.caller, body)
            outcomes.append(body)
        except BrokenChain:
            outcomes.append(None)

    threads = [threading.Thread(target=race, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    winners = [body for body in outcomes if body is not None]
    assert len(outcomes) == 6
    assert len(winners) == 1
    assert stored(database, owner) == [parse_upload(winners[0]).batches[0].encoded]


def test_a_publish_that_closes_an_epoch_races_with_uploads(database: Database, shortkeys: Database) -> None:
    owner, _ = begin(database, shortkeys)
    sources = [owner.source() for _ in range(4)]
    publish(database, shortkeys, owner, owner.sign())
    old = owner.compartment()
    bodies = [(s.caller, s.upload(old)) for s in sources]
    page = owner.extend()
    head = owner.sign()
    start, accepted = threading.Barrier(5), []

    def race(caller: DeviceCaller, body: bytes) -> None:
        start.wait()
        try:
            send(database, caller, body)
            accepted.append(body)
        except ClosedEpoch:
            pass

    threads = [threading.Thread(target=race, args=pair) for pair in bodies]
    for thread in threads:
        thread.start()
    start.wait()
    publish(database, shortkeys, owner, head, [page])
    for thread in threads:
        thread.join(30)
    with database.snapshot() as session:
        order = session.connection().execute(
            text("SELECT kind FROM log_entry WHERE kind IN ('upload', 'ring-head') ORDER BY id")
        )  # fmt: skip
        kinds = list(order.scalars())
    assert kinds == ["ring-head", "ring-head", *["upload"] * len(accepted), "ring-head"]


def test_a_head_that_revokes_a_device_accepts_all_that_it_was_acknowledged_for(
    database: Database, shortkeys: Database
) -> None:
    owner, source = begin(database, shortkeys)
    send(database, source.caller, source.upload(owner.compartment()))
    read = dict(source.heads)
    send(database, source.caller, source.upload(owner.compartment()))
    for behind in ({}, read):
        owner.devices[source.device.id] = replace(source.device, accepted=behind)
        before = owner.head, owner.version
        with pytest.raises(VersionConflict, match="sealed more"):
            publish(database, shortkeys, owner, owner.sign())
        owner.head, owner.version = before
    owner.devices[source.device.id] = replace(source.device, accepted=source.heads)
    publish(database, shortkeys, owner, owner.sign())
