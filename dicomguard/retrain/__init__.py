"""From an archive of studies to better weights."""
