"""What the service keeps for a person and cannot open: slots, accounts, rings, batches, and short keys."""
