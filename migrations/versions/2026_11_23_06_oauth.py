"""oauth tables: pushed authorization requests, families of refresh tokens, registrations that wait, invitations."""

import sqlalchemy as sa
from alembic import op

revision = "06_oauth"
down_revision = "05_parties"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "oauth_authorization",
        sa.Column("request_hash", sa.LargeBinary(), primary_key=True),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("parameters", sa.String(), nullable=False),
        sa.Column("jkt", sa.String(), nullable=False),
        sa.Column("request", sa.String(), nullable=False),
        sa.Column("grant_id", sa.LargeBinary(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("opens_until_s", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_s", sa.BigInteger(), nullable=False),
        sa.Column("browser_hash", sa.LargeBinary(), nullable=True),
        sa.Column("user_code", sa.String(), nullable=True),
        sa.Column("vault_id", sa.LargeBinary(), nullable=True),
        sa.Column("consent_id", sa.LargeBinary(), nullable=True),
        sa.Column("code_hash", sa.LargeBinary(), nullable=True),
        sa.Column("family_id", sa.LargeBinary(), nullable=True),
    )
    op.create_index("ix_oauth_authorization_company_id", "oauth_authorization", ["company_id"])
    op.create_index("ix_oauth_authorization_expires_at_s", "oauth_authorization", ["expires_at_s"])
    op.create_index("ix_oauth_authorization_vault_id", "oauth_authorization", ["vault_id"])
    op.create_index("ix_oauth_authorization_user_code", "oauth_authorization", ["user_code"], unique=True)
    op.create_index("ix_oauth_authorization_code_hash", "oauth_authorization", ["code_hash"], unique=True)
    op.create_table(
        "oauth_family",
        sa.Column("family_id", sa.LargeBinary(), primary_key=True),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("consent_id", sa.LargeBinary(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("former_hash", sa.LargeBinary(), nullable=False),
        sa.Column("retry_until_s", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_s", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_oauth_family_company_id", "oauth_family", ["company_id"])
    op.create_index("ix_oauth_family_consent_id", "oauth_family", ["consent_id"])
    op.create_index("ix_oauth_family_expires_at_s", "oauth_family", ["expires_at_s"])
    op.create_table(
        "oauth_registration",
        sa.Column("company_id", sa.String(), primary_key=True),
        sa.Column("record", sa.String(), nullable=False),
        sa.Column("received_at_s", sa.BigInteger(), nullable=False),
        sa.Column("invited", sa.Boolean(), nullable=False),
    )
    op.create_index("ix_oauth_registration_received_at_s", "oauth_registration", ["received_at_s"])
    op.create_table(
        "oauth_invitation",
        sa.Column("token_hash", sa.LargeBinary(), primary_key=True),
        sa.Column("company_id", sa.String()),
        sa.Column("expires_at_s", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_oauth_invitation_expires_at_s", "oauth_invitation", ["expires_at_s"])


def downgrade() -> None:
    for table in ("oauth_invitation", "oauth_registration", "oauth_family", "oauth_authorization"):
        op.drop_table(table)
