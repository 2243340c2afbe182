"""Structured logs with an allow-list: a field that is not named here never leaves the process."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

# Adding a field is a privacy decision: none may hold plaintext, a token, a key or a vault id.
ALLOWED_FIELDS = frozenset(
    {
        "event", "level", "timestamp", "request_id", "method", "route", "status", "wall_ms", "slug", "error_type",
        "leaf_index", "tree_size", "leaves", "job_kind", "job_id", "attempt", "vaults", "rows", "batches", "period",
        "model_digest", "policy_set", "key_name", "epoch", "company", "port", "role", "revision", "count", "reason", "logger",
    }
)  # fmt: skip


_log = structlog.get_logger()


def drop_unlisted(_logger: object, _name: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep allow-listed fields only; say how many were dropped, never which values they held."""
    kept = {key: value for key, value in fields.items() if key in ALLOWED_FIELDS}
    if len(kept) != len(fields):
        kept["dropped_fields"] = len(fields) - len(kept)
    return kept


class _Foreign(logging.Handler):
    """Says that a library logged something and where, never what: its message may quote a value."""

    def emit(self, record: logging.LogRecord) -> None:
        place = f"{record.filename}:{record.lineno}"
        _log.log(record.levelno, "library.logged", logger=record.name, reason=place)


def configure_logging(level: str = "INFO") -> None:
    """Send JSON lines to standard error.

    Args:
        level: A standard level name.
    """
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            drop_unlisted,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _Foreign)]
    root.addHandler(_Foreign(logging.WARNING))
