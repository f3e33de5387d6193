"""Bodies of requests: OpenAI's, of what is served here, and what they may hold.

A key that this server does not know, or knows and cannot serve, is refused by its name: left out
in silence it would change the answer. `null` is as if a known key were absent.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.gateway.errors import FieldError
from serving.server.errors import Code, RequestError

MOST_TEXTS = 2048
"""Prompts or texts of a request; a model's memory may bound them further."""
MOST_CHOICES = 128
MOST_STOPS = 16
MOST_STOP_CHARACTERS = 1000
"""In a stop string: each answer compares its text with all of them."""
MOST_LIKELIEST = 20
DEFAULT_MAX_TOKENS = 16
"""Of /v1/completions, as OpenAI's."""

_INT32 = 2**31
_MOST_TOKENS = _INT32 - 1

# A list ends at its first error: to describe 300,000 of them holds all other clients up.
Ids = Annotated[list[Annotated[int, Field(ge=0, lt=_INT32)]], Field(fail_fast=True)]
Texts = (
    str
    | Annotated[list[str], Field(min_length=1, max_length=MOST_TEXTS, fail_fast=True)]
    | Annotated[Ids, Field(min_length=1)]
    | Annotated[
        list[Annotated[Ids, Field(min_length=1)]],
        Field(min_length=1, max_length=MOST_TEXTS, fail_fast=True),
    ]
)
_TEXTS = f"expected a text, up to {MOST_TEXTS:,} texts, token ids, or up to as many lists of them"
Stop = Annotated[str, Field(min_length=1, max_length=MOST_STOP_CHARACTERS)]
Stops = Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS, fail_fast=True)]


def _field(meaning: str, default: Any = None, **bounds: Any) -> Any:
    return Field(default, description=meaning, **bounds)


class Body(BaseModel):
    """Body of a request."""

    model_config = ConfigDict(
        extra="forbid", strict=True, protected_namespaces=(), allow_inf_nan=False
    )

    unserved: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """Keys of OpenAI's API or vLLM's that are not served here, and the values, beside null, by
    which they ask for nothing."""


class _Model(Body):
    model: str = Field(description="The served model's name.")
    user: str | None = _field("A key of the user: in a rollout it decides who serves them.")


class StreamOptions(BaseModel):
    """What a stream has beside the choices."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = _field("Whether the last event tells the usage.")


class Sampling(_Model):
    """What /v1/completions and /v1/chat/completions share."""

    n: int | None = _field("Choices of each prompt.", ge=1, le=MOST_CHOICES)
    temperature: float | None = _field("0 takes the likeliest token; 1 if absent.", ge=0, le=2)
    top_p: float | None = _field(
        "Only the fewest likeliest tokens of this probability together.", gt=0, le=1
    )
    top_k: int | None = _field(
        "Only so many likeliest tokens; 0 and -1 take all.", ge=-1, le=_MOST_TOKENS
    )
    seed: int | None = _field(
        "The same seed gives the same tokens; its lower 32 bits count. One is drawn if absent.",
        ge=-(2**63), lt=2**63,
    )  # fmt: skip
    presence_penalty: float | None = _field(
        "Taken from the logit of what was generated before.", ge=-2, le=2
    )
    frequency_penalty: float | None = _field("Taken as often as it was.", ge=-2, le=2)
    repetition_penalty: float | None = _field(
        "Divides the logits of what prompt and answer hold; 1 changes nothing.", ge=0.01, le=100
    )
    stop: Stops | None = _field(
        f"Up to {MOST_STOPS} strings that end an answer, of {MOST_STOP_CHARACTERS:,} characters "
        "at most."
    )
    stream: bool | None = _field("Whether the answer comes as server-sent events.")
    stream_options: StreamOptions | None = _field("What a stream has beside the choices.")
    logit_bias: dict[str, Any] | None = _field("Not served; only {} may be given.", max_length=0)

    unserved: ClassVar[dict[str, tuple[Any, ...]]] = {
        "min_p": (0, 0.0), "min_tokens": (0,), "ignore_eos": (False,), "stop_token_ids": ([],),
        "include_stop_str_in_output": (False,), "skip_special_tokens": (True,),
        "spaces_between_special_tokens": (True,), "use_beam_search": (False,),
        "length_penalty": (1, 1.0), "prompt_logprobs": (), "guided_json": (), "guided_regex": (),
        "structured_outputs": (), "response_format": ({"type": "text"},), "store": (False,),
        "return_tokens_as_token_ids": (False,), "truncate_prompt_tokens": (),
    }  # fmt: skip

    @property
    def includes_usage(self) -> bool:
        """Return whether a stream ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def stops(self) -> list[str]:
        """Return the stop strings, each once."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return list(dict.fromkeys(given))


class CompletionRequest(Sampling):
    """POST /v1/completions."""

    prompt: Texts = Field(description="What is continued: texts, or token ids.")
    max_tokens: int | None = _field(
        f"Most tokens of an answer; {DEFAULT_MAX_TOKENS}, or what the context leaves, if absent. "
        "0 needs echo.", ge=0, le=_MOST_TOKENS,
    )  # fmt: skip
    logprobs: int | None = _field(
        "How many likeliest tokens are told beside each, with log-probabilities.",
        ge=0, le=MOST_LIKELIEST,
    )  # fmt: skip
    echo: bool | None = _field("Whether the answer begins with the prompt.")
    best_of: int | None = _field("Only the value of n.", ge=1, le=MOST_CHOICES)
    add_special_tokens: bool | None = _field(
        "Whether the token that begins a text is put before a prompt without it; true if absent."
    )

    unserved: ClassVar[dict[str, tuple[Any, ...]]] = Sampling.unserved | {"suffix": ("",)}


class TextPart(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A turn of a conversation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)] = Field(
        description="A text, or parts of one, which are joined by line feeds."
    )

    @property
    def text(self) -> str:
        """Return the content as one text."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(
        min_length=1,
        max_length=MOST_TEXTS,
        fail_fast=True,
        description="The conversation; an answer follows it.",
    )
    max_tokens: int | None = _field(
        "Most tokens of an answer; what the context leaves if absent.", ge=1, le=_MOST_TOKENS
    )
    max_completion_tokens: int | None = _field("Another name of it.", ge=1, le=_MOST_TOKENS)
    logprobs: bool | None = _field("Whether log-probabilities are told.")
    top_logprobs: int | None = _field(
        "How many likeliest tokens are told beside each; needs logprobs.", ge=0, le=MOST_LIKELIEST
    )

    unserved: ClassVar[dict[str, tuple[Any, ...]]] = Sampling.unserved | {
        "tools": ([],), "tool_choice": ("none", "auto"), "parallel_tool_calls": (True, False),
        "functions": ([],), "function_call": ("none", "auto"), "modalities": (["text"],),
        "audio": (), "prediction": (), "metadata": ({},), "reasoning_effort": (),
        "service_tier": ("auto", "default"), "web_search_options": (), "verbosity": (),
        "add_generation_prompt": (True,), "continue_final_message": (False,),
        "add_special_tokens": (False,), "chat_template": (), "chat_template_kwargs": ({},),
        "documents": ([],), "echo": (False,), "best_of": (1,),
        "prompt_cache_key": (), "safety_identifier": (),
    }  # fmt: skip


class EmbeddingRequest(_Model):
    """POST /v1/embeddings."""

    input: Texts = Field(description="What is embedded: texts, or token ids.")
    encoding_format: Literal["float", "base64"] | None = _field(
        "base64 is that of the vector as little-endian float32; float if absent."
    )

    unserved: ClassVar[dict[str, tuple[Any, ...]]] = {
        "dimensions": (), "truncate_prompt_tokens": (), "add_special_tokens": (True,),
        "priority": (0,),
    }  # fmt: skip


class TokenizeRequest(Body):
    """POST /tokenize."""

    model: str | None = _field("The served model's name.")
    prompt: str = Field(
        description="A text; if it is nothing but the text of a control token, that token."
    )
    add_special_tokens: bool | None = _field(
        "Whether the token that begins a text stands before its own; true if absent."
    )

    unserved: ClassVar[dict[str, tuple[Any, ...]]] = {
        "messages": (), "return_token_strs": (False,), "add_generation_prompt": (True,)
    }  # fmt: skip


class DetokenizeRequest(Body):
    """POST /detokenize."""

    model: str | None = _field("The served model's name.")
    tokens: Ids = Field(description="Token ids; control tokens have no text.")


AnyBody = TypeVar("AnyBody", bound=Body)


def read_request(content: bytes, model: type[AnyBody]) -> AnyBody:
    """Read the body of a request.

    Raises:
        RequestError: It is no JSON object, or has a key or value that is not served; the error
            names it.
    """
    try:
        values = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise RequestError(Code.INVALID_ARGUMENT, f"the body is no JSON: {error}"[:200]) from None
    if not isinstance(values, dict):
        raise RequestError(Code.INVALID_ARGUMENT, "the body is no JSON object")
    for name in sorted(set(values) - set(model.model_fields)):
        value = values.pop(name)
        if name not in model.unserved:
            raise FieldError(name[:80], f"unknown key {name!r:.80}", "unknown_parameter")
        if value is None:
            continue
        # 0 == False in Python, not in JSON.
        if not any(value == one and type(value) is type(one) for one in model.unserved[name]):
            raise FieldError(
                name, f"{name} is not supported by this server", "unsupported_parameter"
            )
    try:
        return model.model_validate({n: value for n, value in values.items() if value is not None})
    except ValidationError as error:
        raise _field_error(model, error) from None


def _field_error(model: type[Body], error: ValidationError) -> FieldError:
    """Say what is wrong with the first field that is."""
    found = error.errors(include_url=False, include_input=False)
    first = found[0]
    field = str(first["loc"][0])
    of_field = [one for one in found if one["loc"][0] == field]
    info = model.model_fields.get(field)
    if first["type"] == "missing" and len(first["loc"]) == 1:
        return FieldError(field, f"{field} is missing", "missing_required_parameter")
    if info is not None and info.annotation == Texts:
        return FieldError(field, f"{field}: {_TEXTS}{_ids_hint(of_field)}", "invalid_value")
    if first["type"] == "extra_forbidden":
        where = ".".join(map(str, first["loc"]))
        return FieldError(
            field, f"{where:.120} is not supported by this server", "unknown_parameter"
        )
    # Of the kinds of values that a field may have, the one that came furthest.
    deepest = max(of_field, key=lambda one: one["type"] not in ("string_type", "list_type"))
    where = ".".join(str(part) for part in deepest["loc"] if _is_place(part, field))
    return FieldError(field, f"{where:.120}: {deepest['msg']}"[:400], "invalid_value")


def _is_place(part: int | str, field: str) -> bool:
    """Tell a key or a number in a list from the name of a type of a union."""
    return isinstance(part, int) or part == field or part.isidentifier()


def _ids_hint(errors: list[Any]) -> str:
    bounds = [e for e in errors if e["type"] in ("greater_than_equal", "less_than", "too_short")]
    return f" ({bounds[0]['msg']})" if bounds else ""
