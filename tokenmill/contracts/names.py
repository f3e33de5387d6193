"""Names of the files that steps leave in their artifacts for others."""

INGEST_COUNTS_NAME = "counts.json"
CURATION_NAME = "curation.json"
TOKENIZER_MODEL_NAME = "tokenizer.model"
