"""Checkpoints: files with checksums, and when to write and keep them."""
