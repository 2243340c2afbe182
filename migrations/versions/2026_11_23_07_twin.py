"""twin tables."""

revision = "07_twin"
down_revision = "06_oauth"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
