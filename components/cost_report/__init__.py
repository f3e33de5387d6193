"""Step 9, settle: the estimate against what the run really took."""
