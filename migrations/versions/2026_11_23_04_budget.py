"""budget tables."""

revision = "04_budget"
down_revision = "03_consent"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
