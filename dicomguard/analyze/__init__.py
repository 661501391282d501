"""From pixels to findings."""
