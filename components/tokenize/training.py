"""Trains a SentencePiece model on documents; no TFX here."""

import io
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping

import sentencepiece

from components.tokenize.config import TokenizerConfig
from tokenmill.errors import TokenmillError
from tokenmill.records.keys import stable_hash
from tokenmill.text.vocabulary import (
    BOS_ID,
    CONTROL_TOKENS,
    EOS_ID,
    PAD_ID,
    UNK_ID,
    UNLEARNED_TOKENS,
)

# SentencePiece writes a blank as U+2581, and turns each U+2581 back into a blank. So that a
# U+2581 of the text itself survives, the model's normalizer replaces it by ESCAPE and ".", and
# ESCAPE itself (U+E000, of the private use area) by ESCAPE and "-"; its denormalizer does the
# reverse. Every ESCAPE is followed by its mark, so the way back is unambiguous.
_ESCAPING = "2581\tE000 2E\nE000\tE000 2D\n"
_UNESCAPING = "E000 2E\t2581\nE000 2D\tE000\n"
_PATH_LENGTH = 1000
_SENTENCE_CHARACTERS = 1 << 20
_FORBIDDEN_IN_SYMBOLS = re.compile("[\\s\u2581\ue000\x00]")


def sampling_rates(
    bytes_by_source: Mapping[str, int], sample_bytes: int, weights: Mapping[str, float]
) -> dict[str, float]:
    """Compute the share of each source's documents that goes into the sample.

    Rates are in proportion to the weights, and never above 1: no document is taken twice, so
    a source that weighs less is thinned out, even where all the text would fit.

    Args:
        bytes_by_source: Bytes of text under the name of each source.
        sample_bytes: Most bytes wanted, about.
        weights: Relative weight of a byte by source; 1 for a source that is not named.

    Returns:
        Rates from 0 to 1 under the name of each source.

    Raises:
        TokenmillError: A weight names a source that is not there, or all weights are 0.
    """
    unknown = sorted(set(weights) - set(bytes_by_source))
    if unknown:
        known = sorted(bytes_by_source)
        shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if known[20:] else "")
        raise TokenmillError(
            f"tokenizer.source_weights names {unknown[0]!r}, but no document comes from there.",
            f"The sources are: {shown}.",
        )
    full = {source: weights.get(source, 1.0) for source in bytes_by_source}
    weighted = sum(size * full[source] for source, size in bytes_by_source.items())
    if not weighted:
        if not bytes_by_source:
            return {}
        raise TokenmillError(
            "tokenizer.source_weights leaves no text to train the tokenizer on.",
            "Give a source that has documents a weight above 0.",
        )
    factor = min(sample_bytes / weighted, 1 / max(full.values()))
    return {source: factor * weight for source, weight in full.items()}


Document = tuple[bytes, bytes, bytes]
"""doc_id, source, text."""


def sample_documents(
    documents: Iterable[Document], rates: Mapping[str, float]
) -> Iterator[Document]:
    """Sample documents by a hash of the id.

    Which documents are in it depends on nothing but their ids and their sources' rates, so that
    the sample is the same in whatever order they come, and it is drawn in one pass.
    """
    limits = {source.encode(): int(rate * 2**64) for source, rate in rates.items()}
    for document in documents:
        if stable_hash(document[0]) < limits[document[1]]:
            yield document


def as_sentences(documents: Iterable[Document]) -> Iterator[str]:
    """Cut texts as SentencePiece takes them: it would skip a "sentence" above a limit."""
    for _, _, text in documents:
        decoded = text.decode()
        for start in range(0, len(decoded), _SENTENCE_CHARACTERS):
            yield decoded[start : start + _SENTENCE_CHARACTERS]


def check_user_symbols(symbols: Iterable[str]) -> None:
    """Check that each symbol can be a token of its own.

    Raises:
        TokenmillError: A symbol is empty, twice there, a control token, or holds white space.
    """
    seen: set[str] = set()
    for symbol in symbols:
        if not symbol or _FORBIDDEN_IN_SYMBOLS.search(symbol):
            problem = "is empty or holds white space or a character that SentencePiece needs"
        elif symbol in CONTROL_TOKENS or re.fullmatch("<0x[0-9A-F]{2}>", symbol):
            problem = "is a control token already"
        elif symbol in seen:
            problem = "is there twice"
        else:
            seen.add(symbol)
            continue
        raise TokenmillError(f"tokenizer.user_symbols: {symbol!r} {problem}.", "Leave it out.")


def train_sentencepiece(texts: Iterable[str], settings: TokenizerConfig) -> bytes:
    """Train a model with byte fallback that loses nothing: decode(encode(x)) == x.

    For code and prose: digits are single tokens; runs of blanks (indentation) can be one token;
    nothing is added before or after the text, no Unicode form is changed. A token never goes on
    over a blank after another character, so words are tokens with the blank before them.

    One thread, so that the sums of floating-point numbers always come in the same order.

    Args:
        texts: The sample.
        settings: Model type, vocabulary size, user's symbols.

    Returns:
        The model file's content.

    Raises:
        TokenmillError: The text holds too few different tokens for the vocabulary asked for
            (the message says how many there are), or too many characters, or there is no text.
    """
    check_user_symbols(settings.user_symbols)
    written = io.BytesIO()
    with tempfile.TemporaryDirectory() as directory:
        rules = _write_rules(directory)
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=written,
                model_type=settings.model_type,
                vocab_size=settings.vocab_size,
                byte_fallback=True,
                normalization_rule_tsv=rules[0],
                denormalization_rule_tsv=rules[1],
                remove_extra_whitespaces=False,
                add_dummy_prefix=False,
                allow_whitespace_only_pieces=True,  # indentation
                split_digits=True,
                character_coverage=0.9999,
                max_sentence_length=4 * _SENTENCE_CHARACTERS,  # bytes; no text is left out
                pad_id=PAD_ID,
                unk_id=UNK_ID,
                bos_id=BOS_ID,
                eos_id=EOS_ID,
                control_symbols=list(CONTROL_TOKENS[4:]),
                user_defined_symbols=list(settings.user_symbols),
                num_threads=1,
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            raise _explain(error, settings) from error
    model = written.getvalue()
    for path in rules:  # the model holds the rules; where they were is no part of it
        model = model.replace(path.encode(), b"compiled".ljust(len(path)))
    return model


def _write_rules(directory: str) -> list[str]:
    """Write the rules of normalization and of its reverse as the files that SentencePiece wants.

    The paths have the same length wherever the temporary directory is, as the trained model
    holds them.
    """
    paths = []
    for name, rules in (("normalize.tsv", _ESCAPING), ("denormalize.tsv", _UNESCAPING)):
        path = os.path.join(directory, name)
        path = path.replace(os.sep, os.sep * max(1, 1 + _PATH_LENGTH - len(path)), 1)
        with open(path, "w", encoding="utf-8") as out:
            out.write(rules)
        paths.append(path)
    return paths


def _explain(error: Exception, settings: TokenizerConfig) -> TokenmillError:
    """Turn SentencePiece's complaint into what the user can do about it."""
    asked = f"tokenizer.vocab_size = {settings.vocab_size:,}"
    message = " ".join(str(error).split())
    too_many = re.search(r"set it to a value <= (\d+)", message)
    if too_many:
        possible = int(too_many.group(1))
        return TokenmillError(
            f"{asked}: this text supports at most {possible:,} {settings.model_type} tokens.",
            f"Set tokenizer.vocab_size to {possible} or less, or give more text.",
        )
    too_few = re.search(r"smaller than required_chars\. \d+ vs (\d+)", message)
    if too_few:
        needed = int(too_few.group(1))
        reserved = UNLEARNED_TOKENS + len(settings.user_symbols)
        return TokenmillError(
            f"{asked}: {reserved} tokens are reserved and the text's characters need "
            f"{needed - reserved:,} more.",
            f"Set tokenizer.vocab_size well above {needed:,}.",
        )
    if "!sentences_.empty()" in message:
        return TokenmillError(
            f"{asked}: there is no text to train the tokenizer on.",
            "Look at tokenizer.source_weights, and at what the curate step dropped.",
        )
    return TokenmillError(
        f"SentencePiece could not train {settings.vocab_size:,} {settings.model_type} tokens "
        f"on this text: {message}",
        "Give more text or a smaller tokenizer.vocab_size.",
    )
