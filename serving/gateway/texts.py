"""What takes texts and generates none: /v1/embeddings, /tokenize, /detokenize, /tokenizer_info."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator

import numpy as np

from serving.gateway.answers import (
    Detokenized,
    Embedding,
    Embeddings,
    EmbeddingUsage,
    Model,
    Tokenized,
    TokenizerInfo,
)
from serving.gateway.calls import Call, check_end, check_ids, max_model_len, need
from serving.gateway.completions import ids_of
from serving.gateway.errors import FieldError
from serving.gateway.requests import Body, DetokenizeRequest, EmbeddingRequest, TokenizeRequest
from serving.gateway.vocabulary import vocabulary_of


async def embeddings(call: Call[EmbeddingRequest]) -> AsyncGenerator[Embeddings, None]:
    """Return the vectors of texts."""
    body = call.body
    call.check_model(body.model)
    async with call.backend.hold(call.user_key) as held:
        call.holds(held)
        need(held, "embed_ids", "embed texts")
        texts = await ids_of(call, held, "input", body.input)
        frame = 1 if "decode_ids" in held.signatures else 2  # begin; or CLS and SEP
        for number, ids in enumerate(texts):
            check_end("input", ids, held)
            if len(ids) + frame > held.context_length:
                raise FieldError(
                    "input",
                    f"input {number} has {len(ids)} tokens, more than the "
                    f"{held.context_length - frame} that are read; shorten it",
                    "context_length_exceeded",
                )
        at_once = call.config.max_batch_size
        vectors: list[list[float]] = []
        for start in range(0, len(texts), at_once):
            vectors += await call.within(held.embed(texts[start : start + at_once]))
        call.usage.prompt = sum(map(len, texts))
        encode = _base64 if body.encoding_format == "base64" else list
        yield Embeddings(
            data=[Embedding(index=i, embedding=encode(v)) for i, v in enumerate(vectors)],
            model=body.model,
            usage=EmbeddingUsage(prompt_tokens=call.usage.prompt, total_tokens=call.usage.prompt),
        )


def _base64(vector: list[float]) -> str:
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode("ascii")


async def tokenize(call: Call[TokenizeRequest]) -> AsyncGenerator[Tokenized, None]:
    """Return the token ids of a text."""
    body = call.body
    call.check_model(body.model)
    async with call.backend.hold(call.user_key) as held:
        call.holds(held)
        vocabulary = await call.within(vocabulary_of(held))
        call.texts = [body.prompt]
        control = vocabulary.control_id(body.prompt)
        ids = [control] if control is not None else None
        if ids is None:
            (ids,) = await call.within(held.tokenize([body.prompt]))
            if body.add_special_tokens is not False:
                ids = vocabulary.with_begin(ids)
        yield Tokenized(count=len(ids), max_model_len=max_model_len(held), tokens=ids)


async def detokenize(call: Call[DetokenizeRequest]) -> AsyncGenerator[Detokenized, None]:
    """Return the text of token ids."""
    call.check_model(call.body.model)
    async with call.backend.hold(call.user_key) as held:
        call.holds(held)
        check_ids("tokens", call.body.tokens, held)
        vocabulary = await call.within(vocabulary_of(held))
        yield Detokenized(prompt=vocabulary.text_of(call.body.tokens))


async def tokenizer_info(call: Call[Body]) -> AsyncGenerator[TokenizerInfo, None]:
    """Return the texts of the control tokens, and the chat template."""
    async with call.backend.hold(call.user_key) as held:
        call.holds(held)
        texts = (await call.within(vocabulary_of(held))).control_texts
        yield TokenizerInfo(
            bos_token=texts.get("bos"),
            eos_token=texts.get("eos"),
            pad_token=texts.get("pad"),
            unk_token=texts.get("unk"),
            chat_template=None if held.chat_format is None else held.chat_format.template,
        )


async def model(call: Call[Body]) -> AsyncGenerator[Model, None]:
    """Describe the model."""
    async with call.backend.hold(call.user_key) as held:
        call.holds(held)
        yield Model(
            id=call.backend.model_name,
            created=held.version,
            max_model_len=max_model_len(held),
        )
