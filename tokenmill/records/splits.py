"""Splits of the documents, and where each lies inside an artifact."""

import os

SPLITS = ("train", "eval")


def split_directory(uri: str, split: str) -> str:
    """Return the directory of a split inside an Examples artifact (TFX's own naming)."""
    return os.path.join(uri, f"Split-{split}")
