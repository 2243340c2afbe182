"""Durable work for the worker process: enqueued in the transaction that needs it, done at least once."""
