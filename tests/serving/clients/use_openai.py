"""Calls every endpoint by the `openai` package; prints what came as one JSON.

Run by the package's own environment: python use_openai.py URL CHAT_URL
"""

import asyncio
import json
import sys

import openai

PROMPT = {"model": "default", "prompt": ["Returns the", "A layer"], "max_tokens": 8}
SAMPLED = {"temperature": 0.8, "seed": 3, "n": 2, "logprobs": 2, "extra_body": {"top_k": 50}}
CHAT = {
    "model": "default",
    "messages": [{"role": "user", "content": "Hi"}],
    "max_completion_tokens": 8,
    "temperature": 0.8,
    "seed": 3,
    "logprobs": True,
    "top_logprobs": 2,
}


def error_of(call):
    try:
        call()
    except openai.APIStatusError as error:
        return [type(error).__name__, error.param, error.code]
    return None


def use_sync(url, chat_url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    chat = openai.OpenAI(base_url=f"{chat_url}/v1", api_key="none", max_retries=0)
    whole = client.completions.create(**PROMPT, **SAMPLED)
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    texts, last = [""] * 4, None
    for event in client.completions.create(**PROMPT, **SAMPLED, **usage):
        for choice in event.choices:
            texts[choice.index] += choice.text
        last = event.usage
    message = chat.chat.completions.create(**CHAT)
    content, chat_usage = "", None
    for event in chat.chat.completions.create(**CHAT, **usage):
        content += "".join(choice.delta.content or "" for choice in event.choices)
        chat_usage = event.usage
    floats = client.embeddings.create(model="default", input="a", encoding_format="float")
    packed = client.embeddings.create(model="default", input="a")  # the package asks for base64
    return {
        "models": [model.id for model in client.models.list()],
        "texts": [choice.text for choice in whole.choices],
        "streamed": texts,
        "usage": [whole.usage.model_dump(exclude_none=True), last.model_dump(exclude_none=True)],
        "logged": [len(choice.logprobs.tokens) for choice in whole.choices],
        "message": message.choices[0].message.content,
        "content": content,
        "chat_usage": [
            message.usage.model_dump(exclude_none=True),
            chat_usage.model_dump(exclude_none=True),
        ],
        "chat_logged": [len(t.top_logprobs) for t in message.choices[0].logprobs.content],
        "embeddings": [floats.data[0].embedding, packed.data[0].embedding],
        "errors": {
            "model": error_of(lambda: client.completions.create(model="x", prompt="a")),
            "tools": error_of(
                lambda: chat.chat.completions.create(
                    **CHAT, tools=[{"type": "function", "function": {"name": "f"}}]
                )
            ),
            "context": error_of(
                lambda: client.completions.create(model="default", prompt="a" * 500)
            ),
            "dimensions": error_of(
                lambda: client.embeddings.create(model="default", input="a", dimensions=3)
            ),
        },
    }


async def use_async(url, chat_url):
    async with (
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
        openai.AsyncOpenAI(base_url=f"{chat_url}/v1", api_key="none", max_retries=0) as chat,
    ):
        whole, vectors, models = await asyncio.gather(
            client.completions.create(**PROMPT, **SAMPLED),
            client.embeddings.create(model="default", input=["a", "b"]),
            client.models.list(),
        )

        async def stream():
            content = ""
            async for event in await chat.chat.completions.create(**CHAT, stream=True):
                content += "".join(choice.delta.content or "" for choice in event.choices)
            return content

        contents = await asyncio.gather(*(stream() for _ in range(5)))
        # A client that stops reading: the package closes the connection.
        broken = await chat.chat.completions.create(
            **CHAT | {"max_completion_tokens": 900}, stream=True
        )
        await broken.__anext__()
        await broken.close()
        return {
            "texts": [choice.text for choice in whole.choices],
            "contents": sorted(set(contents)),
            "vectors": len(vectors.data),
            "models": [model.id for model in models.data],
        }


print(json.dumps({"sync": use_sync(*sys.argv[1:]), "async": asyncio.run(use_async(*sys.argv[1:]))}))
