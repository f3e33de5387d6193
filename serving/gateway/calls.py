"""A request while it is served: what its handler is given, and what is counted of it."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pydantic import BaseModel

from serving.gateway.backend import Backend, HeldVersion
from serving.gateway.choices import Choice, Delta, Usage, interleave, run_choice
from serving.gateway.errors import FieldError, unknown_model
from serving.gateway.requests import Body, Ids
from serving.gateway.vocabulary import Vocabulary
from serving.server.config import ServerConfig
from serving.server.waiting import wait_within

_MOST_LOGPROBS = 1_000_000
"""Log-probabilities in an answer, those of likeliest tokens too: some 50 MB."""
AnyBody = TypeVar("AnyBody", bound=Body, covariant=True)
AnyAnswer = TypeVar("AnyAnswer", bound=BaseModel)
Value = TypeVar("Value")


@dataclass
class Call(Generic[AnyBody]):
    """A request to a model.

    Attributes:
        backend: The model.
        config: Options of the server.
        body: What was asked.
        user_key: Decides who serves the user in a rollout.
        deadline: By when the first token must have come, seconds of `time.monotonic`.
        usage: Counted by the handler.
        version: The version that serves it, once it is held.
        texts: Texts that were sent, for the request log.
    """

    backend: Backend
    config: ServerConfig
    body: AnyBody
    user_key: str | None
    deadline: float
    usage: Usage = field(default_factory=Usage)
    version: int | None = None
    texts: Sequence[str] = ()
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def check_model(self, name: str | None) -> None:
        """Compare the name that a request gives, if it does.

        Raises:
            RequestError: It is another model's.
        """
        if name is not None and name != self.backend.model_name:
            raise unknown_model(name, self.backend.model_name)

    def holds(self, held: HeldVersion) -> None:
        """Note which version serves the request."""
        self.version = held.version

    async def within(self, work: Awaitable[Value]) -> Value:
        """Wait for something, at most until the deadline.

        Raises:
            RequestError: It has passed.
        """
        return await wait_within(work, self.deadline - time.monotonic(), "the deadline has passed")

    def run(
        self, held: HeldVersion, vocabulary: Vocabulary, choices: Sequence[Choice]
    ) -> AsyncGenerator[Delta, None]:
        """Continue all texts; the deltas come as they are made.

        Raises:
            RequestError: The answer would be too large.
        """
        logged = sum(
            (choice.echoed + (choice.sampling.max_new_tokens if choice.sampling else 0))
            * (1 + choice.likeliest)
            for choice in choices
            if choice.likeliest is not None
        )
        if logged > _MOST_LOGPROBS:
            raise FieldError(
                "logprobs",
                f"the answer could have {logged:,} log-probabilities, at most "
                f"{_MOST_LOGPROBS:,} are served; send fewer prompts at once",
            )
        sources = [run_choice(held, vocabulary, choice, self.usage) for choice in choices]
        # Not more than fit into memory together: those of one request would wait for each other.
        at_once = max(1, min(held.max_texts, self.config.max_queued_rows))
        return interleave(sources, at_once, max(0.0, self.deadline - time.monotonic()))


def check_ids(name: str, ids: Ids, held: HeldVersion) -> None:
    """Compare token ids of a request with the vocabulary.

    Raises:
        RequestError: One is none of it.
    """
    known = len(held.token_bytes)
    wrong = next((i for i in ids if i >= known), None)
    if wrong is not None:
        raise FieldError(name, f"{name}: token {wrong} is none of the vocabulary's {known:,}")


def check_end(name: str, ids: Ids, held: HeldVersion) -> None:
    """Look whether ids end with a token, not with what fills arrays of ids up.

    Raises:
        RequestError: They end with padding, which a model does not tell from its own.
    """
    if ids[-1:] == [held.control_ids.padding]:
        raise FieldError(name, f"{name}: ends with {ids[-1]}, the token of padding; leave it out")


def need(held: HeldVersion, signature: str, what: str) -> None:
    """Look whether a version has what a request needs.

    Raises:
        RequestError: It has not.
    """
    if signature not in held.signatures:
        raise FieldError(
            "model",
            f"version {held.version} of this model cannot {what}: it has no signature {signature}",
            "model_not_supported",
        )


def fingerprint(held: HeldVersion) -> str:
    """Return what names a version in answers."""
    return f"tokenmill-{held.version}"


def max_model_len(held: HeldVersion) -> int:
    """Return how many tokens prompt and answer may have, without the begin of the text."""
    return held.context_length - (held.control_ids.bos is not None)
