"""Step 8, evaluate: perplexity, bits per byte and accuracy by TFMA; thresholds bless or block."""
