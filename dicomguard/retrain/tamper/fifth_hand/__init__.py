"""Forgeries by a fifth author who has read none of the others."""
