"""What the packer counts for each source."""

_SOURCE_COUNTS = ("documents", "bytes", "tokens", "targets", "dropped_empty")
# Of classification alone: other tasks truncate nothing and take every document that has a token.
_LABEL_COUNTS = (
    "dropped_no_label",
    "dropped_unknown_label",
    "dropped_bytes",
    "dropped_tokens",
    "truncated_tokens",
)


def source_counts(task: str) -> tuple[str, ...]:
    """The names of what is counted for each source."""
    return _SOURCE_COUNTS + (_LABEL_COUNTS if task == "classification" else ())
