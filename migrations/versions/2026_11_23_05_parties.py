"""parties tables."""

import sqlalchemy as sa
from alembic import op

revision = "05_parties"
down_revision = "04_budget"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "person",
        sa.Column("vault_id", sa.LargeBinary(), primary_key=True),
        sa.Column("owner_key", sa.LargeBinary(), nullable=False),
        sa.Column("former_owner_keys", sa.LargeBinary(), nullable=False),
        sa.Column("next_owner_key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("identity_digest", sa.LargeBinary(), nullable=False),
        sa.Column("time_zone", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("minor", sa.Boolean(), nullable=False),
        sa.Column("guardian_ok", sa.Boolean(), nullable=False),
        sa.Column("deceased", sa.Boolean(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("sandbox", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "person_record",
        sa.Column("pending_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("vault_id", sa.LargeBinary(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("identity", sa.Boolean(), nullable=False),
    )
    op.create_index("ix_person_record_vault_id", "person_record", ["vault_id", "identity"])
    op.create_table(
        "company",
        sa.Column("company_id", sa.String(), primary_key=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("record", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("contact", sa.String(), nullable=False),
        sa.Column("agent", sa.Boolean(), nullable=False),
        sa.Column("redirect_uris", sa.String(), nullable=False),
        sa.Column("client_auth_key", sa.String(), nullable=False),
        sa.Column("question_key", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("sandbox", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "company_record",
        sa.Column("company_id", sa.String(), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True),
        sa.Column("record", sa.String(), nullable=False),
        sa.Column("in_force_at_s", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "party_session",
        sa.Column("token_hash", sa.LargeBinary(), primary_key=True),
        sa.Column("vault_id", sa.LargeBinary(), nullable=False),
        sa.Column("device_id", sa.LargeBinary(), nullable=True),
        sa.Column("watching", sa.Boolean(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_party_session_vault_id", "party_session", ["vault_id"])
    op.create_index("ix_party_session_expires_at", "party_session", ["expires_at"])
    op.create_table(
        "party_restored",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("at_s", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "spent",
        sa.Column("digest", sa.LargeBinary(), primary_key=True),
        sa.Column("expires_at_s", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_spent_expires_at_s", "spent", ["expires_at_s"])


def downgrade() -> None:
    for table in ("spent", "party_restored", "party_session", "company_record", "company", "person_record", "person"):
        op.drop_table(table)
