"""Forgeries by a fifth author who has read none of the others: only a judge's material, never a teacher's."""
