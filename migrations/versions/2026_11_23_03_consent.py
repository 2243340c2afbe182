"""consent tables."""

revision = "03_consent"
down_revision = "02_store"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
