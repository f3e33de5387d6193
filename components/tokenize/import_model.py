"""Import of a tokenizer (tokenizer.path): what it must be like."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import sentencepiece
import tensorflow as tf

from components.tokenize.config import TokenizerConfig
from components.tokenize.training import check_user_symbols
from tokenmill.errors import TokenmillError
from tokenmill.files import absolute_path
from tokenmill.text.tokenizers.compiled import is_compiled, unpack_tokenizer
from tokenmill.text.tokenizers.hugging_face_files import is_hugging_face
from tokenmill.text.tokenizers.load import SENTENCEPIECE_MODEL, load_tokenizer
from tokenmill.text.tokenizers.sentencepiece_model import control_ids_of


def read_model(path: str) -> tuple[bytes, str]:
    """Read the tokenizer to import: content and SHA-256 of its file.

    A Hugging Face directory is compiled first (tokenmill/text/tokenizers/importing).

    Args:
        path: Of a SentencePiece model, a compiled tokenizer, a directory, a tokenizer.json or a
            vocab.txt, on any filesystem that TensorFlow knows.

    Raises:
        TokenmillError: It cannot be read, or not be imported exactly.
    """
    if is_hugging_face(path):
        # Here, as most runs import none and the library is not needed for them.
        from tokenmill.text.tokenizers.importing.directory import import_tokenizer

        model = import_tokenizer(path)
        return model, hashlib.sha256(model).hexdigest()
    try:
        with tf.io.gfile.GFile(path, "rb") as source:
            model = source.read()
    except tf.errors.OpError as error:
        raise TokenmillError(
            f"tokenizer.path = {path}: the file cannot be read: {error.message}",
            "Give a SentencePiece model (.model) or a Hugging Face directory.",
        ) from None
    return model, hashlib.sha256(model).hexdigest()


class ResolvedTokenizer(NamedTuple):
    """The section [tokenizer], and the model that it names.

    Attributes:
        config: The section, with the absolute path of the model.
        sha256: Of the model's file; empty if one is to be trained.
        content: Of that file, read once, as compiling one takes long; None likewise.
    """

    config: TokenizerConfig
    sha256: str = ""
    content: bytes | None = None


def resolve_model(
    config: TokenizerConfig, task: str, has_base_model: bool = False
) -> ResolvedTokenizer:
    """Check the section, and the model to import if it names one, before the run starts.

    Args:
        config: The section [tokenizer].
        task: The training task.
        has_base_model: Whether vocab_size is that of a model whose embedding may have more rows
            than an imported tokenizer has tokens.

    Raises:
        TokenmillError: tokenizer.path names no model that fits, or a user symbol cannot be one.
    """
    check_user_symbols(config.user_symbols)
    if config.path is None:
        return ResolvedTokenizer(config)
    path = absolute_path(config.path)
    model, sha256 = read_model(path)
    size = config.vocab_size
    if has_base_model and is_compiled(model):
        size = min(size, unpack_tokenizer(model, path).description.vocab_size)
    check_imported_model(model, path, config.model_type, size, task)
    if is_compiled(model) and config.regularization_alpha is not None:
        raise TokenmillError(
            f"tokenizer.path = {path} is not split at random.",
            "Leave tokenizer.sampling_alpha and tokenizer.bpe_dropout out.",
        )
    return ResolvedTokenizer(config.model_copy(update={"path": path}), sha256, model)


def load_processor(model: bytes, path: str) -> sentencepiece.SentencePieceProcessor:
    """Load a model file's content.

    Raises:
        TokenmillError: It is no SentencePiece model.
    """
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        processor.get_piece_size()
    except (RuntimeError, OSError):
        processor = None
    if not model or processor is None or not processor.get_piece_size():
        raise TokenmillError(
            f"{path} is no SentencePiece model.",
            "Give the .model file of SentencePiece's training (not .vocab, not tokenizer.json).",
        )
    return processor


def model_type_of(processor: sentencepiece.SentencePieceProcessor) -> str:
    """Return `unigram` or `bpe`; SentencePiece lists n best splits for the former only."""
    try:
        return "unigram" if processor.nbest_encode_as_ids("a", 2) else "bpe"
    except RuntimeError:  # how the library says it depends on its version
        return "bpe"


def lossy_fraction(model: bytes, texts: Iterable[bytes]) -> float:
    """Compute the share of texts (UTF-8) that do not come back from their tokens; 0 of none.

    Such a model writes texts that differ in the same way (blanks, Unicode forms): its bits per byte
    are of less than the text.
    """
    lost = count = 0
    if is_compiled(model):
        tokenizer = load_tokenizer(model, "the tokenizer")
        for text in texts:
            count += 1
            again = tokenizer.detokenize(tokenizer.tokenize(tf.constant([text])))
            lost += again.numpy()[0] != text
        return lost / count if count else 0.0
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    for decoded in map(bytes.decode, texts):
        count += 1
        lost += processor.decode(processor.encode(decoded)) != decoded
    return lost / count if count else 0.0


def check_imported_model(
    model: bytes, path: str, model_type: str, vocab_size: int, task: str
) -> None:
    """Check that a model can stand in for one that tokenmill would train.

    Ids are not moved: the weights of a warm start are in the order of the model's ids.

    Args:
        model: The file's content.
        path: Its name, for messages.
        model_type: As configured.
        vocab_size: As configured; the model's embedding has so many rows.
        task: The training task; masked-lm and sequence classification need more control tokens.

    Raises:
        TokenmillError: It is no model, of another type or size, lacks a control token that the
            task needs, or has no byte fallback and would lose text.
    """
    compiled = unpack_tokenizer(model, path) if is_compiled(model) else None
    if compiled is not None and compiled.description.kind != "sentencepiece":
        found: str = compiled.description.kind
        size, control_ids = compiled.description.vocab_size, compiled.description.control_ids
    else:
        plain = compiled.parts[SENTENCEPIECE_MODEL] if compiled else model
        processor = load_processor(plain, path)
        found, size = model_type_of(processor), processor.get_piece_size()
        control_ids = compiled.description.control_ids if compiled else control_ids_of(processor)
        if sum(map(processor.is_byte, range(size))) != 256:
            raise TokenmillError(
                f"tokenizer.path = {path} has no byte fallback: it would lose characters that it "
                "does not know.",
                "Use a model that was trained with --byte_fallback.",
            )
    if found != model_type:
        raise TokenmillError(
            f"tokenizer.path = {path} is a {found} model, but tokenizer.model_type = {model_type}.",
            f'Set tokenizer.model_type = "{found}".',
        )
    if size != vocab_size:
        raise TokenmillError(
            f"tokenizer.path = {path} has {size:,} tokens, but tokenizer.vocab_size = "
            f"{vocab_size:,}.",
            f"Set tokenizer.vocab_size = {size}.",
        )
    control_ids.check_task(task, f"tokenizer.path = {path}")
