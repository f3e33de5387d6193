"""The chat format of a run: which template writes conversations, with which tokens."""

import json
import os
from typing import Any

import tensorflow as tf

from components.tokenize.config import TokenizerConfig
from components.tokenize.import_model import load_processor, read_model
from tokenmill.contracts.chat import ChatFormat, find_chat_format
from tokenmill.errors import TokenmillError
from tokenmill.records.conversations import ANSWERING_ROLE
from tokenmill.text.chat_template import CHATML, CHATML_TOKENS, ChatTemplate
from tokenmill.text.control_ids import TOKENMILL_CONTROL_IDS, ControlIds
from tokenmill.text.tokenizers.base import Tokenizer
from tokenmill.text.tokenizers.compiled import CompiledFile, is_compiled, unpack_tokenizer
from tokenmill.text.tokenizers.hugging_face_files import (
    CHAT_TEMPLATE_FILE,
    TOKENIZER_CONFIG,
    TOKENIZER_JSON,
)
from tokenmill.text.tokenizers.load import load_tokenizer
from tokenmill.text.tokenizers.sentencepiece_model import SentencePieceTokenizer
from tokenmill.text.vocabulary import BOS_ID, CONTROL_TOKENS, EOS_ID, FIRST_RESERVED_ID

CHATML_NAME = "chatml"
# What the template is tried on.
_PROBE = ({"role": "user", "content": "a"}, {"role": ANSWERING_ROLE, "content": "b"})


def resolve_chat_format(config: TokenizerConfig, content: bytes | None = None) -> ChatFormat:
    """Find the template and the ids of the tokens that it writes, before the run starts.

    A vocabulary that tokenmill trains writes ChatML with its first reserved ids. An imported
    tokenizer brings a template with it (tokenizer_config.json, chat_template.jinja); one without
    has ChatML, of which it may lack the tokens: then these are text, and an answer ends with its
    own end-of-text token.

    Args:
        config: The section [tokenizer], its path resolved (`resolve_model`).
        content: Of the imported tokenizer's file; None reads it.

    Raises:
        TokenmillError: There is no such template, or it is none, or it refuses a question and an
            answer.
    """
    found = _own_format() if config.path is None else _of_imported(config.path, content)
    origin = f"tokenizer.path = {config.path}"
    if config.chat_template is not None and config.chat_template != CHATML_NAME:
        origin = f"tokenizer.chat_template = {config.chat_template}"
        found = found.model_copy(update={"template": _read_text(config.chat_template, origin)})
    elif config.chat_template == CHATML_NAME:
        found = found.model_copy(update={"template": _chatml(found)})
    return found.model_copy(update={"stop_ids": _stop_ids(found, origin)})


def _own_format() -> ChatFormat:
    special = {CONTROL_TOKENS[i]: i for i in (BOS_ID, EOS_ID)}
    for i, token in enumerate(CHATML_TOKENS):
        special[token] = FIRST_RESERVED_ID + i
    return ChatFormat(
        template=CHATML,
        special_tokens=special,
        variables={"bos_token": CONTROL_TOKENS[BOS_ID], "eos_token": CONTROL_TOKENS[EOS_ID]},
        stop_ids=[],
        adds_blank=False,
    )


def _of_imported(path: str, content: bytes | None) -> ChatFormat:
    """Return the format of an imported tokenizer; its template is ChatML where it has none."""
    if beside := find_chat_format(os.path.dirname(path)):  # of a model that tokenmill pushed
        return beside
    if content is None:
        content, _ = read_model(path)
    tokenizer = load_tokenizer(content, path)
    ids = tokenizer.control_ids
    if not is_compiled(content):
        return _of_sentencepiece(tokenizer, content, path)
    compiled = unpack_tokenizer(content, path)
    sources = compiled.sources
    settings = _parsed(sources.get(TOKENIZER_CONFIG))
    special = {
        token["content"]: token["id"]
        for token in _parsed(sources.get(TOKENIZER_JSON)).get("added_tokens") or ()
        if token.get("special")
    }
    variables = {
        name: text for name in ("bos_token", "eos_token") if (text := _token(settings.get(name)))
    }
    for name, text in variables.items():
        if (number := _id_of(ids, name)) is not None:
            special.setdefault(text, number)
    variables.setdefault("bos_token", "")
    # Without tokenizer_config.json the model's own settings may say which token ends a text.
    ends = [text for text, number in special.items() if number == ids.eos]
    variables.setdefault("eos_token", ends[0] if ends else "")
    found = ChatFormat(
        template="",
        special_tokens=special,
        variables=variables,
        stop_ids=[],
        adds_blank=_adds_blank(tokenizer, compiled),
    )
    directory = path if tf.io.gfile.isdir(path) else os.path.dirname(path)
    file = os.path.join(directory, CHAT_TEMPLATE_FILE)
    template: Any = settings.get("chat_template")
    if tf.io.gfile.exists(file):
        template = _read_text(file, file)
    if isinstance(template, list):  # several, by name
        named = (entry for entry in template if isinstance(entry, dict))
        template = {entry.get("name"): entry.get("template") for entry in named}.get("default")
    if not isinstance(template, str):
        template = _chatml(found)
    return found.model_copy(update={"template": template})


def _of_sentencepiece(tokenizer: Tokenizer, content: bytes, path: str) -> ChatFormat:
    """Return the format of a SentencePiece model that comes without any other file."""
    ids = tokenizer.control_ids
    if ids == TOKENMILL_CONTROL_IDS:
        return _own_format()
    processor = load_processor(content, path)
    names = {"bos_token": ids.need("bos"), "eos_token": ids.need("eos")}
    variables = {name: processor.id_to_piece(number) for name, number in names.items()}
    found = ChatFormat(
        template="",
        special_tokens={variables[name]: number for name, number in names.items()},
        variables=variables,
        stop_ids=[],
        adds_blank=_adds_blank(tokenizer),
    )
    return found.model_copy(update={"template": _chatml(found)})


def _adds_blank(tokenizer: Tokenizer, compiled: CompiledFile | None = None) -> bool:
    """Tell whether a tokenizer puts a blank before every text."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        return tokenizer.prefix == "always"
    return compiled is not None and compiled.description.prefix == "always"


def _chatml(chat_format: ChatFormat) -> str:
    """Return ChatML; where its end is no token, an answer ends with the end-of-text token."""
    end = CHATML_TOKENS[1]
    has_end = end in chat_format.special_tokens
    return CHATML if has_end else CHATML.replace(end, "{{ eos_token }}")


def _id_of(ids: ControlIds, name: str) -> int | None:
    return getattr(ids, name.removesuffix("_token"))


def _token(value: Any) -> str:
    """Return the text of a token, which tokenizer_config.json gives as text or as an object."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""


def _parsed(content: bytes | None) -> dict[str, Any]:
    return json.loads(content) if content is not None else {}


def _read_text(path: str, origin: str) -> str:
    try:
        with tf.io.gfile.GFile(path, "rb") as source:
            return source.read().decode("utf-8-sig")  # an editor's byte order mark is no text
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        reason = getattr(error, "message", str(error))
        raise TokenmillError(
            f"{origin}: the file cannot be read: {reason}.",
            f'Give a Jinja file in UTF-8, or "{CHATML_NAME}".',
        ) from None


def _stop_ids(chat_format: ChatFormat, origin: str) -> list[int]:
    """Return the token that ends an answer: the first one behind it that is no text.

    Raises:
        TokenmillError: The template is none, or refuses a question and an answer.
    """
    try:
        template = ChatTemplate(
            chat_format.template, chat_format.special_tokens, chat_format.variables
        )
        pieces = template.pieces(_PROBE)
    except TokenmillError as error:
        raise TokenmillError(f"{origin}: {error}") from None
    if not any(piece.is_answer and _PROBE[1]["content"] in piece.text for piece in pieces):
        raise TokenmillError(
            f"{origin}: the chat template does not write what the role {ANSWERING_ROLE!r} says, so "
            "nothing would be learned.",
            f'Take the one that came with the model\'s tokenizer, or "{CHATML_NAME}".',
        )
    ends = [piece.text for piece in pieces if piece.is_special and piece.is_answer]
    return [chat_format.special_tokens[ends[0]]] if ends else []
