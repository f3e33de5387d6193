"""Conversations as text: a chat template in Jinja, as the open models bring it with them.

The text of a special token (<|im_end|>) that stands in a message is text and no token: it is marked
before the template sees it, and what the template itself writes is not. Training and serving render
with the same object.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import jinja2.ext
import jinja2.runtime
import jinja2.sandbox

from tokenmill.errors import TokenmillError
from tokenmill.records.conversations import ANSWERING_ROLE

CHATML = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML, for models that bring no template (OpenAI 2022), behind the token that begins a text."""
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")

MARK = "\ufdd0"
"""A noncharacter of Unicode, which no text has to hold: it parts the letters of a token's text, and
here and in tokenmill/text/chat.py the pieces of a conversation."""

# Numbers that a template may count in a rendering, and parts of what it may multiply.
_MOST_COUNTED = 1_000_000

Message = Mapping[str, Any]
"""A turn: role and content, both strings; a template may read more of it."""


class Piece(NamedTuple):
    """A part of a rendered conversation.

    Attributes:
        text: Text, or the name of one special token.
        is_special: Whether it is such a token.
        is_answer: Whether it is what the model is to write.
    """

    text: str
    is_special: bool
    is_answer: bool


class ChatTemplate:
    """Renders conversations.

    Args:
        source: The template. It runs in Jinja's sandbox: it reaches no file, module or attribute
            of Python's.
        special_tokens: Texts of the tokens that the template writes as such.
        variables: What else templates read, such as bos_token and eos_token.

    Raises:
        TokenmillError: It is no Jinja template.
    """

    def __init__(
        self,
        source: str = CHATML,
        special_tokens: Collection[str] = CHATML_TOKENS,
        variables: Mapping[str, str] | None = None,
    ):
        self.source = source
        self._variables = dict(variables or {})
        # The longest first: of <|im_end|> and <|im_end|>\n the latter.
        names = sorted(filter(None, special_tokens), key=lambda name: (-len(name), name))
        self._specials = re.compile("|".join(map(re.escape, names)) if names else r"(?!)")
        environment = _Environment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
        )
        self._environment = environment
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        try:
            self._template = environment.from_string(source)
        # Python compiles what Jinja makes of it, and has errors of its own (200 nested blocks).
        except (jinja2.TemplateError, SyntaxError, RecursionError, MemoryError) as error:
            raise TokenmillError(
                f"the chat template is no Jinja template: {error}.",
                "Take the one that came with the model's tokenizer.",
            ) from None

    def pieces(self, messages: Sequence[Message]) -> list[Piece]:
        """Render a conversation that is to be learned.

        Args:
            messages: Its turns.

        Returns:
            Its parts, in order. The tokens of one never reach into the next.

        Raises:
            TokenmillError: A message is no turn, or the template refuses the conversation, or
                writes earlier turns otherwise once there are later ones, so that no part of the
                text is an answer for certain.
        """
        marked = self._marked_messages(messages)
        found, written = self._turns(marked)
        whole = self._render(marked, False)
        if not whole.startswith(written):
            raise _rewritten(len(marked))
        return found + self._split(whole[len(written) :], False)

    def prompt(self, messages: Sequence[Message]) -> list[Piece]:
        """Render a conversation whose next answer is to be written.

        Returns:
            Its parts: those that `pieces` gives of the same turns, so that the tokens are those of
            training; where the template writes earlier answers otherwise, those of the text as it
            is. None is an answer.

        Raises:
            TokenmillError: A message is no turn, or the template refuses the conversation.
        """
        marked = self._marked_messages(messages)
        whole = self._render(marked, True)
        try:
            found, written = self._turns(marked)
        except TokenmillError:
            found, written = [], ""
        if not whole.startswith(written):
            found, written = [], ""
        found += self._split(whole[len(written) :], False)
        return [piece._replace(is_answer=False) for piece in found]

    def _turns(self, marked: Sequence[Message]) -> tuple[list[Piece], str]:
        """Return the parts up to the last answer, and their text."""
        found: list[Piece] = []
        written = ""
        for i, message in enumerate(marked):
            if message["role"] != ANSWERING_ROLE:
                continue
            for end, opens in ((i, True), (i + 1, False)):
                text = self._render(marked[:end], opens)
                if not text.startswith(written):
                    raise _rewritten(i + 1)
                found += self._split(text[len(written) :], not opens)
                written = text
        return found, written

    def text(self, messages: Sequence[Message], prompt: bool = False) -> str:
        """Render a conversation as one string, with what opens an answer if it is a prompt."""
        return self._render(self._marked_messages(messages), prompt).replace(MARK, "")

    def _marked_messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        return [self._mark(number, message) for number, message in enumerate(messages, 1)]

    def _mark(self, number: int, message: Message) -> dict[str, Any]:
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                raise TokenmillError(
                    f"message {number}: {key} = {message.get(key)!r}: expected a string.",
                    'Write each turn as {"role": "user", "content": "..."}.',
                )
        return {key: self._marked(value) for key, value in message.items()}

    def _marked(self, value: Any) -> Any:
        """Mark the texts of special tokens in what a user wrote, so that they are none."""
        if isinstance(value, str):
            text = value.replace(MARK, "")
            return self._specials.sub(lambda found: found[0][0] + MARK + found[0][1:], text)
        if isinstance(value, Mapping):
            return {key: self._marked(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._marked(inner) for inner in value]
        return value

    def _render(self, messages: Sequence[Message], prompt: bool) -> str:
        self._environment.counted = 0
        try:
            text = self._template.render(
                messages=messages, add_generation_prompt=prompt, **self._variables
            )
            text.encode()  # it may write a lone surrogate, which is no text
            return text
        # A template is a program of somebody else's: it may divide by zero, or call itself.
        except Exception as error:
            raise TokenmillError(
                f"the chat template refuses the conversation: {error}.",
                "See what roles and fields the template of the model's tokenizer expects.",
            ) from None

    def _split(self, text: str, is_answer: bool) -> list[Piece]:
        found, start = [], 0
        for special in self._specials.finditer(text):
            found += [Piece(text[start : special.start()], False, is_answer)]
            found += [Piece(special[0], True, is_answer)]
            start = special.end()
        found.append(Piece(text[start:], False, is_answer))
        return [piece._replace(text=piece.text.replace(MARK, "")) for piece in found if piece.text]


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which counting and multiplying have an end, too."""

    intercepted_binops = frozenset(("*", "**"))

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.counted = 0
        self.globals["range"] = self._range

    def _range(self, *bounds: int) -> range:
        """Count, up to _MOST_COUNTED numbers in all of a rendering: loops may lie within loops."""
        numbers = range(*bounds)
        self.counted += len(numbers)
        if self.counted > _MOST_COUNTED:
            _refuse(f"it counts further than {_MOST_COUNTED:,}")
        return numbers

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        """Multiply, unless what comes out is of unreasonable size."""
        sizes = [
            value.bit_length() if isinstance(value, int) else len(value)
            for value in (left, right)
            if isinstance(value, int | str | list | tuple)
        ]
        repeated = [n for n in (left, right) if isinstance(n, int)]
        if operator == "**":
            bits = sizes[0] * abs(right) if isinstance(right, int) else 0
        elif len(repeated) == 1 and len(sizes) == 2:
            bits = max(0, repeated[0]) * sizes[1 if left is repeated[0] else 0]
        else:
            bits = sum(sizes)
        if bits > _MOST_COUNTED:
            _refuse(f"{operator} of {bits:,} parts is more than {_MOST_COUNTED:,}")
        return super().call_binop(context, operator, left, right)


def _rewritten(turn: int) -> TokenmillError:
    return TokenmillError(
        f"the chat template writes what stands before turn {turn} otherwise than without it, so "
        "what the model shall learn is not certain.",
        "Give conversations of one answer each, at their end, or another template.",
    )


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    """Write JSON as transformers' templates expect it: Jinja's own escapes HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
