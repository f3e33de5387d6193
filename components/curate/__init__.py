"""Step 3, curate: keep what is worth a token, and say of every other document why not."""
