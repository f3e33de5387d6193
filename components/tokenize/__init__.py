"""Step 4, tokenize: a SentencePiece vocabulary, and Transform's graph that applies it."""
