"""Pure shapes that every part of TwinVault shares: no web, database or settings."""
