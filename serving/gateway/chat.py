"""POST /v1/chat/completions: the next message of a conversation, by the model's own template."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from serving.gateway.answers import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    chat_logprobs,
    usage_answer,
)
from serving.gateway.backend import HeldVersion
from serving.gateway.calls import Call, fingerprint, need
from serving.gateway.choices import Choice, Delta, sampling_config, whole_answers, with_seed_of
from serving.gateway.completions import check_count, check_stream_options, room_for
from serving.gateway.errors import FieldError
from serving.gateway.requests import ChatRequest
from serving.gateway.vocabulary import Vocabulary, vocabulary_of
from tokenmill.contracts.chat import ChatFormat
from tokenmill.errors import TokenmillError
from tokenmill.text.chat import chat_of


async def chat_completions(
    call: Call[ChatRequest],
) -> AsyncGenerator[ChatCompletion | ChatChunk, None]:
    """Answer a request: with one whole answer, or with one for each event of a stream."""
    body = call.body
    call.check_model(body.model)
    _check_combination(body)
    async with call.backend.hold(call.user_key) as held:
        call.holds(held)
        need(held, "decode_ids", "continue texts")
        chat_format = held.chat_format
        if chat_format is None:
            raise FieldError(
                "model",
                f"version {held.version} of this model was not trained on conversations: it has "
                "no chat template; use /v1/completions",
                "model_not_supported",
            )
        vocabulary = await call.within(vocabulary_of(held))
        ids = await _prompt(call, held, chat_format)
        choices = _choices(body, held, chat_format, ids)
        call.usage.prompt = len(ids)
        async with contextlib.aclosing(call.run(held, vocabulary, choices)) as deltas:
            if not body.stream:
                answers = await whole_answers(deltas, len(choices))
                yield ChatCompletion(
                    id=f"chatcmpl-{call.id}",
                    created=call.created,
                    model=body.model,
                    system_fingerprint=fingerprint(held),
                    choices=[
                        ChatChoice(
                            index=i,
                            message=ChatMessage(content=answer.text),
                            logprobs=_logprobs(body, answer.tokens, vocabulary),
                            finish_reason=answer.finish_reason,
                        )
                        for i, answer in enumerate(answers)
                    ],
                    usage=usage_answer(call.usage),
                )
                return
            begun: set[int] = set()
            async for delta in deltas:
                if delta.index not in begun:  # the role comes first, by itself
                    begun.add(delta.index)
                    role = Delta(delta.index, "", [])
                    yield _chunk(call, held, vocabulary, role, begins=True)
                if delta.text or delta.tokens or delta.finish_reason:
                    yield _chunk(call, held, vocabulary, delta)
        if body.includes_usage:
            yield _chunk(call, held, vocabulary, None)


def _check_combination(body: ChatRequest) -> None:
    """Refuse what does not go together."""
    both = (body.max_tokens, body.max_completion_tokens)
    if None not in both and both[0] != both[1]:
        raise FieldError("max_tokens", "max_tokens and max_completion_tokens differ; give one")
    if body.top_logprobs is not None and not body.logprobs:
        raise FieldError("top_logprobs", "top_logprobs needs logprobs = true")
    check_stream_options(body)


async def _prompt(call: Call[ChatRequest], held: HeldVersion, chat_format: ChatFormat) -> list[int]:
    """Return the ids of the conversation."""
    messages = [{"role": m.role, "content": m.text} for m in call.body.messages]
    call.texts = [message["content"] for message in messages]
    try:
        prompt = chat_of(chat_format.model_dump_json()).prompt(messages)
    except TokenmillError as error:
        raise FieldError("messages", f"messages: {error}"[:400]) from None
    return await call.within(held.chat_ids(prompt))


def _choices(
    body: ChatRequest, held: HeldVersion, chat_format: ChatFormat, ids: list[int]
) -> list[Choice]:
    n = body.n or 1
    check_count(n, 1, held)
    wanted = body.max_tokens or body.max_completion_tokens
    new = room_for(held, len(ids), wanted, None, "messages")
    likeliest = (body.top_logprobs or 0) if body.logprobs else None
    sampling = sampling_config(body, new, likeliest)
    return [
        Choice(
            number,
            ids,
            with_seed_of(sampling, number),
            body.stops,
            chat_format.stop_ids,
            likeliest=likeliest,
            # After a token of the template the tokenizer puts a blank, as where a text begins.
            begins_text=True,
        )
        for number in range(n)
    ]


def _logprobs(body: ChatRequest, tokens: list, vocabulary: Vocabulary) -> ChatLogprobs | None:
    return chat_logprobs(tokens, vocabulary) if body.logprobs else None


def _chunk(
    call: Call[ChatRequest],
    held: HeldVersion,
    vocabulary: Vocabulary,
    delta: Delta | None,
    begins: bool = False,
) -> ChatChunk:
    """Return an event: of a choice, or, without one, of the usage."""
    choices = []
    if delta is not None:
        content = (
            ChatDelta(role="assistant", content="")
            if begins
            else ChatDelta(content=delta.text or None)
        )
        logprobs = _logprobs(call.body, delta.tokens, vocabulary) if delta.tokens else None
        choices = [
            ChatChunkChoice(
                index=delta.index,
                delta=content,
                logprobs=logprobs,
                finish_reason=delta.finish_reason,
            )
        ]
    return ChatChunk(
        id=f"chatcmpl-{call.id}",
        created=call.created,
        model=call.body.model,
        system_fingerprint=fingerprint(held),
        choices=choices,
        usage=usage_answer(call.usage) if delta is None else None,
    )
