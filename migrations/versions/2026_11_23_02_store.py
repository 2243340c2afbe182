"""store tables."""

import sqlalchemy as sa
from alembic import op

revision = "02_store"
down_revision = "01_tlog"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _vault() -> sa.Column[bytes]:
    return sa.Column("vault_id", sa.LargeBinary(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "slot",
        sa.Column("locator_hash", sa.LargeBinary(), nullable=False),
        _vault(),
        sa.Column("slot", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("locator_hash", name=op.f("pk_slot")),
    )
    op.create_index(op.f("ix_slot_vault_id"), "slot", ["vault_id"])
    op.create_table(
        "account",
        _vault(),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("vault_id", name=op.f("pk_account")),
    )
    op.create_table(
        "ring_head",
        _vault(),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("pending_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("vault_id", name=op.f("pk_ring_head")),
    )
    op.create_table(
        "ring_page",
        _vault(),
        sa.Column("period", sa.String(7), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("vault_id", "period", name=op.f("pk_ring_page")),
    )
    op.create_table(
        "ring_device",
        _vault(),
        sa.Column("device_id", sa.LargeBinary(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("accepted", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("vault_id", "device_id", name=op.f("pk_ring_device")),
    )
    op.create_table(
        "compartment",
        _vault(),
        sa.Column("compartment_id", sa.LargeBinary(), nullable=False),
        sa.Column("category", sa.String(64), nullable=False),
        sa.Column("period", sa.String(7), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("locked_hash", sa.LargeBinary(), nullable=False),
        sa.Column("locked", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("vault_id", "compartment_id", name=op.f("pk_compartment")),
        sa.UniqueConstraint(
            "vault_id", "period", "category", "epoch", name=op.f("uq_compartment_vault_id_period_category_epoch")
        ),
    )
    _create_batches()
    op.create_table(
        "store_leaf",
        sa.Column("pending_id", sa.BigInteger(), autoincrement=False, nullable=False),
        _vault(),
        sa.PrimaryKeyConstraint("pending_id", name=op.f("pk_store_leaf")),
    )
    op.create_index(
        "ix_compartment_period_vault_id",
        "compartment",
        ["period", "vault_id"],
        sqlite_where=sa.text("locked IS NOT NULL"),
        postgresql_where=sa.text("locked IS NOT NULL"),
    )
    op.create_index(op.f("ix_store_leaf_vault_id"), "store_leaf", ["vault_id"])
    op.create_table(
        "short_key_deletion",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_short_key_deletion")),
    )


def _create_batches() -> None:
    op.create_table(
        "batch",
        sa.Column("id", _ID, nullable=False),
        _vault(),
        sa.Column("compartment_id", sa.LargeBinary(), nullable=False),
        sa.Column("device_id", sa.LargeBinary(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("batch", sa.LargeBinary(), nullable=False),
        sa.Column("pending_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch")),
        sa.UniqueConstraint(
            "vault_id",
            "compartment_id",
            "device_id",
            "seq",
            name=op.f("uq_batch_vault_id_compartment_id_device_id_seq"),
        ),
        sa.ForeignKeyConstraint(
            ["vault_id", "compartment_id"],
            ["compartment.vault_id", "compartment.compartment_id"],
            name="fk_batch_compartment",
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_batch_compartment_id", "batch", ["compartment_id", "id"])
    op.create_table(
        "head_list",
        _vault(),
        sa.Column("device_id", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("vault_id", "device_id", name=op.f("pk_head_list")),
    )


def downgrade() -> None:
    for table in (
        "short_key_deletion", "store_leaf", "head_list", "batch", "compartment", "ring_device", "ring_page",
        "ring_head", "account", "slot",
    ):  # fmt: skip
        op.drop_table(table)
