"""Names of the files that steps leave in their artifacts for others."""

TOKENIZER_MODEL_NAME = "tokenizer.model"
