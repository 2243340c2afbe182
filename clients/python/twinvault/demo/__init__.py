"""The whole story on real shopping histories: a client that speaks HTTP and CLI only."""

from twinvault.demo.command import main

__all__ = ["main"]
