"""Open models as they are published: Hugging Face checkpoint directories, read without PyTorch."""
