"""What anyone can check offline: tree, notes, receipts, decisions. Pure: no web, database or settings."""
