"""erasure table: certificates."""

import sqlalchemy as sa
from alembic import op

revision = "11_erasure"
down_revision = "10_evidence"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "erasure",
        sa.Column("erasure_id", sa.LargeBinary(), nullable=False),
        sa.Column("order_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("leaf_id", sa.BigInteger(), nullable=False),
        sa.Column("certificate", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("erasure_id", name=op.f("pk_erasure")),
    )


def downgrade() -> None:
    op.drop_table("erasure")
