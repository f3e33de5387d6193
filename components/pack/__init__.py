"""Step 5, pack: documents of any length become rows of one length, with hardly any padding."""
