"""jobs tables."""

revision = "09_jobs"
down_revision = "08_answers"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
