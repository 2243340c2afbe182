"""consent, policy and key tables; what was signed is append-only in the database itself."""

import sqlalchemy as sa
from alembic import op

revision = "03_consent"
down_revision = "02_store"
branch_labels = None
depends_on = None

# Forgetting may blank the bodies of a version; nothing else about it ever changes.
_SQLITE_FORGET = """
    NEW.consent_id = OLD.consent_id AND NEW.version = OLD.version AND NEW.sha256 = OLD.sha256
    AND NEW.leaf_id = OLD.leaf_id AND NEW.envelope IS NULL AND NEW.request IS NULL AND NEW.certificate IS NULL
"""
_SQLITE = (
    f"""CREATE TRIGGER consent_version_no_update BEFORE UPDATE ON consent_version WHEN NOT ({_SQLITE_FORGET})
        BEGIN SELECT RAISE(ABORT, 'consent versions are append-only'); END""",
    """CREATE TRIGGER consent_version_no_delete BEFORE DELETE ON consent_version
        BEGIN SELECT RAISE(ABORT, 'consent versions are append-only'); END""",
    # INSERT OR REPLACE deletes without firing the trigger above.
    """CREATE TRIGGER consent_version_no_replace BEFORE INSERT ON consent_version
        WHEN EXISTS (SELECT 1 FROM consent_version WHERE consent_id = NEW.consent_id AND version = NEW.version)
        BEGIN SELECT RAISE(ABORT, 'consent versions are append-only'); END""",
    """CREATE TRIGGER consent_over BEFORE UPDATE ON consent
        WHEN OLD.event IN ('withdrawn', 'revoked', 'invalidated') AND (NEW.live OR NEW.event <> OLD.event)
        BEGIN SELECT RAISE(ABORT, 'a consent that is over stays over'); END""",
    """CREATE TRIGGER consent_seq_dense BEFORE UPDATE ON consent
        WHEN NEW.consent_seq NOT IN (OLD.consent_seq, OLD.consent_seq + 1)
        BEGIN SELECT RAISE(ABORT, 'consent_seq counts every event once'); END""",
    """CREATE TRIGGER policy_set_no_update BEFORE UPDATE ON policy_set
        BEGIN SELECT RAISE(ABORT, 'policy sets are immutable'); END""",
    """CREATE TRIGGER policy_set_no_delete BEFORE DELETE ON policy_set
        BEGIN SELECT RAISE(ABORT, 'policy sets are immutable'); END""",
    """CREATE TRIGGER policy_set_no_replace BEFORE INSERT ON policy_set
        WHEN EXISTS (SELECT 1 FROM policy_set WHERE (sha256 = NEW.sha256 OR version = NEW.version)
                     AND (sha256, version, source) IS NOT (NEW.sha256, NEW.version, NEW.source))
        BEGIN SELECT RAISE(ABORT, 'policy sets are immutable'); END""",
)
_POSTGRESQL = (
    """CREATE FUNCTION consent_version_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF TG_OP = 'UPDATE' THEN
            IF (NEW.consent_id, NEW.version, NEW.sha256, NEW.leaf_id)
                = (OLD.consent_id, OLD.version, OLD.sha256, OLD.leaf_id)
                AND NEW.envelope IS NULL AND NEW.request IS NULL AND NEW.certificate IS NULL THEN
              RETURN NEW;
            END IF;
          END IF;
          RAISE EXCEPTION 'consent versions are append-only' USING ERRCODE = 'integrity_constraint_violation';
        END $$""",
    """CREATE FUNCTION consent_only_ends() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF OLD.event IN ('withdrawn', 'revoked', 'invalidated') AND (NEW.live OR NEW.event <> OLD.event) THEN
            RAISE EXCEPTION 'a consent that is over stays over' USING ERRCODE = 'integrity_constraint_violation';
          END IF;
          IF NEW.consent_seq NOT IN (OLD.consent_seq, OLD.consent_seq + 1) THEN
            RAISE EXCEPTION 'consent_seq counts every event once' USING ERRCODE = 'integrity_constraint_violation';
          END IF;
          RETURN NEW;
        END $$""",
    """CREATE FUNCTION policy_set_immutable() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          RAISE EXCEPTION 'policy sets are immutable' USING ERRCODE = 'integrity_constraint_violation';
        END $$""",
    """CREATE TRIGGER consent_version_append_only BEFORE UPDATE OR DELETE ON consent_version
        FOR EACH ROW EXECUTE FUNCTION consent_version_append_only()""",
    """CREATE TRIGGER consent_version_no_truncate BEFORE TRUNCATE ON consent_version
        FOR EACH STATEMENT EXECUTE FUNCTION consent_version_append_only()""",
    "CREATE TRIGGER consent_only_ends BEFORE UPDATE ON consent FOR EACH ROW EXECUTE FUNCTION consent_only_ends()",
    """CREATE TRIGGER policy_set_immutable BEFORE UPDATE OR DELETE ON policy_set
        FOR EACH ROW EXECUTE FUNCTION policy_set_immutable()""",
    """CREATE TRIGGER policy_set_no_truncate BEFORE TRUNCATE ON policy_set
        FOR EACH STATEMENT EXECUTE FUNCTION policy_set_immutable()""",
)


def upgrade() -> None:
    op.create_table(
        "consent",
        sa.Column("consent_id", sa.LargeBinary(), nullable=False),
        sa.Column("vault_id", sa.LargeBinary(), nullable=False),
        sa.Column("subject", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("grantee", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("quota_per_month", sa.Integer(), nullable=False),
        sa.Column("quota_month", sa.String(), nullable=False),
        sa.Column("quota_used", sa.Integer(), nullable=False),
        sa.Column("consent_seq", sa.BigInteger(), nullable=False),
        sa.Column("last_event", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("consent_id", name=op.f("pk_consent")),
    )
    op.create_index(op.f("ix_consent_vault_id"), "consent", ["vault_id"])
    op.create_index("ix_consent_grantee_consent_id", "consent", ["grantee", "consent_id"])
    op.create_index(
        "ix_consent_expiry",
        "consent",
        ["not_after"],
        sqlite_where=sa.text("live = 1"),
        postgresql_where=sa.text("live"),
    )
    op.create_table(
        "consent_version",
        sa.Column("consent_id", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("leaf_id", sa.BigInteger(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=True),
        sa.Column("request", sa.LargeBinary(), nullable=True),
        sa.Column("certificate", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("consent_id", "version", name=op.f("pk_consent_version")),
        sa.ForeignKeyConstraint(
            ["consent_id"], ["consent.consent_id"], name=op.f("fk_consent_version_consent_id_consent")
        ),
    )
    op.create_index(op.f("ix_consent_version_leaf_id"), "consent_version", ["leaf_id"])
    op.create_table(
        "handover",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("consent_id", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("key_kind", sa.String(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("recipient", sa.LargeBinary(), nullable=False),
        sa.Column("locked", sa.LargeBinary(), nullable=False),
        sa.Column("leaf_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_handover")),
        sa.ForeignKeyConstraint(["consent_id"], ["consent.consent_id"], name=op.f("fk_handover_consent_id_consent")),
    )
    op.create_index("ix_handover_place", "handover", ["consent_id", "version", "key_kind"])
    op.create_index(
        "ix_handover_recipient",
        "handover",
        ["key_kind", "recipient"],
        sqlite_where=sa.text("live = 1"),
        postgresql_where=sa.text("live"),
    )
    op.create_table(
        "exposure",
        sa.Column("vault_id", sa.LargeBinary(), nullable=False),
        sa.Column("month", sa.String(7), nullable=False),
        sa.Column("stimuli", sa.Integer(), nullable=False),
        sa.Column("variations", sa.Integer(), nullable=False),
        sa.Column("ranked", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("vault_id", "month", name=op.f("pk_exposure")),
    )
    op.create_table(
        "policy_set",
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("source", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_policy_set")),
        sa.UniqueConstraint("version", name=op.f("uq_policy_set_version")),
    )
    op.create_table(
        "key_statement",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", "epoch", name=op.f("pk_key_statement")),
    )
    for statement in _POSTGRESQL if op.get_bind().dialect.name == "postgresql" else _SQLITE:
        op.execute(statement)


def downgrade() -> None:
    for table in ("key_statement", "policy_set", "exposure", "handover", "consent_version", "consent"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        for function in ("consent_version_append_only", "consent_only_ends", "policy_set_immutable"):
            op.execute(f"DROP FUNCTION {function}()")
