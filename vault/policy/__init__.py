"""Decisions: the record of what is asked, the rules in force, and the one proof that an action may happen now."""
