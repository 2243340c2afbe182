"""The transparency log: every event that matters, in one signed, append-only order."""
