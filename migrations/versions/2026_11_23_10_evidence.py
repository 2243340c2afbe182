"""evidence table: auditors."""

import sqlalchemy as sa
from alembic import op

revision = "10_evidence"
down_revision = "09_jobs"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "auditor",
        sa.Column("key_id", sa.LargeBinary(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("not_after_s", sa.BigInteger(), nullable=False),
        sa.Column("scope_from_s", sa.BigInteger(), nullable=False),
        sa.Column("scope_to_s", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_auditor")),
    )


def downgrade() -> None:
    op.drop_table("auditor")
