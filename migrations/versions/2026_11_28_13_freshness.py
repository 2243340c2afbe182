"""how fresh each person wants the twin; who was here before had days close one by one, where rows were daily."""

import sqlalchemy as sa
from alembic import op

revision = "13_freshness"
down_revision = "12_legacy"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("person") as person:
        person.add_column(sa.Column("freshness", sa.String(), nullable=False, server_default="day"))
    with op.batch_alter_table("person") as person:
        person.alter_column("freshness", existing_type=sa.String(), existing_nullable=False, server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("person") as person:
        person.drop_column("freshness")
