"""oauth keeps no table of its own: tokens are signed, one-time values are `spent` rows."""

revision = "06_oauth"
down_revision = "05_parties"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
