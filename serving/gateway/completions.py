"""POST /v1/completions: texts are continued, or scored (echo with logprobs)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from serving.gateway.answers import (
    Completion,
    CompletionChoice,
    completion_logprobs,
    usage_answer,
)
from serving.gateway.backend import HeldVersion
from serving.gateway.calls import Call, check_end, check_ids, fingerprint, max_model_len, need
from serving.gateway.choices import Choice, Delta, sampling_config, whole_answers, with_seed_of
from serving.gateway.errors import FieldError
from serving.gateway.requests import (
    DEFAULT_MAX_TOKENS,
    MOST_TEXTS,
    CompletionRequest,
    Sampling,
    Texts,
)
from serving.gateway.vocabulary import Vocabulary, vocabulary_of


@dataclass(frozen=True)
class Prompt:
    """A prompt.

    Attributes:
        ids: What was sent.
        begun: The same, with the token that begins a text where one is wanted.
    """

    ids: list[int]
    begun: list[int]


async def completions(call: Call[CompletionRequest]) -> AsyncGenerator[Completion, None]:
    """Answer a request: with one whole answer, or with one for each event of a stream."""
    body = call.body
    call.check_model(body.model)
    _check_combination(body)
    async with call.backend.hold(call.user_key) as held:
        call.holds(held)
        need(held, "decode_ids", "continue texts")
        vocabulary = await call.within(vocabulary_of(held))
        prompts = [
            Prompt(ids, ids if body.add_special_tokens is False else vocabulary.with_begin(ids))
            for ids in await ids_of(call, held, "prompt", body.prompt)
        ]
        choices = _choices(body, held, vocabulary, prompts)
        bos = held.control_ids.bos
        call.usage.prompt = sum(len(p.ids) - (p.ids[:1] == [bos]) for p in prompts)
        async with contextlib.aclosing(call.run(held, vocabulary, choices)) as deltas:
            if not body.stream:
                answers = await whole_answers(deltas, len(choices))
                whole = [
                    Delta(i, answer.text, answer.tokens, answer.finish_reason)
                    for i, answer in enumerate(answers)
                ]
                yield _completion(call, held, vocabulary, whole, with_usage=True)
                return
            async for delta in deltas:
                if delta.text or delta.tokens or delta.finish_reason:
                    yield _completion(call, held, vocabulary, [delta])
        if body.includes_usage:
            yield _completion(call, held, vocabulary, [], with_usage=True)


async def ids_of(call: Call, held: HeldVersion, name: str, texts: Texts) -> list[list[int]]:
    """Return the ids of what a request has as text, texts, ids or lists of ids.

    Args:
        call: The request.
        held: The version.
        name: Of the field.
        texts: Its value.

    Raises:
        RequestError: An id is none of the vocabulary.
    """
    given = [texts] if isinstance(texts, str) or isinstance(texts[0], int) else texts
    if isinstance(given[0], str):
        call.texts = [str(text) for text in given]
        return await call.within(held.tokenize(call.texts))
    lists: list[list[int]] = [ids for ids in given if isinstance(ids, list)]
    for ids in lists:
        check_ids(name, ids, held)
    return lists


def _check_combination(body: CompletionRequest) -> None:
    """Refuse what does not go together."""
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise FieldError(
            "best_of", f"best_of = {body.best_of}: only the value of n is supported",
            "unsupported_parameter",
        )  # fmt: skip
    if body.max_tokens == 0 and not body.echo:
        raise FieldError("max_tokens", "max_tokens = 0 needs echo: there would be no answer")
    check_stream_options(body)


def check_stream_options(body: Sampling) -> None:
    """Refuse options of a stream where none is asked for."""
    if body.stream_options is not None and not body.stream:
        raise FieldError("stream_options", "stream_options needs stream")


def _choices(
    body: CompletionRequest,
    held: HeldVersion,
    vocabulary: Vocabulary,
    prompts: Sequence[Prompt],
) -> list[Choice]:
    n = body.n or 1
    check_count(n, len(prompts), held)
    choices: list[Choice] = []
    for prompt in prompts:
        if not prompt.begun:
            raise FieldError(
                "prompt", "prompt: empty without the token that begins a text; set "
                "add_special_tokens or send one token at least",
            )  # fmt: skip
        check_end("prompt", prompt.begun, held)
        echoed = len(prompt.ids) if body.echo else 0
        begins_text = bool(body.echo) or prompt.begun == [held.control_ids.bos]
        new = room_for(held, len(prompt.begun), body.max_tokens, DEFAULT_MAX_TOKENS, "prompt")
        sampling = sampling_config(body, new, body.logprobs) if new else None
        choices += [
            Choice(
                len(choices) + number,
                prompt.begun,
                with_seed_of(sampling, number) if sampling else None,
                body.stops,
                (),
                echoed,
                body.logprobs,
                begins_text,
            )
            for number in range(n)
        ]
    return choices


def check_count(n: int, prompts: int, held: HeldVersion) -> None:
    """Bound the choices of a request.

    Raises:
        RequestError: They are too many; the message says how many may be.
    """
    at_once = max(1, held.max_texts)  # one may fit, too, where a whole context does not
    if n > at_once:
        raise FieldError(
            "n",
            f"n = {n}: this server continues {at_once} texts at once, as --max-streams and "
            "--kv-cache-bytes allow; ask for fewer, or raise these",
        )
    if n * prompts > MOST_TEXTS:
        raise FieldError("n", f"n = {n}: {prompts} prompts may have {MOST_TEXTS} choices together")


def room_for(
    held: HeldVersion, prompt: int, wanted: int | None, default: int | None, field: str
) -> int:
    """Return how many tokens an answer may have.

    Args:
        held: The version.
        prompt: Tokens of the prompt, begin included.
        wanted: What the request asks for.
        default: What it gets if it asks for nothing and the context has room; None for all of it.
        field: Of the prompt, for the message.

    Raises:
        RequestError: The context has no room for it.
    """
    left = held.context_length - prompt
    if wanted is None:
        wanted = max(1, left if default is None else min(default, left))
    if wanted > left:
        raise FieldError(
            field,
            f"this model's context has {max_model_len(held)} tokens; {prompt} of the prompt, with "
            f"those that begin it, and {wanted} of the answer are more; shorten one of them",
            "context_length_exceeded",
        )
    return wanted


def _completion(
    call: Call[CompletionRequest],
    held: HeldVersion,
    vocabulary: Vocabulary,
    deltas: Sequence[Delta],
    with_usage: bool = False,
) -> Completion:
    logged = call.body.logprobs is not None
    return Completion(
        id=f"cmpl-{call.id}",
        created=call.created,
        model=call.body.model,
        system_fingerprint=fingerprint(held),
        choices=[
            CompletionChoice(
                index=delta.index,
                text=delta.text,
                logprobs=completion_logprobs(delta.tokens, vocabulary) if logged else None,
                finish_reason=delta.finish_reason,
            )
            for delta in deltas
        ],
        usage=usage_answer(call.usage) if with_usage else None,
    )
