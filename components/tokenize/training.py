"""Trains a SentencePiece model on documents; no TFX here.

SentencePiece's trainers end the process (code 255, no exception) when one of their checks fails:
the training runs in a process of its own.
"""

import io
import json
import os
import re
import signal
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import sentencepiece

from components.tokenize.config import LEAST_VOCAB_SIZE, TokenizerConfig
from tokenmill.errors import TokenmillError
from tokenmill.records.keys import stable_hash
from tokenmill.run_in_subprocess import run_in_subprocess
from tokenmill.text.parts import cut_before_blanks
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
_TEXTS, _MODEL = "texts.jsonl", "model"
LONGEST_WORD = 4096
"""Characters of a text that SentencePiece is given at once; it is cut before a blank, or inside a
word that is longer. The BPE trainer ends the process at 65,536 without a blank, unigram's
probabilities are NaN from some 90,000 on, and it takes quadratic time for a text that repeats."""
# SentencePiece's name for characters that it leaves out: it would skip a sentence that holds one.
_RESERVED = "\u2585"
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


class Sentences:
    """Iterates over texts cut as SentencePiece can take them; counts the words that were cut.

    Iterating again begins anew only if the documents do.

    Args:
        documents: The sample.

    Attributes:
        cut_words: Words longer than LONGEST_WORD so far, which became several.
    """

    def __init__(self, documents: Iterable[Document]):
        self._documents = documents
        self.cut_words = 0

    def __iter__(self) -> Iterator[str]:
        for _, _, text in self._documents:
            for unreserved in text.decode().split(_RESERVED):
                inside = False
                for i, part in enumerate(cut_before_blanks(unreserved, LONGEST_WORD)):
                    was_inside, inside = inside, i > 0 and part[0] != " "
                    self.cut_words += inside and not was_inside
                    yield part


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
        texts: The sample, as `Sentences` cuts it.
        settings: Model type, vocabulary size, user's symbols.

    Returns:
        The model file's content.

    Raises:
        TokenmillError: The text holds too few different tokens for the vocabulary asked for
            (the message says how many there are), or too many characters, or there is no text;
            or SentencePiece ended its process.
    """
    check_user_symbols(settings.user_symbols)
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, _TEXTS), "w", encoding="utf-8") as out:
            out.writelines(json.dumps(text) + "\n" for text in texts)
        run_in_subprocess(
            train_in_process,
            f"SentencePiece's {settings.model_type} training",
            "If memory ran out, lower tokenizer.sample_bytes.",
            ended_hint='Try the other model_type: --set tokenizer.model_type="bpe" or "unigram".',
            directory=directory,
            config=settings.to_json(),
        )
        with open(os.path.join(directory, _MODEL), "rb") as source:
            return source.read()


def train_in_process(start_seconds: float, directory: str, config: str) -> dict[str, Any]:
    """Train on the texts that `train_sentencepiece` left in a directory; write the model there."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Python's handler would wait until the native code returns, perhaps for minutes.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    settings = TokenizerConfig.from_json(config)
    written = io.BytesIO()
    rules = _write_rules(directory)
    with open(os.path.join(directory, _TEXTS), encoding="utf-8") as texts:
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=map(json.loads, texts),
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
                max_sentence_length=4 * LONGEST_WORD,  # bytes; no text is left out
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
    with open(os.path.join(directory, _MODEL), "wb") as out:
        out.write(model)
    return {}


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
        fits = possible >= LEAST_VOCAB_SIZE
        return TokenmillError(
            f"{asked}: this text supports at most {possible:,} {settings.model_type} tokens.",
            f"Give more text, or take fewer tokens: --set tokenizer.vocab_size={possible}"
            if fits
            else f"Give more text: the smallest vocabulary has {LEAST_VOCAB_SIZE}.",
        )
    too_few = re.search(r"smaller than required_chars\. \d+ vs (\d+)", message)
    if too_few:
        needed = int(too_few.group(1))
        reserved = UNLEARNED_TOKENS + len(settings.user_symbols)
        return TokenmillError(
            f"{asked}: {reserved} tokens are reserved and the text's characters need "
            f"{needed - reserved:,} more.",
            f"Set it well above that: --set tokenizer.vocab_size={2 * needed}",
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
