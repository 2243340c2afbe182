"""tlog tables: entries, openings, full tiles and the head."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "01_tlog"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    now_s = "(CAST(strftime('%s', 'now') AS INTEGER))" if sqlite else "CAST(extract(epoch FROM now()) AS BIGINT)"
    op.create_table(
        "log_entry",
        sa.Column("id", _ID, nullable=False),
        sa.Column("kind", sa.String(24), nullable=False),
        sa.Column("entry", sa.LargeBinary(), nullable=False),
        sa.Column("leaf_index", sa.BigInteger(), nullable=True),
        sa.Column("about", sa.LargeBinary(), nullable=True),
        sa.Column("member", sa.SmallInteger(), nullable=True),
        sa.Column("recorded_s", sa.BigInteger(), server_default=sa.text(now_s), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_entry")),
    )
    placed: dict[str, Any] = {
        "sqlite_where": sa.text("leaf_index IS NOT NULL"),
        "postgresql_where": sa.text("leaf_index IS NOT NULL"),
    }
    op.create_index("ix_log_entry_leaf_index", "log_entry", ["leaf_index"], unique=True, **placed)
    op.create_index("ix_log_entry_kind_leaf_index", "log_entry", ["kind", "leaf_index"], **placed)
    op.create_index(
        "ix_log_entry_about_leaf_index",
        "log_entry",
        ["about", "leaf_index"],
        sqlite_where=sa.text("about IS NOT NULL"),
        postgresql_where=sa.text("about IS NOT NULL"),
    )
    op.create_index(
        "ix_log_entry_pending",
        "log_entry",
        ["id"],
        sqlite_where=sa.text("leaf_index IS NULL AND member IS NULL"),
        postgresql_where=sa.text("leaf_index IS NULL AND member IS NULL"),
    )
    op.create_table(
        "log_opening",
        sa.Column("entry_id", _ID, autoincrement=False, nullable=False),
        sa.Column("public_salt", sa.LargeBinary(), nullable=False),
        sa.Column("public_body", sa.LargeBinary(), nullable=False),
        sa.Column("personal_salt", sa.LargeBinary(), nullable=True),
        sa.Column("personal_body", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_log_opening")),
        sa.ForeignKeyConstraint(["entry_id"], ["log_entry.id"], name=op.f("fk_log_opening_entry_id_log_entry")),
    )
    op.create_table(
        "log_tombstone",
        sa.Column("entry_id", _ID, autoincrement=False, nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("group_id", sa.BigInteger(), nullable=True),
        sa.Column("position", sa.Integer(), nullable=True),
        sa.Column("author", sa.String(16), nullable=True),
        sa.Column("subject", sa.LargeBinary(), nullable=True),
        sa.Column("subject_salt", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_log_tombstone")),
        sa.ForeignKeyConstraint(["entry_id"], ["log_entry.id"], name=op.f("fk_log_tombstone_entry_id_log_entry")),
    )
    op.create_index("ix_log_tombstone_group_id", "log_tombstone", ["group_id"])
    op.create_table(
        "log_subject_erasure",
        sa.Column("subject", sa.LargeBinary(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_log_subject_erasure")),
    )
    op.create_table(
        "log_member",
        sa.Column("entry_id", _ID, autoincrement=False, nullable=False),
        sa.Column("caused_by", sa.String(64), nullable=False),
        sa.Column("minute_s", sa.BigInteger(), nullable=False),
        sa.Column("group_id", sa.BigInteger(), nullable=True),
        sa.Column("position", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_log_member")),
        sa.ForeignKeyConstraint(["entry_id"], ["log_entry.id"], name=op.f("fk_log_member_entry_id_log_entry")),
    )
    op.create_index("ix_log_member_group_id_position", "log_member", ["group_id", "position"])
    op.create_table(
        "log_tile",
        sa.Column("level", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("tile_index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("level", "tile_index", name=op.f("pk_log_tile")),
    )
    op.create_table(
        "log_head",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("edge", sa.LargeBinary(), nullable=False),
        sa.Column("checkpoint", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_head")),
    )
    op.create_table(
        "log_copy",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_copy")),
    )
    op.create_table(
        "log_witnessed",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_witnessed")),
    )


def downgrade() -> None:
    below = ("log_member", "log_tombstone", "log_opening", "log_entry")
    for table in ("log_witnessed", "log_copy", "log_head", "log_tile", "log_subject_erasure", *below):
        op.drop_table(table)
