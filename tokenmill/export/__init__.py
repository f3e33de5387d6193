"""SavedModels: signatures, sampling, quantized weights, warm-up requests, tokenizer files."""
