"""Forgeries by a sixth author who has read none of the others."""
