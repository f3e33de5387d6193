"""Import of a SentencePiece model (tokenizer.path): what it must be like."""

import hashlib
from collections.abc import Iterable

import sentencepiece
import tensorflow as tf

from components.tokenize.config import TokenizerConfig
from components.tokenize.training import check_user_symbols
from tokenmill.errors import TokenmillError
from tokenmill.files import absolute_path
from tokenmill.text.vocabulary import CONTROL_TOKENS, UNK_ID

# Besides <pad>, <unk>, <s> and </s>, which every task needs at their ids.
_TASK_TOKENS = {"causal-lm": 4}


def read_model(path: str) -> tuple[bytes, str]:
    """Read the content and SHA-256 of a model file, on any filesystem that TensorFlow knows.

    Raises:
        TokenmillError: The file cannot be read.
    """
    try:
        with tf.io.gfile.GFile(path, "rb") as source:
            model = source.read()
    except tf.errors.OpError as error:
        raise TokenmillError(
            f"tokenizer.path = {path}: the file cannot be read: {error.message}",
            "Give a SentencePiece model file (.model).",
        ) from None
    return model, hashlib.sha256(model).hexdigest()


def resolve_model(config: TokenizerConfig, task: str) -> tuple[TokenizerConfig, str]:
    """Check the section, and the model to import if it names one, before the run starts.

    Args:
        config: The section [tokenizer].
        task: The training task.

    Returns:
        The section with the absolute path of the model, and the model's SHA-256; empty if one is
        to be trained.

    Raises:
        TokenmillError: tokenizer.path names no model that fits, or a user symbol cannot be one.
    """
    check_user_symbols(config.user_symbols)
    if config.path is None:
        return config, ""
    path = absolute_path(config.path)
    model, sha256 = read_model(path)
    check_imported_model(model, path, config.model_type, config.vocab_size, task)
    return config.model_copy(update={"path": path}), sha256


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
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    lost = count = 0
    for text in map(bytes.decode, texts):
        count += 1
        lost += processor.decode(processor.encode(text)) != text
    return lost / count if count else 0.0


def check_imported_model(
    model: bytes, path: str, model_type: str, vocab_size: int, task: str
) -> None:
    """Check that a model can stand in for one that tokenmill would train.

    Ids are not moved: the weights of a warm start are in the order of the model's ids.

    Args:
        model: The file's content.
        path: Its name, for messages.
        model_type: `bpe` or `unigram`, as configured.
        vocab_size: As configured; the model's embedding has so many rows.
        task: The training task; masked-lm and sequence classification need more control tokens.

    Raises:
        TokenmillError: It is no model, of another type or size, its control tokens are elsewhere,
            or it has no byte fallback and would lose text.
    """
    processor = load_processor(model, path)
    found = model_type_of(processor)
    if found != model_type:
        raise TokenmillError(
            f"tokenizer.path = {path} is a {found} model, but tokenizer.model_type = {model_type}.",
            f'Set tokenizer.model_type = "{found}".',
        )
    size = processor.get_piece_size()
    if size != vocab_size:
        raise TokenmillError(
            f"tokenizer.path = {path} has {size:,} tokens, but tokenizer.vocab_size = "
            f"{vocab_size:,}.",
            f"Set tokenizer.vocab_size = {size}.",
        )
    for i, token in enumerate(CONTROL_TOKENS[: _TASK_TOKENS.get(task, 7)]):
        stored = processor.id_to_piece(i) if i < size else "nothing"
        right_kind = processor.is_unknown(i) if i == UNK_ID else processor.is_control(i)
        if i < 4:  # whatever they are called, these four have a role in SentencePiece
            role = (processor.pad_id, processor.unk_id, processor.bos_id, processor.eos_id)[i]()
            right_kind = right_kind and role == i
        elif stored != token:
            right_kind = False
        if not right_kind:
            raise TokenmillError(
                f"tokenizer.path = {path}: id {i} is {stored!r}; {task} needs {token} there, as a "
                "control token.",
                "Use a model with tokenmill's control tokens (docs/tokens.md), or train one.",
            )
    if sum(processor.is_byte(i) for i in range(size)) != 256:
        raise TokenmillError(
            f"tokenizer.path = {path} has no byte fallback: it would lose characters that it "
            "does not know.",
            "Use a model that was trained with --byte_fallback.",
        )
