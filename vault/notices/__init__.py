"""Notices: the owner's view over the log."""
