"""What the gateway asks of a model, wherever the model runs: in this process or behind gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tokenmill.contracts.chat import ChatFormat
from tokenmill.text.control_ids import ControlIds


@dataclass(frozen=True)
class SamplingConfig:
    """How one text is continued.

    Attributes:
        max_new_tokens: At least 1.
        temperature: 0 takes the likeliest token.
        top_k: Only the k likeliest tokens; 0 takes all.
        top_p: Only the fewest likeliest tokens that together have this probability.
        seed: int32; the same seed gives the same tokens, whoever else is served.
        presence_penalty: Taken from the logit of every token that was generated before.
        frequency_penalty: Taken as often as the token was generated before.
        repetition_penalty: Divides the positive and multiplies the negative logits of tokens of
            prompt and answer (Keskar et al. 2019, section 4.1); 1 changes nothing.
        likeliest: How many likeliest tokens to name beside each chosen one; None computes no
            log-probabilities.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    likeliest: int | None = None


@dataclass(frozen=True)
class TokenScore:
    """Log-probability of a token, given what stands before it.

    Attributes:
        token_id: The token.
        log_probability: Natural logarithm, of the model itself (temperature 1, no penalties); None
            where nothing stands before it, or where none was asked for.
        likeliest: The likeliest tokens in its place and their log-probabilities, best first.
    """

    token_id: int
    log_probability: float | None = None
    likeliest: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class GeneratedToken:
    """A token of an answer, or its end.

    Attributes:
        score: The token; at the end by a stop token, that token, which is no part of the answer.
        finish_reason: None while the answer goes on; "stop": `score` is the token that ends it;
            "length": `score` is the last token of the answer.
    """

    score: TokenScore
    finish_reason: Literal["stop", "length"] | None = None


class HeldVersion(Protocol):
    """A version of a model, held for one request.

    Attributes:
        version: Its number.
        context_length: Tokens of prompt (its begin included) and answer together.
        control_ids: Of its tokenizer.
        token_bytes: What each id stands for, UTF-8; None for control tokens.
        chat_format: Of a model of conversations.
        signatures: Names of its signatures.
        max_texts: How many texts of a whole context its memory for keys and values holds at once.
    """

    version: int
    context_length: int
    control_ids: ControlIds
    token_bytes: Sequence[bytes | None]
    chat_format: ChatFormat | None
    signatures: frozenset[str]
    max_texts: int

    async def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of texts, without begin and end."""

    async def chat_ids(self, prompt: str) -> list[int]:
        """Return the ids of a conversation as tokenmill.text.chat.Chat.prompt writes it."""

    def generate(
        self, prompt: Sequence[int], sampling: SamplingConfig, stop_ids: Sequence[int] = ()
    ) -> AsyncGenerator[GeneratedToken, None]:
        """Continue a prompt, a token at a time; closing the generator frees its place.

        Args:
            prompt: Ids, begin included where the model wants one; at least one.
            sampling: len(prompt) + max_new_tokens is at most context_length.
            stop_ids: What ends an answer beside the end of a text.

        Raises:
            RequestError: There is no room, now (RESOURCE_EXHAUSTED) or ever (INVALID_ARGUMENT).
        """

    async def log_probabilities(self, ids: Sequence[int], likeliest: int) -> list[TokenScore]:
        """Score each id of a text, the first without a log-probability as nothing precedes it."""

    async def embed(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the vector of each text of ids, which have neither begin nor end."""


class Backend(Protocol):
    """Versions of a model.

    Attributes:
        model_name: By which requests name the model.
    """

    model_name: str

    def hold(self, user_key: str | None) -> contextlib.AbstractAsyncContextManager[HeldVersion]:
        """Hold the version that serves a user until the context ends.

        Raises:
            RequestError: None is served.
        """
