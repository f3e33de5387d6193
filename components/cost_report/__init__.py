"""Step 9, cost report: the estimate against what the run really took."""
