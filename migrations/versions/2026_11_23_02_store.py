"""store tables."""

revision = "02_store"
down_revision = "01_tlog"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
