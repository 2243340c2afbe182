"""Operator commands and the supervisor; the CLI finds them through entry points."""

from vault.ops.commands import operator
from vault.ops.supervisor import serve, worker

__all__ = ["operator", "serve", "worker"]
