"""Legacy: what executors may set in motion when an owner is gone, and every sign of life that stops it."""
