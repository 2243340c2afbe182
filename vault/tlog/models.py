"""The log's tables, as Core tables: they are written in bulk and never as objects.

An entry is inserted without an index by whoever records an event, and gets its index from the
sequencer. Openings lie apart so that numbering rewrites narrow rows; erasing blanks them and `about`,
never an entry.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    FetchedValue,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    Text,
)
from sqlmodel import SQLModel

import vault.db  # noqa: F401  (sets the metadata's naming convention, which the constraints below take)

_Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only for INTEGER

log_entry = Table(
    "log_entry",
    SQLModel.metadata,
    Column("id", _Id, primary_key=True),
    Column("kind", String(24), nullable=False),
    Column("entry", LargeBinary, nullable=False),
    Column("leaf_index", BigInteger),
    Column("about", LargeBinary),
    # 1 for an event that stands in the tree only through the leaf of its group, and so never gets an index.
    Column("member", SmallInteger),
    # When the database took it, unix seconds: for finding a stretch of the log by date, and for nothing else.
    Column("recorded_s", BigInteger, server_default=FetchedValue(), nullable=False),
)
# Partial, so that recording an event writes no index that only numbered ones are found by.
_PLACED: dict[str, Any] = dict.fromkeys(("sqlite_where", "postgresql_where"), log_entry.c.leaf_index.is_not(None))
Index("ix_log_entry_leaf_index", log_entry.c.leaf_index, unique=True, **_PLACED)
Index("ix_log_entry_kind_leaf_index", log_entry.c.kind, log_entry.c.leaf_index, **_PLACED)
Index(
    "ix_log_entry_about_leaf_index",
    log_entry.c.about,
    log_entry.c.leaf_index,
    sqlite_where=log_entry.c.about.is_not(None),
    postgresql_where=log_entry.c.about.is_not(None),
)
PENDING: ColumnElement[bool] = log_entry.c.leaf_index.is_(None) & log_entry.c.member.is_(None)
"""The condition that an event waits for its place in the tree."""
Index("ix_log_entry_pending", log_entry.c.id, sqlite_where=PENDING, postgresql_where=PENDING)

log_opening = Table(
    "log_opening",
    SQLModel.metadata,
    Column("entry_id", _Id, ForeignKey("log_entry.id"), primary_key=True, autoincrement=False),
    Column("public_salt", LargeBinary, nullable=False),
    Column("public_body", LargeBinary, nullable=False),
    Column("personal_salt", LargeBinary),
    Column("personal_body", LargeBinary),
)

# One row for each personal opening that was erased: its place in the group that the log publishes for its day.
log_tombstone = Table(
    "log_tombstone",
    SQLModel.metadata,
    Column("entry_id", _Id, ForeignKey("log_entry.id"), primary_key=True, autoincrement=False),
    Column("salt", LargeBinary, nullable=False),
    Column("group_id", BigInteger, index=True),
    Column("position", Integer),
    # By whose order; and where it is the owner's, to whom the event was bound, and what shows that.
    Column("author", String(16)),
    Column("subject", LargeBinary),
    Column("subject_salt", LargeBinary),
)

# One row for each subject that its person ordered to erase: what its key signed.
log_subject_erasure = Table(
    "log_subject_erasure",
    SQLModel.metadata,
    Column("subject", LargeBinary, primary_key=True),
    Column("envelope", LargeBinary, nullable=False),
)

# One row for each event that shares a leaf with others: who caused it in which minute, and its place in the group.
log_member = Table(
    "log_member",
    SQLModel.metadata,
    Column("entry_id", _Id, ForeignKey("log_entry.id"), primary_key=True, autoincrement=False),
    Column("caused_by", String(64), nullable=False),
    Column("minute_s", BigInteger, nullable=False),
    Column("group_id", BigInteger),
    Column("position", Integer),
)
Index("ix_log_member_group_id_position", log_member.c.group_id, log_member.c.position)

# Full tiles only. A partial tile of level 0 is hashed from entries, one above from the roots below.
log_tile = Table(
    "log_tile",
    SQLModel.metadata,
    Column("level", SmallInteger, primary_key=True, autoincrement=False),
    Column("tile_index", BigInteger, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
    Column("root", LargeBinary, nullable=False),
)

# One row in a copy that a backup made, until somebody compared it with the journal: nothing is opened under it before.
log_copy = Table(
    "log_copy",
    SQLModel.metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
)

# One row: the newest checkpoint and the edge it was made from.
log_head = Table(
    "log_head",
    SQLModel.metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    Column("edge", LargeBinary, nullable=False),
    Column("checkpoint", Text, nullable=False),
)

# One row: the newest checkpoint that enough witnesses cosigned.
log_witnessed = Table(
    "log_witnessed",
    SQLModel.metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
)
