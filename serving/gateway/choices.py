"""Choices of a request: all of its texts are continued at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from serving.gateway.backend import HeldVersion, SamplingConfig, TokenScore
from serving.gateway.requests import Sampling
from serving.gateway.text_stream import TextPiece, TextStream
from serving.gateway.vocabulary import Vocabulary
from serving.server.errors import Code, RequestError

_SEEDS = 2**32
# Below these the likeliest token is what is drawn, and float32 ends: in a batch that would be the
# error of all.
_LEAST_TEMPERATURE, _LEAST_TOP_P = 1e-6, 1e-6
Item = TypeVar("Item")


@dataclass(frozen=True)
class Choice:
    """A text that is continued, or only scored.

    Attributes:
        index: Its number in the answer.
        prompt: Ids, begin included.
        sampling: How it is continued; None if it is not.
        stops: Strings that end the answer.
        stop_ids: Tokens that end it, beside the end of a text.
        echoed: How many of the prompt's last ids the answer begins with.
        likeliest: How many likeliest tokens to name beside each token; None tells no
            log-probabilities.
        begins_text: Whether what is shown begins a text, so that the tokenizer's own blank is left
            out.
    """

    index: int
    prompt: list[int]
    sampling: SamplingConfig | None
    stops: Sequence[str] = ()
    stop_ids: Sequence[int] = ()
    echoed: int = 0
    likeliest: int | None = None
    begins_text: bool = False


@dataclass(frozen=True)
class Delta:
    """What an answer has more than before.

    Attributes:
        index: Number of the choice.
        text: Its text; may be empty.
        tokens: Tokens that begin in it, and where, in characters of the whole answer.
        finish_reason: "stop" or "length" at its end.
    """

    index: int
    text: str
    tokens: list[tuple[int, TokenScore]]
    finish_reason: str | None = None


@dataclass
class Usage:
    """Tokens of a request, counted as they are made.

    Attributes:
        prompt: Of the prompts, without the token that begins a text.
        generated: Of the answers, without the token that ends one.
    """

    prompt: int = 0
    generated: int = 0


@dataclass
class Answer:
    """A whole choice, put together of its deltas."""

    text: str = ""
    tokens: list[tuple[int, TokenScore]] = field(default_factory=list)
    finish_reason: str | None = None

    def add(self, delta: Delta) -> None:
        """Take a delta."""
        self.text += delta.text
        self.tokens += delta.tokens
        self.finish_reason = delta.finish_reason or self.finish_reason


def sampling_config(body: Sampling, max_new_tokens: int, likeliest: int | None) -> SamplingConfig:
    """Return how a request wants answers to be sampled; without a seed, by one that is drawn."""

    def given(value: float | None, default: float) -> float:
        return default if value is None else value

    temperature = given(body.temperature, 1.0)
    return SamplingConfig(
        max_new_tokens,
        temperature=0.0 if temperature < _LEAST_TEMPERATURE else temperature,
        top_k=max(body.top_k or 0, 0),
        top_p=max(given(body.top_p, 1.0), _LEAST_TOP_P),
        seed=_int32(secrets.randbits(32) if body.seed is None else body.seed),
        presence_penalty=given(body.presence_penalty, 0.0),
        frequency_penalty=given(body.frequency_penalty, 0.0),
        repetition_penalty=given(body.repetition_penalty, 1.0),
        likeliest=likeliest,
    )


def with_seed_of(sampling: SamplingConfig, number: int) -> SamplingConfig:
    """Return the settings of the choice of this number of a prompt; 0 has the request's seed."""
    return replace(sampling, seed=_int32(sampling.seed + number))


def _int32(value: int) -> int:
    return (value + _SEEDS // 2) % _SEEDS - _SEEDS // 2


async def run_choice(
    held: HeldVersion, vocabulary: Vocabulary, choice: Choice, usage: Usage
) -> AsyncGenerator[Delta, None]:
    """Continue a text.

    Args:
        held: The version.
        vocabulary: Of the version.
        choice: The text.
        usage: Counts what is generated.
    """
    stream: TextStream[TokenScore] = TextStream(
        choice.stops, vocabulary.adds_blank and choice.begins_text
    )

    def delta(piece: TextPiece[TokenScore], reason: str | None = None) -> Delta:
        tokens = piece.tokens if choice.likeliest is not None else []
        return Delta(choice.index, piece.text, tokens, reason)

    if choice.echoed:
        pieces = [
            stream.push(vocabulary.bytes_of(score.token_id), score, may_stop=False)
            for score in await _echoed_scores(held, choice)
        ]
        tokens = [token for piece in pieces for token in piece.tokens]
        yield delta(TextPiece("".join(piece.text for piece in pieces), tokens))
    if choice.sampling is None:
        yield delta(stream.finish(), "length")
        return
    generated = held.generate(choice.prompt, choice.sampling, choice.stop_ids)
    async with contextlib.aclosing(generated):
        async for token in generated:
            ends_text = token.finish_reason == "stop"
            usage.generated += not ends_text
            shown = b"" if ends_text else vocabulary.bytes_of(token.score.token_id)
            piece = stream.push(shown, token.score)
            if stream.stopped:
                yield delta(piece, "stop")
                return
            if token.finish_reason is None:
                yield delta(piece)
                continue
            rest = stream.finish()
            both = TextPiece(piece.text + rest.text, piece.tokens + rest.tokens)
            yield delta(both, "stop" if stream.stopped else token.finish_reason)
            return


async def _echoed_scores(held: HeldVersion, choice: Choice) -> list[TokenScore]:
    """Score the part of a prompt that is shown; its first token has no log-probability."""
    shown = choice.prompt[len(choice.prompt) - choice.echoed :]
    if choice.likeliest is None or len(shown) == 1:
        return [TokenScore(i) for i in shown]
    scores = await held.log_probabilities(choice.prompt, choice.likeliest)
    return [TokenScore(shown[0]), *scores[len(scores) - len(shown) + 1 :]]


async def interleave(
    sources: Sequence[AsyncGenerator[Item, None]], at_once: int, seconds: float
) -> AsyncGenerator[Item, None]:
    """Yield the items of several generators as they come.

    When this generator is closed, by its end, an error or its reader, so are all of them.

    Args:
        sources: The generators.
        at_once: How many run at the same time; the others begin as these end.
        seconds: How long to wait for the next item of any.

    Raises:
        RequestError: None came in time, or what a source raises.
    """
    items: asyncio.Queue[_Item[Item]] = asyncio.Queue()
    left = iter(sources)

    async def pump() -> None:
        for source in left:
            async with contextlib.aclosing(source):
                async for item in source:
                    items.put_nowait(_Item(item))

    def ended(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        items.put_nowait(_Item(None, error, is_end=True))

    late = RequestError(Code.DEADLINE_EXCEEDED, f"no token came within {seconds:g} seconds")
    loop = asyncio.get_running_loop()
    pumps = [asyncio.ensure_future(pump()) for _ in range(min(at_once, len(sources)))]
    for task in pumps:
        task.add_done_callback(ended)
    running = len(pumps)
    try:
        while running:
            too_late: _Item[Item] = _Item(None, late)
            timer = loop.call_later(seconds, items.put_nowait, too_late)
            try:
                found = await items.get()
            finally:
                timer.cancel()
            if found.error is late and found is not too_late:
                continue  # it met an item that had come in time
            if found.error is not None:
                raise found.error
            if found.is_end:
                running -= 1
            elif found.value is not None:
                yield found.value
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for source in left:
            await source.aclose()


@dataclass(frozen=True)
class _Item(Generic[Item]):
    value: Item | None
    error: BaseException | None = None
    is_end: bool = False


async def whole_answers(deltas: AsyncIterator[Delta], count: int) -> list[Answer]:
    """Put all choices of a request together."""
    answers = [Answer() for _ in range(count)]
    async for delta in deltas:
        answers[delta.index].add(delta)
    return answers
