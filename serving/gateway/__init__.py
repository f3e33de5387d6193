"""An OpenAI-compatible API in front of a pushed model."""
