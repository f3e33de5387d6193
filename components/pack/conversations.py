"""Conversations: several a row, none of which sees another, and answers alone bear a loss.

A conversation is its template's tokens and no more: its first token is what a document's begin is
elsewhere, and a slot asks for the next of its tokens. One that is too long for a row is cut behind
its last answer that fits; if none does, it is left out.
"""

from typing import NamedTuple

import numpy as np

from components.pack.tokenized import TokenizedDocuments
from tokenmill.contracts.packed_rows import NO_ANSWER, TOO_LONG
from tokenmill.rows.arrays import Parts, Rows, spans


class Measured(NamedTuple):
    """A shard's conversations before they are packed.

    Attributes:
        kept_tokens: Tokens of each that go into a row, int64; 0 of those that are left out.
        bears_loss: Of all tokens of all conversations whether they are an answer that is kept, and
            not the first token, bool.
        reasons: For each reason whether a conversation is left out for it, bool [documents].
    """

    kept_tokens: np.ndarray
    bears_loss: np.ndarray
    reasons: dict[str, np.ndarray]

    @property
    def items(self) -> np.ndarray:
        """Slots that each takes, int64: one a token but the first."""
        return np.maximum(self.kept_tokens - 1, 0)


def measure(documents: TokenizedDocuments, sequence_length: int) -> Measured:
    """Find how much of each conversation fits into a row, and what of it is learned.

    Args:
        documents: Of a shard.
        sequence_length: Slots of a row.
    """
    counts = documents.token_counts
    first = np.cumsum(counts) - counts
    owner = np.repeat(np.arange(len(counts)), documents.span_counts)
    begins, ends = documents.answer_spans.T
    begins = np.maximum(begins, 1)  # the first token is no target
    learned = ends > begins
    fits = learned & (ends <= sequence_length + 1)
    kept = np.zeros(len(counts), np.int64)
    np.maximum.at(kept, owner[fits], ends[fits])
    has_answer = np.zeros(len(counts), bool)
    has_answer[owner[learned]] = True
    bears_loss = np.zeros(len(documents.tokens), bool)
    bears_loss[spans((first[owner] + begins)[fits], (ends - begins)[fits])] = True
    has_tokens = counts > 0
    reasons = {
        NO_ANSWER: has_tokens & ~has_answer,
        TOO_LONG: has_answer & (kept == 0),
    }
    return Measured(kept, bears_loss, reasons)


def build_conversation_rows(
    parts: Parts, documents: TokenizedDocuments, bears_loss: np.ndarray
) -> Rows:
    """Fill the rows with ids.

    Args:
        parts: Of whole conversations, as far as they are kept.
        documents: The conversations.
        bears_loss: Of `measure`.
    """
    counts = documents.token_counts
    starts = (np.cumsum(counts) - counts)[parts.document]
    inputs = spans(starts, parts.length)
    return Rows(
        np.bincount(parts.row) if len(parts.row) else np.zeros(0, np.int64),
        parts.length,
        documents.tokens[inputs],
        documents.tokens[starts + parts.length],
        None,
        bears_loss=bears_loss[inputs + 1].astype(np.int32),
    )


def sum_by_document(of_tokens: np.ndarray, token_counts: np.ndarray) -> np.ndarray:
    """Add up numbers of tokens by document: int64 [tokens], [documents] -> int64 [documents]."""
    totals = np.concatenate((np.zeros(1, np.int64), np.cumsum(of_tokens, dtype=np.int64)))
    ends = np.cumsum(token_counts)
    return totals[ends] - totals[ends - token_counts]
