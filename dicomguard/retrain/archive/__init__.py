"""The archive of curated cases: a folder whose manifest is append-only and hash-chained."""
