"""evidence tables: auditors, and the consents that they chose."""

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
        sa.Column("opens_left", sa.Integer(), nullable=True),
        sa.Column("pseudonym_key", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_auditor")),
    )
    op.create_table(
        "auditor_opened",
        sa.Column("key_id", sa.LargeBinary(), nullable=False),
        sa.Column("consent_id", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["auditor.key_id"], name=op.f("fk_auditor_opened_key_id_auditor")),
        sa.PrimaryKeyConstraint("key_id", "consent_id", name=op.f("pk_auditor_opened")),
    )


def downgrade() -> None:
    op.drop_table("auditor_opened")
    op.drop_table("auditor")
