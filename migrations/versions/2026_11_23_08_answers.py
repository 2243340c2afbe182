"""answers tables."""

revision = "08_answers"
down_revision = "07_twin"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
