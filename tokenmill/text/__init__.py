"""Normalization, language identification, vocabulary and tokenization of text."""
