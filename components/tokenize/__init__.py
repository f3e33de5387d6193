"""Step 4, tokenise: a SentencePiece vocabulary, and Transform's graph that applies it."""
