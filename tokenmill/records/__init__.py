"""Documents on disk and in memory, sorted hash files, texts staged beside a Beam pipeline."""
