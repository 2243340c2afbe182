"""Alembic environment: gathers every domain's private models and runs on the caller's connection."""

import importlib
from pathlib import Path

from alembic import context
from sqlmodel import SQLModel

import vault

for models in sorted(Path(vault.__file__).parent.glob("*/models.py")):
    importlib.import_module(f"vault.{models.parent.name}.models")

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
    compare_type=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    if connection.dialect.name == "postgresql":
        # A migration that cannot get its lock gives up rather than queueing every request behind it.
        connection.exec_driver_sql("SET lock_timeout = '5s'")
    context.run_migrations()
