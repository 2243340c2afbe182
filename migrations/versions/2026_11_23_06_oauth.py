"""oauth tables."""

revision = "06_oauth"
down_revision = "05_parties"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
