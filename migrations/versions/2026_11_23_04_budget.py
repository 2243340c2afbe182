"""The privacy ledger: append-only, by triggers, on both databases."""

import sqlalchemy as sa
from alembic import op

revision = "04_budget"
down_revision = "03_consent"
branch_labels = None
depends_on = None

# REPLACE deletes without firing a delete trigger, so an insert must be the scope's next position.
_SQLITE = (
    """CREATE TRIGGER budget_ledger_no_update BEFORE UPDATE ON budget_ledger
    BEGIN SELECT RAISE(ABORT, 'the privacy ledger is append-only'); END""",
    """CREATE TRIGGER budget_ledger_no_delete BEFORE DELETE ON budget_ledger
    BEGIN SELECT RAISE(ABORT, 'the privacy ledger is append-only'); END""",
    """CREATE TRIGGER budget_ledger_next BEFORE INSERT ON budget_ledger
    WHEN NEW.position <> (SELECT count(*) FROM budget_ledger WHERE scope = NEW.scope)
    BEGIN SELECT RAISE(ABORT, 'the privacy ledger is append-only'); END""",
)
_POSTGRESQL = (
    """CREATE FUNCTION budget_ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'the privacy ledger is append-only' USING ERRCODE = 'integrity_constraint_violation'; END $$""",
    """CREATE FUNCTION budget_ledger_next() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF NEW.position <> (SELECT count(*) FROM budget_ledger WHERE scope = NEW.scope) THEN
        RAISE EXCEPTION 'the privacy ledger is append-only' USING ERRCODE = 'integrity_constraint_violation';
      END IF;
      RETURN NEW;
    END $$""",
    """CREATE TRIGGER budget_ledger_no_change BEFORE UPDATE OR DELETE ON budget_ledger
    FOR EACH ROW EXECUTE FUNCTION budget_ledger_refuse()""",
    """CREATE TRIGGER budget_ledger_no_truncate BEFORE TRUNCATE ON budget_ledger
    FOR EACH STATEMENT EXECUTE FUNCTION budget_ledger_refuse()""",
    """CREATE TRIGGER budget_ledger_next BEFORE INSERT ON budget_ledger
    FOR EACH ROW EXECUTE FUNCTION budget_ledger_next()""",
)


def upgrade() -> None:
    op.create_table(
        "budget_ledger",
        sa.Column("scope", sa.String(80), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("release_id", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("state IN ('reserved', 'committed', 'aborted')", name="state"),
        sa.PrimaryKeyConstraint("scope", "position"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "budget_scope",
        sa.Column("scope", sa.String(80), nullable=False),
        sa.PrimaryKeyConstraint("scope"),
    )
    for statement in _POSTGRESQL if op.get_bind().dialect.name == "postgresql" else _SQLITE:
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("budget_scope")
    op.drop_table("budget_ledger")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION budget_ledger_refuse()")
        op.execute("DROP FUNCTION budget_ledger_next()")
