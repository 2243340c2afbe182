"""parties tables."""

revision = "05_parties"
down_revision = "04_budget"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
