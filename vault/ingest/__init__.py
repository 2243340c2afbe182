"""What owners and devices bring in: vaults, rings, slots, and uploads of sealed batches."""
