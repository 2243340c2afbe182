"""legacy tables: plans and how far each has come; signed records."""

import sqlalchemy as sa
from alembic import op

revision = "12_legacy"
down_revision = "11_erasure"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "legacy",
        sa.Column("vault_id", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("plan", sa.LargeBinary(), nullable=False),
        sa.Column("legacy_id", sa.LargeBinary(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("claim", sa.LargeBinary(), nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False),
        sa.Column("until_s", sa.BigInteger(), nullable=False),
        sa.Column("idle_until_s", sa.BigInteger(), nullable=False),
        sa.Column("given", sa.LargeBinary(), nullable=False),
        sa.Column("begun", sa.LargeBinary(), nullable=False),
        sa.Column("froze", sa.Boolean(), nullable=False),
        sa.Column("leaf_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("last_event", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("vault_id", name=op.f("pk_legacy")),
        sa.UniqueConstraint("legacy_id", name=op.f("uq_legacy_legacy_id")),
    )
    op.create_index(op.f("ix_legacy_until_s"), "legacy", ["until_s"])
    op.create_index(op.f("ix_legacy_idle_until_s"), "legacy", ["idle_until_s"])
    op.create_table(
        "legacy_record",
        sa.Column("pending_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("vault_id", sa.LargeBinary(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("witnessed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("pending_id", name=op.f("pk_legacy_record")),
    )
    op.create_index(op.f("ix_legacy_record_vault_id"), "legacy_record", ["vault_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_legacy_record_vault_id"), table_name="legacy_record")
    op.drop_table("legacy_record")
    op.drop_index(op.f("ix_legacy_idle_until_s"), table_name="legacy")
    op.drop_index(op.f("ix_legacy_until_s"), table_name="legacy")
    op.drop_table("legacy")
