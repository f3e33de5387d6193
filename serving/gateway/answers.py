"""Answers of the API: OpenAI's, and vLLM's for what OpenAI has not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from serving.gateway.backend import TokenScore
from serving.gateway.choices import Usage
from serving.gateway.vocabulary import Vocabulary

_LEAST = -9999.0
"""Instead of minus infinity, which JSON lacks; OpenAI's own value for it."""
FinishReason = Literal["stop", "length"]


class _Answer(BaseModel):
    model_config = ConfigDict(protected_namespaces=())


class UsageAnswer(_Answer):
    """Tokens of a request: those of texts, without the tokens that begin and end one."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionLogprobs(_Answer):
    """Log-probabilities of a completion; all lists have one entry for each token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int] = Field(description="Where each begins in `text`, in characters.")


class CompletionChoice(_Answer):
    """A choice of a completion, or what it has more than in the event before."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None


class Completion(_Answer):
    """Answer of POST /v1/completions, and its events."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str = Field(description="Names the version that answered.")
    choices: list[CompletionChoice]
    usage: UsageAnswer | None = None


class TopLogprob(_Answer):
    """A token that could have stood in a place."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """A token of a message."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(_Answer):
    """Log-probabilities of a message."""

    content: list[TokenLogprob]
    refusal: None = None


class ChatMessage(_Answer):
    """A message that was generated."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(_Answer):
    """A choice of a conversation's next message."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatCompletion(_Answer):
    """Answer of POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: UsageAnswer


class ChatDelta(_Answer):
    """What a message has more than in the event before."""

    role: Literal["assistant"] | None = None
    content: str | None = None

    @model_serializer(mode="wrap")
    def _only_what_there_is(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave keys out that have no value, as OpenAI's events do."""
        return {key: value for key, value in handler(self).items() if value is not None}


class ChatChunkChoice(_Answer):
    """A choice in an event."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatChunk(_Answer):
    """Event of a streamed POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: UsageAnswer | None = None


class Embedding(_Answer):
    """Vector of a text."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(_Answer):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(_Answer):
    """Answer of POST /v1/embeddings."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class Model(_Answer):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Number of the version: when it was pushed, in seconds.")
    owned_by: Literal["tokenmill"] = "tokenmill"
    max_model_len: int = Field(
        description="Tokens of prompt and answer together, without the one that begins a text."
    )


class ModelList(_Answer):
    """Answer of GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[Model]


class Tokenized(_Answer):
    """Answer of POST /tokenize."""

    count: int
    max_model_len: int
    tokens: list[int]


class Detokenized(_Answer):
    """Answer of POST /detokenize."""

    prompt: str


class TokenizerInfo(_Answer):
    """Answer of GET /tokenizer_info: texts of control tokens, and the chat template."""

    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None
    chat_template: str | None


class ErrorDetail(_Answer):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(_Answer):
    """Answer to a request that cannot be served."""

    error: ErrorDetail


def usage_answer(usage: Usage) -> UsageAnswer:
    """Return the tokens of a request."""
    return UsageAnswer(
        prompt_tokens=usage.prompt,
        completion_tokens=usage.generated,
        total_tokens=usage.prompt + usage.generated,
    )


def completion_logprobs(
    tokens: Sequence[tuple[int, TokenScore]], vocabulary: Vocabulary
) -> CompletionLogprobs:
    """Return the log-probabilities of a completion's tokens.

    A token itself is always among `top_logprobs`, even if it is none of the likeliest.
    """
    tops: list[dict[str, float] | None] = []
    for _, score in tokens:
        top = {vocabulary.name_of(i): _finite(value) for i, value in score.likeliest}
        if score.log_probability is not None:
            top.setdefault(vocabulary.name_of(score.token_id), _finite(score.log_probability))
        tops.append(top or None)
    return CompletionLogprobs(
        tokens=[vocabulary.name_of(score.token_id) for _, score in tokens],
        token_logprobs=[
            None if score.log_probability is None else _finite(score.log_probability)
            for _, score in tokens
        ],
        top_logprobs=tops,
        text_offset=[begins for begins, _ in tokens],
    )


def chat_logprobs(tokens: Sequence[tuple[int, TokenScore]], vocabulary: Vocabulary) -> ChatLogprobs:
    """Return the log-probabilities of a message's tokens."""

    def named(token_id: int, value: float | None) -> dict:
        return {
            "token": vocabulary.name_of(token_id),
            "logprob": _finite(_LEAST if value is None else value),
            "bytes": list(vocabulary.bytes_of(token_id)) or None,
        }

    return ChatLogprobs(
        content=[
            TokenLogprob(
                **named(score.token_id, score.log_probability),
                top_logprobs=[TopLogprob(**named(i, value)) for i, value in score.likeliest],
            )
            for _, score in tokens
        ]
    )


def _finite(value: float) -> float:
    return max(value, _LEAST)
