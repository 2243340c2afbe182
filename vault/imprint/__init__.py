"""Imprints: what traces become before anything else may read them; pure, so an owner can run it at home."""
