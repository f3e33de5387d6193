"""The models, one file an architecture."""
