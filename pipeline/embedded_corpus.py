"""The embedded corpus as an input: its errors become the user's."""

from data.embedded_corpus import (
    EmbeddedCorpus,
    EmbeddedCorpusError,
    Progress,
    ensure_embedded_corpus,
)
from tokenmill.errors import TokenmillError


def build_embedded_corpus(on_progress: Progress | None = None) -> EmbeddedCorpus:
    """Return the embedded corpus, made from the installed packages where it is not there yet.

    Args:
        on_progress: Told of packages done and in all.

    Raises:
        TokenmillError: It cannot be built from this environment.
    """
    try:
        return ensure_embedded_corpus(on_progress=on_progress)
    except EmbeddedCorpusError as error:
        raise TokenmillError(error.message, error.hint) from None
