"""Step 1, ingest: the user's files become documents, or are quarantined with the reason."""
