"""Erasure: everything about one person, or some of their compartments, destroyed, logged and certified."""
