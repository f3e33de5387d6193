"""What the model makes of a few held-out texts: how it continues them, or fills hidden words in.

The likeliest token each time, by the computation that the pushed model generates with. No random
state is touched, so a training is the same with samples and without.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tokenmill.contracts.samples import HeldOutSample
from tokenmill.export.decoder_signatures import ServedDecoder
from tokenmill.export.sampler import SamplerConfig
from tokenmill.model.backbone import Backbone
from tokenmill.model.build import Decoder
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.text.tokenizers.base import Tokenizer

PROMPT_TOKENS, NEW_TOKENS = 16, 48
"""Tokens of a prompt, and of what the model adds at most; less in a short context."""
# Of a conversation all that stands before the first answer is the prompt.
_MOST_PROMPT_TOKENS = 128
_ROWS_SEARCHED = 64
# Of masked-lm: tokens of a text, and which of them are hidden.
_FILLED_TOKENS, _HIDDEN_EVERY = 24, 5

Sampler = Callable[[], list[HeldOutSample]]
"""Asks the model, with the weights that it has, for all samples."""


class HeldOutText(NamedTuple):
    """A part of a held-out row that a document begins.

    Attributes:
        inputs: int32 [tokens], from the document's begin.
        targets: int32 [tokens].
        weights: float32 [tokens], above 0 where the target bears a loss.
        row: Its row in the split.
    """

    inputs: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    row: int


class Prompt(NamedTuple):
    """A text to be continued.

    Attributes:
        given: Ids that the model is given; begin comes before those of a text.
        expected: Ids that follow in the held-out text.
        new_tokens: How many to add at most.
    """

    given: list[int]
    expected: list[int]
    new_tokens: int


def held_out_texts(eval_rows: PackedSplit) -> Iterator[HeldOutText]:
    """Yield the documents that begin in the first rows of a split, in their order.

    In masked-lm nothing is hidden yet, and the weight is above 0 where a token could be.
    """
    begin = None
    if eval_rows.task == "causal-lm" and not eval_rows.manifest.answers_only:
        begin = eval_rows.control_ids.need("bos")  # a conversation begins as its template says
    for row in range(min(eval_rows.rows, _ROWS_SEARCHED)):
        batch = eval_rows.read(np.array([row]))
        for segment in range(1, int(batch.segment_ids[0].max()) + 1):
            places = batch.segment_ids[0] == segment
            inputs = batch.inputs[0, places]
            if begin is None or inputs[0] == begin:
                of_row = batch.targets[0, places], batch.loss_weights[0, places]
                yield HeldOutText(inputs, *of_row, row)


def make_sampler(
    model: Backbone,
    eval_rows: PackedSplit,
    tokenizer: Tokenizer,
    texts: int,
    stop_ids: list[int] | None = None,
) -> Sampler | None:
    """Return what samples the model, or None where there is nothing to sample: of a classifier.

    Args:
        model: Being trained.
        eval_rows: Where the texts are from: the first that are long enough.
        tokenizer: Turns ids into text.
        texts: How many texts at most, each of another row.
        stop_ids: Of conversations: what ends an answer.
    """
    if eval_rows.task == "masked-lm":
        return _filling(model, eval_rows, tokenizer, texts)
    prompts = choose_prompts(eval_rows, texts)
    generate = make_generator(model, eval_rows, prompts, tokenizer.vocab_size, stop_ids)
    if generate is None:
        return None

    def sample() -> list[HeldOutSample]:
        return [
            HeldOutSample(
                prompt=_text(tokenizer, prompt.given),
                output=_text_after(tokenizer, prompt.given, output),
                expected=_text_after(tokenizer, prompt.given, prompt.expected),
            )
            for prompt, output in zip(prompts, generate(), strict=True)
        ]

    return sample


def choose_prompts(eval_rows: PackedSplit, texts: int) -> list[Prompt]:
    """Choose the beginnings of held-out texts to continue, one a row; none but in causal-lm."""
    if eval_rows.task != "causal-lm":
        return []
    context, found = eval_rows.sequence_length, dict[int, Prompt]()
    for text in held_out_texts(eval_rows):
        if len(found) == texts:
            break
        if text.row in found:
            continue
        if eval_rows.manifest.answers_only:
            first = int(np.argmax(text.weights > 0))
            given, room = text.inputs[: first + 1].tolist(), context - first - 1
            after = text.weights[first:] > 0
            rest = text.targets[first:][np.logical_and.accumulate(after)].tolist()
        else:
            length = min(PROMPT_TOKENS, context // 4)
            given, room = text.targets[:length].tolist(), context - length - 1
            rest = text.targets[length:].tolist()
        new = min(NEW_TOKENS, room, context - 1)
        if given and rest and new > 0 and len(given) <= _MOST_PROMPT_TOKENS:
            found[text.row] = Prompt(given, rest[:new], new)
    return list(found.values())


def make_generator(
    model: Backbone,
    eval_rows: PackedSplit,
    prompts: list[Prompt],
    tokens: int,
    stop_ids: list[int] | None = None,
) -> Callable[[], list[list[int]]] | None:
    """Return a function that continues the prompts until the text's end or the limit.

    Args:
        model: A decoder; its weights at the time of the call count.
        eval_rows: Where the prompts are from.
        prompts: What to continue; without any there is no function.
        tokens: Ids of the tokenizer.
        stop_ids: As for `make_sampler`.
    """
    if not prompts or not isinstance(model, Decoder):
        return None
    # Nothing is tokenized: the prompts are ids.
    served = ServedDecoder(model, None, "float32", eval_rows.control_ids, tokens)
    ends = (stop_ids or []) if eval_rows.manifest.answers_only else None
    none = tf.zeros([len(prompts)], tf.int32)
    greedy = SamplerConfig(tf.zeros(none.shape), none, tf.ones(none.shape), none)
    limits = tf.constant([prompt.new_tokens for prompt in prompts])
    ids = tf.ragged.constant([prompt.given for prompt in prompts], tf.int32)

    @tf.function(autograph=False)
    def generate():
        return served.generate(ids, limits, greedy, none > 0, ends)["token_ids"]

    return lambda: generate().to_list()


def _text(tokenizer: Tokenizer, ids: list[int]) -> str:
    (text,) = tokenizer.detokenize(tf.ragged.constant([ids], tf.int32)).numpy()
    return str(text.decode("utf-8", "replace"))


def _text_after(tokenizer: Tokenizer, before: list[int], ids: list[int]) -> str:
    """Return the text of ids that follow others: a blank before them belongs to it."""
    whole, start = _text(tokenizer, before + ids), _text(tokenizer, before)
    return whole[len(start) :] if whole.startswith(start) else _text(tokenizer, ids)


def _filling(
    model: Backbone, eval_rows: PackedSplit, tokenizer: Tokenizer, texts: int
) -> Sampler | None:
    """Return a sampler that fills in every fifth token of the texts' beginnings."""
    chosen: dict[int, tuple[HeldOutText, np.ndarray]] = {}
    for text in held_out_texts(eval_rows):
        if len(chosen) == texts:
            break
        if text.row in chosen:
            continue
        count = min(_FILLED_TOKENS, len(text.inputs))
        start = text._replace(
            inputs=text.inputs[:count], targets=text.targets[:count], weights=text.weights[:count]
        )
        hides = (start.weights > 0) & (np.arange(count) % _HIDDEN_EVERY == _HIDDEN_EVERY - 1)
        if hides.any():
            chosen[text.row] = start, hides
    if not chosen:
        return None
    tokens = min(tokenizer.vocab_size, model.shape_config.vocab_size)
    mask = tokenizer.control_ids.need("mask")

    def fill(text: HeldOutText, hides: np.ndarray) -> HeldOutSample:
        slots, positions = tf.ones([1, len(hides)], tf.int32), tf.range(len(hides))[None]
        given = tf.constant(np.where(hides, mask, text.inputs)[None], tf.int32)
        logits = np.asarray(model.logits(model.hidden(given, slots, positions)))
        words = [_word(tokenizer, token) for token in text.inputs.tolist()]
        shown = (" [MASK]" if hidden else word for word, hidden in zip(words, hides, strict=True))
        guesses = np.argmax(logits[0, hides, :tokens], -1)
        return HeldOutSample(
            prompt="".join(shown).strip(),
            output=_words(tokenizer, guesses.tolist()),
            expected=_words(tokenizer, text.inputs[hides].tolist()),
        )

    return lambda: [fill(text, hides) for text, hides in chosen.values()]


def _word(tokenizer: Tokenizer, token: int) -> str:
    value = tokenizer.token_bytes[token]
    return "" if value is None else value.decode("utf-8", "replace")


def _words(tokenizer: Tokenizer, ids: list[int]) -> str:
    return " ".join(_word(tokenizer, token).strip() for token in ids)
