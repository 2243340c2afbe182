"""Answers and denials at rest: one sealed blob each, from which a bundle is built again with a fresh proof."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite
from sqlalchemy import Row, Select, Table, bindparam, delete, func, insert, select, update
from sqlmodel import Session

from vault.answers.models import answer, denial
from vault.db import Database, Prepared
from vault.keys.serving import Serving
from vault.seal.errors import SealError
from vault.seal.framing import Reader, frames
from vault.seal.ids import ConsentId
from vault.tlog.log import PendingId

_MAX_BLOB_BYTES: Final = 8 << 20
_PAGE: Final = 200
_FIND: Final = Prepared(
    select(answer).where(
        answer.c.consent_id == bindparam("consent_id"), answer.c.question_id == bindparam("question_id")
    )
)


class AnsweredMeanwhile(Exception):  # never leaves the package: the question is read again
    """Another request with the same question id committed first."""


_ADD: Final = {
    dialect: Prepared(
        module.insert(answer)
        .values({column.name: bindparam(column.name) for column in answer.c})
        .on_conflict_do_nothing()
        .returning(answer.c.leaf_id)
    )
    for dialect, module in (("sqlite", sqlalchemy.dialects.sqlite), ("postgresql", sqlalchemy.dialects.postgresql))
}


@dataclass(frozen=True, slots=True)
class Records:
    """The signed or hashed bytes that one answer or denial consists of.

    Args:
        answer: The answer record; empty for a denial.
        decision: The decision record; empty if there was nothing to decide on.
        question: The signed question record.
        company: The record in force of the company that asked, whose key signed the question; empty for the owner.
    """

    answer: bytes
    decision: bytes
    question: bytes
    company: bytes

    def seal(self, serving: Serving, consent_id: ConsentId, question_id: bytes) -> bytes:
        """Return them locked under the serving key."""
        plain = frames(self.answer, self.decision, self.question, self.company)
        return serving.wrap_bundle(plain, question_id, consent_id)


@dataclass(frozen=True, slots=True)
class Kept:
    """One answer as it is kept.

    Args:
        consent_id: Under which consent it was given.
        question_id: The asker's id of the question.
        body_sha256: Digest of the question's body: another body under the same id is another question.
        sender: Thumbprint of the key that asked, or `owner`.
        asked_at: Unix seconds.
        leaf_id: The pending id of its leaf.
        sealed: Its records, locked under the serving key.
    """

    consent_id: ConsentId
    question_id: bytes
    body_sha256: bytes
    sender: str
    asked_at: int
    leaf_id: PendingId
    sealed: bytes

    def open(self, serving: Serving) -> Records:
        """Return its records.

        Raises:
            NoSuchKey: The serving key's epoch is over.
            SealError: What is stored is not what was stored.
        """
        return _open(serving, self.sealed, self.question_id, self.consent_id)


def add(session: Session, kept: Kept) -> None:
    """Keep an answer, in the transaction of its leaf.

    Raises:
        AnsweredMeanwhile: The question id has an answer; this transaction must not commit.
    """
    added = _ADD[session.connection().dialect.name].one(
        session,
        consent_id=kept.consent_id,
        question_id=kept.question_id,
        body_sha256=kept.body_sha256,
        sender=kept.sender,
        asked_at=kept.asked_at,
        leaf_id=kept.leaf_id,
        sealed=kept.sealed,
    )
    if added is None:
        raise AnsweredMeanwhile


def add_denial(
    session: Session, *, leaf_id: PendingId, consent_id: ConsentId, question_id: bytes, sealed: bytes
) -> None:
    """Keep what a denial was decided on, in the transaction of its leaf."""
    values = {"leaf_id": leaf_id, "consent_id": consent_id, "question_id": question_id, "sealed": sealed}
    session.connection().execute(insert(denial), values)


def find(session: Session, consent_id: ConsentId, question_id: bytes) -> Kept | None:
    """Return the answer that a question id stands for, if it has one."""
    row = _FIND.one(session, consent_id=consent_id, question_id=question_id)
    return None if row is None else _kept(row)


def read(session: Session, serving: Serving, leaf_ids: Iterable[PendingId]) -> dict[PendingId, Records]:
    """Return the records of answers and denials by their leaves, for an auditor's bundle; erased ones are missing.

    Raises:
        NoSuchKey: The serving key's epoch is over.
        SealError: What is stored is not what was stored.
    """
    wanted = list(leaf_ids)
    found: dict[PendingId, Records] = {}
    for table in (answer, denial):
        query = select(table.c.leaf_id, table.c.consent_id, table.c.question_id, table.c.sealed)
        for row in session.connection().execute(query.where(table.c.leaf_id.in_(wanted))):
            found[PendingId(row.leaf_id)] = _open(serving, row.sealed, row.question_id, ConsentId(row.consent_id))
    return found


def rewrap_all(database: Database, serving: Serving) -> int:
    """Lock every kept answer and denial under the serving key in force; return how many were not yet. Safe to run again.

    One that does not open under any key is left as it is.
    """
    count = 0
    for table in (answer, denial):
        after = -1
        while True:
            with database.transaction() as session:
                page = session.connection().execute(_page_of(table), {"after": after}).all()
                for row in page:
                    count += _rewrap(session, table, row, serving)
            if not page:
                break
            after = page[-1].leaf_id
    return count


def _page_of(table: Table) -> Select[Any]:
    query = select(table.c.leaf_id, table.c.consent_id, table.c.question_id, table.c.sealed)
    return query.where(table.c.leaf_id > bindparam("after")).order_by(table.c.leaf_id).limit(_PAGE)


def _rewrap(session: Session, table: Table, row: Row[Any], serving: Serving) -> bool:
    with suppress(SealError):
        sealed = serving.rewrap_bundle(row.sealed, row.question_id, ConsentId(row.consent_id))
        if sealed is not None:
            session.connection().execute(
                update(table).where(table.c.leaf_id == row.leaf_id, table.c.sealed == row.sealed).values(sealed=sealed)
            )
            return True
    return False


def count(session: Session, consent_ids: Iterable[ConsentId]) -> int:
    """Return how many answers and denials are kept under these consents."""
    wanted = list(consent_ids)
    queries = (select(func.count()).select_from(t).where(t.c.consent_id.in_(wanted)) for t in (answer, denial))
    return sum(int(session.connection().execute(query).scalar_one()) for query in queries)


def forget(session: Session, consent_ids: Iterable[ConsentId]) -> list[PendingId]:
    """Delete every answer and denial under these consents; return the leaves whose openings must go too."""
    wanted = list(consent_ids)
    gone: list[PendingId] = []
    for table in (answer, denial):
        mine = table.c.consent_id.in_(wanted)
        gone += [
            PendingId(leaf) for leaf in session.connection().execute(select(table.c.leaf_id).where(mine)).scalars()
        ]
        session.connection().execute(delete(table).where(mine))
    return gone


def _open(serving: Serving, sealed: bytes, question_id: bytes, consent_id: ConsentId) -> Records:
    reader = Reader(serving.unwrap_bundle(sealed, question_id, consent_id), _MAX_BLOB_BYTES)
    records = Records(reader.frame(), reader.frame(), reader.frame(), reader.frame())
    reader.end()
    return records


def _kept(row: Row[Any]) -> Kept:
    return Kept(
        consent_id=ConsentId(row.consent_id),
        question_id=row.question_id,
        body_sha256=row.body_sha256,
        sender=row.sender,
        asked_at=row.asked_at,
        leaf_id=PendingId(row.leaf_id),
        sealed=row.sealed,
    )
