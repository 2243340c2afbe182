"""Consent as keys: signed versions, the handovers they carry, and their end."""
