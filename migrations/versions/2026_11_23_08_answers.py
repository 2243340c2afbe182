"""answers tables."""

import sqlalchemy as sa
from alembic import op

revision = "08_answers"
down_revision = "07_twin"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "answer",
        sa.Column("consent_id", sa.LargeBinary(), nullable=False),
        sa.Column("question_id", sa.LargeBinary(), nullable=False),
        sa.Column("body_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("sender", sa.String(), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("leaf_id", sa.BigInteger(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("consent_id", "question_id"),
        sa.UniqueConstraint("leaf_id", name="uq_answer_leaf_id"),
    )
    op.create_table(
        "denial",
        sa.Column("leaf_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("consent_id", sa.LargeBinary(), nullable=False),
        sa.Column("question_id", sa.LargeBinary(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_denial_consent_id", "denial", ["consent_id"])
    op.create_table(
        "denial_count",
        sa.Column("requester", sa.String(64), primary_key=True),
        sa.Column("minute_s", sa.BigInteger(), nullable=False),
        sa.Column("denials", sa.Integer(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("denial_count")
    op.drop_table("denial")
    op.drop_table("answer")
