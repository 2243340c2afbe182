"""The HTTP edge that every route shares: problems, limits, request ids."""
