"""The operator's key statements as the service keeps, logs and hands them out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Final

import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite
from sqlalchemy import select
from sqlmodel import Session

from vault.clock import Clock, unix_s
from vault.db import Database
from vault.encoding import b64u
from vault.keys.kms import NoSuchKey
from vault.keys.models import key_statement
from vault.proof.leaf import LeafKind
from vault.seal.dsse import Envelope, parse_envelope
from vault.seal.handover import KeyKind
from vault.seal.ids import sha256
from vault.seal.statement import KeyName, KeyStatement, verify_key_statement
from vault.tlog.log import Pending, append


def publish(session: Session, envelope: Envelope, operator_key: bytes) -> Pending | None:
    """Keep a key statement and log it, or do nothing if that name and epoch has one.

    Args:
        session: An open writing transaction.
        envelope: The statement.
        operator_key: The pinned operator key, 32 bytes.

    Raises:
        SealError: The operator did not sign it.
    """
    statement = verify_key_statement(envelope, operator_key)
    dialect = (
        sqlalchemy.dialects.sqlite if session.get_bind().dialect.name == "sqlite" else sqlalchemy.dialects.postgresql
    )
    insert = (
        dialect.insert(key_statement)
        .values(name=statement.name.value, epoch=statement.epoch, envelope=envelope.encoded)
        .on_conflict_do_nothing()
        .returning(key_statement.c.name)
    )
    if session.connection().execute(insert).one_or_none() is None:
        return None
    public = {
        "name": statement.name.value,
        "epoch": statement.epoch,
        "public_key_sha256": b64u(sha256(statement.public_key)),
        "not_before": statement.not_before,
        "record": b64u(envelope.digest),
    }
    return append(session, LeafKind.KEY, {**public}, {})


def envelopes(session: Session) -> list[bytes]:
    """Return every key statement ever published, for clients and auditors who pin the operator's key."""
    query = select(key_statement.c.envelope).order_by(key_statement.c.name, key_statement.c.epoch)
    return list(session.connection().execute(query).scalars())


@lru_cache(maxsize=256)
def _verified(encoded: bytes, operator_key: bytes) -> KeyStatement:
    """Verify a signature once: whether the same key signed the same bytes never changes."""
    return verify_key_statement(parse_envelope(encoded), operator_key)


def in_force(session: Session, operator_key: bytes, now: datetime) -> Mapping[KeyName, KeyStatement]:
    """Return the statement of the highest epoch of each name whose time has come.

    Raises:
        SealError: A stored statement was not signed by the operator.
    """
    found: dict[KeyName, KeyStatement] = {}
    for encoded in envelopes(session):  # in ascending order of epoch
        statement = _verified(encoded, operator_key)
        if statement.not_before <= unix_s(now):
            found[statement.name] = statement
    return found


def stated(session: Session, operator_key: bytes, name: KeyName) -> dict[bytes, bytes]:
    """Return every statement about keys of one name, of any epoch, by public key.

    Raises:
        SealError: A stored statement was not signed by the operator.
    """
    found = {}
    for encoded in envelopes(session):
        statement = _verified(encoded, operator_key)
        if statement.name is name:
            found[statement.public_key] = encoded
    return found


_RESEALS: Final = {KeyKind.RAW: KeyName.PROCESSOR_SIGN, KeyKind.IMPRINT: KeyName.SERVICE}
"""Whoever can open keys reseals them: seeds the worker, imprint keys the app. No other key's reseal is believed."""


def resealers(session: Session, operator_key: bytes, kind: KeyKind) -> Collection[bytes]:
    """Return every key that the operator ever stated for reseals of one kind of keys.

    Raises:
        SealError: A stored statement was not signed by the operator.
    """
    return stated(session, operator_key, _RESEALS[kind]).keys()


class InForce(Mapping[KeyKind, bytes]):
    """To whom keys may be handed over at the moment of asking: a new epoch counts from its statement on.

    Args:
        database: The main database.
        operator_key: The pinned operator key, 32 bytes.
        clock: Tells which epochs have begun.
    """

    def __init__(self, database: Database, operator_key: bytes, clock: Clock) -> None:
        self._database = database
        self._operator_key = operator_key
        self._clock = clock

    def __getitem__(self, kind: KeyKind) -> bytes:
        with self._database.snapshot() as session:
            return recipients(in_force(session, self._operator_key, self._clock.now()))[kind]

    def __iter__(self) -> Iterator[KeyKind]:
        return iter(KeyKind)

    def __len__(self) -> int:
        return len(KeyKind)


def recipients(statements: Mapping[KeyName, KeyStatement]) -> dict[KeyKind, bytes]:
    """Return to whose public key, by its hash, each kind of keys may be handed over.

    Raises:
        NoSuchKey: The operator has not stated both keys yet.
    """
    try:
        processor, serving = statements[KeyName.PROCESSOR], statements[KeyName.SERVING]
    except KeyError as error:
        raise NoSuchKey("The operator has not published the service's keys; run `twinvault operator init`.") from error
    return {KeyKind.RAW: sha256(processor.public_key), KeyKind.IMPRINT: sha256(serving.public_key)}
