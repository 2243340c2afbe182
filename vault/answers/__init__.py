"""Answers: the one path from a question to a logged answer, and what is kept of it."""
