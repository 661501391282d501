"""Forgeries by a seventh author who has read none of the others."""
