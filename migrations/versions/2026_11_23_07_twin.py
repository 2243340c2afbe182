"""twin tables: rows, models and withdrawals are written once; rows can only be erased, the others not even that."""

import sqlalchemy as sa
from alembic import op

revision = "07_twin"
down_revision = "06_oauth"
branch_labels = None
depends_on = None

_REFUSED = {
    "imprint_row_no_update": ("UPDATE", "imprint_row"),
    "model_no_update": ("UPDATE", "model"),
    "model_no_delete": ("DELETE", "model"),
    "model_withdrawal_no_update": ("UPDATE", "model_withdrawal"),
    "model_withdrawal_no_delete": ("DELETE", "model_withdrawal"),
}
# INSERT OR REPLACE deletes without firing a DELETE trigger.
_NO_REPLACE = {
    "imprint_row": """vault_id = NEW.vault_id AND compartment_id = NEW.compartment_id
        AND release_id = NEW.release_id AND row_index = NEW.row_index OR id = NEW.id""",
    "model": "manifest_digest = NEW.manifest_digest OR id = NEW.id",
    "model_withdrawal": "manifest_digest = NEW.manifest_digest",
}


def upgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    big = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "imprint_row",
        sa.Column("id", big, primary_key=True, autoincrement=True),
        sa.Column("vault_id", sa.LargeBinary, nullable=False),
        sa.Column("compartment_id", sa.LargeBinary, nullable=False),
        sa.Column("release_id", sa.LargeBinary, nullable=False),
        sa.Column("row_index", sa.Integer, nullable=False),
        sa.Column("category", sa.String(64), nullable=False),
        sa.Column("period", sa.String(7), nullable=False),
        sa.Column("mechanism", sa.String(16), nullable=False),
        sa.Column("chain_start", sa.Integer, nullable=False),
        sa.Column("first_day", sa.Integer, nullable=False),
        sa.Column("days", sa.Integer, nullable=False),
        sa.Column("map_digest", sa.LargeBinary, nullable=False),
        sa.Column("mu2_micro", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("carried", sa.LargeBinary, nullable=False),
        sa.Column("leaf_id", sa.BigInteger, nullable=False),
        sa.UniqueConstraint(
            "vault_id",
            "compartment_id",
            "release_id",
            "row_index",
            name="uq_imprint_row_vault_id_compartment_id_release_id_row_index",
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_imprint_row_place", "imprint_row", ["vault_id", "category", "period"])
    op.create_table(
        "model",
        sa.Column("id", big, primary_key=True, autoincrement=True),
        sa.Column("map_digest", sa.LargeBinary, nullable=False),
        sa.Column("manifest_digest", sa.LargeBinary, nullable=False),
        sa.Column("model", sa.LargeBinary, nullable=False),
        sa.Column("envelope", sa.LargeBinary, nullable=False),
        sa.Column("leaf_id", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("manifest_digest", name="uq_model_manifest_digest"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_model_map_digest", "model", ["map_digest"])
    op.create_table(
        "model_withdrawal",
        sa.Column("manifest_digest", sa.LargeBinary, primary_key=True),
        sa.Column("leaf_id", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(
            ["manifest_digest"], ["model.manifest_digest"], name="fk_model_withdrawal_manifest_digest_model"
        ),
    )
    if not sqlite:
        op.execute(
            """CREATE FUNCTION twin_written_once() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'written once' USING ERRCODE = 'integrity_constraint_violation'; END $$"""
        )
    for name, (change, table) in _REFUSED.items():
        action = "BEGIN SELECT RAISE(ABORT, 'written once'); END" if sqlite else "EXECUTE FUNCTION twin_written_once()"
        each = "" if sqlite else "FOR EACH ROW"
        op.execute(f"CREATE TRIGGER {name} BEFORE {change} ON {table} {each} {action}")
    for table, same in _NO_REPLACE.items() if sqlite else ():
        op.execute(
            f"""CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table}
            WHEN EXISTS (SELECT 1 FROM {table} WHERE {same})
            BEGIN SELECT RAISE(ABORT, 'written once'); END"""
        )


def downgrade() -> None:
    op.drop_table("model_withdrawal")
    op.drop_table("model")
    op.drop_table("imprint_row")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION twin_written_once()")
