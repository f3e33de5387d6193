"""Computations of a decoder's signatures: text or token ids in; scores, texts or vectors out."""

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tokenmill.contracts.served_model import Quantization
from tokenmill.export.quantization import StoredWeights
from tokenmill.export.sampler import SamplerConfig, check_sampling, choose, require, uniforms
from tokenmill.export.scoring import SCORES, score_rows
from tokenmill.model.build import Decoder, Encoder
from tokenmill.model.generation import decode_step, prefill, widen
from tokenmill.text.chat import ChatTokens
from tokenmill.text.control_ids import TOKENMILL_CONTROL_IDS, ControlIds

# Rows of sequence_length computed at once: bounds the memory that a long text takes.
_ROWS_AT_ONCE = 8

NO_TOKEN = -1e9
"""Logit of a row of the embedding that no token has, such as those that fill a checkpoint's up."""


class Rows(NamedTuple):
    """Texts cut as packing cuts them, into rows of at most sequence_length tokens.

    Attributes:
        inputs: int32 [rows, width], begin and the tokens.
        targets: int32 [rows, width], the tokens and end.
        used: float32 [rows, width], 1 where there is a target.
        texts: int32 [rows], the text that a row belongs to.
    """

    inputs: tf.Tensor
    targets: tf.Tensor
    used: tf.Tensor
    texts: tf.Tensor


def cut_into_rows(
    inputs: tf.RaggedTensor,
    targets: tf.RaggedTensor,
    used: tf.RaggedTensor,
    longest_row: int,
    padding: int = 0,
) -> Rows:
    """Cut texts into rows of equal width, at least one a text, as packing cuts the eval split.

    Args:
        inputs: int32 [batch, tokens].
        targets: int32 [batch, tokens].
        used: float32 [batch, tokens].
        longest_row: Rows are as wide as the longest text, and this at most.
        padding: What fills `inputs` up; 0 fills the others.
    """
    batch = inputs.nrows(out_type=tf.int32)
    counts = tf.cast(inputs.row_lengths(), tf.int32)
    longest = tf.reduce_max(tf.concat([counts, [1]], axis=0))
    width = tf.minimum(longest, longest_row)
    rows_each = tf.maximum((counts + width - 1) // width, 1)
    slots = (longest + width - 1) // width * width

    def cut(ragged: tf.RaggedTensor, fill: int = 0) -> tf.Tensor:
        dense = ragged.to_tensor(fill)
        rest = [[0, 0], [0, slots - tf.shape(dense)[1]]]
        dense = tf.pad(dense, rest, constant_values=fill)
        return tf.reshape(dense, [-1, width])

    place = tf.tile(tf.range(slots // width)[None], [batch, 1])
    real = tf.reshape(place < rows_each[:, None], [-1])  # shorter texts leave empty rows
    texts = tf.repeat(tf.range(batch), slots // width)
    parts = (cut(inputs, padding), cut(targets), cut(used), texts)
    return Rows(*(tf.boolean_mask(part, real) for part in parts))


class ServedDecoder(tf.Module):
    """A model with its tokenizer, computing what the signatures answer.

    Args:
        model: The trained decoder (an encoder: tokenmill/export/encoder_signatures.py).
        tokenize: string [batch] -> ragged int32 [batch, tokens].
        quantization: How the weights are stored.
        control_ids: Of the tokenizer.
        tokens: How many ids the tokenizer has, if the embedding has more rows: those are never an
            answer. The likelihood is over all rows, as in training.
    """

    def __init__(
        self,
        model: Decoder | Encoder,
        tokenize: Any,
        quantization: Quantization,
        control_ids: ControlIds = TOKENMILL_CONTROL_IDS,
        tokens: int | None = None,
    ):
        super().__init__()
        self.control_ids = control_ids
        self.padding = control_ids.padding
        self.context_length = model.shape_config.sequence_length
        self.vocab_size = model.shape_config.vocab_size
        self.tokens = min(tokens or self.vocab_size, self.vocab_size)
        self._tokenize = tokenize
        if quantization == "float32":
            self.model = model  # its variables are saved as they are
        else:
            self.stored_weights = StoredWeights(model, quantization)
        self._decoder = lambda: model  # a function is not saved

    def weights_in_use(self) -> Any:
        """Return a context in which the model computes with the weights as they are stored."""
        if hasattr(self, "stored_weights"):
            return keras.StatelessScope(state_mapping=self.stored_weights.mapping())
        return contextlib.nullcontext()

    @property
    def decoder(self) -> Any:
        """Return the model."""
        return self._decoder()

    def token_ids(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Tokenize: string [batch] -> int32 ragged [batch, tokens]; fails on what is no UTF-8."""
        valid = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace") == text
        with tf.control_dependencies([require(valid, "text is not valid UTF-8")]):
            return self._tokenize(tf.identity(text))

    def score(self, ids: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        """Compute the log-likelihood of each text and its end, given its begin.

        Returns a dict: log_likelihood and nll_sum (float32, nats), correct_count (float32,
        targets guessed right), token_count (int32, targets: the tokens and the end); all [batch].
        """
        batch = ids.nrows(out_type=tf.int32)
        rows = self._rows(ids)
        with self.weights_in_use():
            nll, correct = self._map_rows(rows, self._score_rows, (tf.float32, tf.float32))
        nll_sum = tf.math.unsorted_segment_sum(nll, rows.texts, batch)
        return {
            "log_likelihood": -nll_sum,
            "nll_sum": nll_sum,
            "correct_count": tf.math.unsorted_segment_sum(correct, rows.texts, batch),
            "token_count": tf.cast(ids.row_lengths(), tf.int32) + 1,
        }

    def evaluate(self, ids: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        """Score texts as `score` does, with every sum of tokenmill/export/scoring.py for each."""
        batch = ids.nrows(out_type=tf.int32)
        token_count = tf.cast(ids.row_lengths(), tf.int32) + 1
        return {**self._evaluate(self._rows(ids), batch), "token_count": token_count}

    def evaluate_answers(self, tokens: ChatTokens, token_sizes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Score the answers of conversations, given what stands before each.

        Conversations are cut as the Packer cuts them: behind the last answer that fits.

        Args:
            tokens: The conversations.
            token_sizes: int32 [vocabulary], bytes of text that each token stands for.

        Returns:
            What `evaluate` returns, token_count being tokens of answers, and byte_count (int32
            [batch]), the bytes of their text.
        """
        batch = tokens.ids.nrows(out_type=tf.int32)
        ids, used = tokens.ids.to_tensor(), tokens.answers.to_tensor()[:, 1:]
        place = tf.range(tf.shape(used)[1])[None]
        goes_on = tf.pad(used[:, 1:], [[0, 0], [0, tf.minimum(tf.shape(used)[1], 1)]])
        ends = (used > goes_on) & (place < self.context_length)
        nothing = tf.zeros([batch, 1], tf.int32)
        ends_at = tf.concat([nothing, tf.where(ends, place + 1, 0)], axis=1)
        kept = tf.reduce_max(ends_at, axis=1)

        def cut(values: tf.Tensor) -> tf.RaggedTensor:
            return tf.RaggedTensor.from_tensor(values, lengths=kept)

        targets, used = cut(ids[:, 1:]), cut(used)
        rows = cut_into_rows(cut(ids[:, :-1]), targets, used, self.context_length)
        of_answers = tf.cast(used, tf.int32)
        sizes = tf.gather(token_sizes, targets.flat_values) * of_answers.flat_values
        return {
            **self._evaluate(rows, batch),
            "token_count": tf.reduce_sum(of_answers, axis=1),
            "byte_count": tf.reduce_sum(targets.with_flat_values(sizes), axis=1),
        }

    def _evaluate(self, rows: Rows, batch: tf.Tensor) -> dict[str, tf.Tensor]:
        with self.weights_in_use():
            sums = self._map_rows(rows, self._evaluate_rows, (tf.float32,) * len(SCORES))
        by_text = {
            name: tf.math.unsorted_segment_sum(value, rows.texts, batch)
            for name, value in zip(SCORES, sums, strict=True)
        }
        return {"log_likelihood": -by_text["nll_sum"], **by_text}

    def logits(self, token_ids: tf.Tensor) -> tf.Tensor:
        """Compute the logits after each token; NO_TOKEN for what is none.

        int32 [batch, width] of begin and tokens -> float32 [batch, width, vocabulary].
        """
        with self.weights_in_use():
            hidden = self._hidden(token_ids, tf.cast(token_ids != self.padding, tf.float32))
            return self._of_tokens(self.decoder.logits(hidden))

    def embed(self, ids: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        """Average the last layer's output over each text's tokens, control tokens included.

        Returns a dict: embedding (float32 [batch, d_model]), token_count (int32 [batch]).
        """
        batch = ids.nrows(out_type=tf.int32)
        rows = self._rows(ids)
        with self.weights_in_use():
            (summed,) = self._map_rows(rows, self._embed_rows, (tf.float32,))
        total = tf.math.unsorted_segment_sum(summed, rows.texts, batch)
        slots = tf.math.unsorted_segment_sum(tf.reduce_sum(rows.used, -1), rows.texts, batch)
        return {
            "embedding": total / slots[:, None],
            "token_count": tf.cast(ids.row_lengths(), tf.int32),
        }

    def _rows(self, ids: tf.RaggedTensor) -> Rows:
        batch = ids.nrows(out_type=tf.int32)
        inputs = tf.concat([tf.fill([batch, 1], self.control_ids.need("bos")), ids], axis=1)
        targets = tf.concat([ids, tf.fill([batch, 1], self.control_ids.need("eos"))], axis=1)
        return cut_into_rows(inputs, targets, tf.ones_like(inputs, tf.float32), self.context_length)

    def _map_rows(self, rows: Rows, compute: Any, dtypes: tuple) -> list[tf.Tensor]:
        """Apply `compute` to a few rows at a time; return its results concatenated."""
        count, width = tf.shape(rows.inputs)[0], tf.shape(rows.inputs)[1]
        together = tf.clip_by_value(count, 1, _ROWS_AT_ONCE)
        # At least one group: what is stacked of none has no shape.
        missing = tf.maximum(-count % together, tf.cast(count == 0, tf.int32))
        groups = [
            tf.reshape(tf.pad(x, [[0, missing], [0, 0]]), [-1, together, width])
            for x in (rows.inputs, rows.targets, rows.used)
        ]
        results = tf.map_fn(
            lambda group: compute(*group),
            tuple(groups),
            fn_output_signature=dtypes,
            parallel_iterations=1,
        )
        return [tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], 0))[:count] for x in results]

    def _hidden(self, inputs: tf.Tensor, used: tf.Tensor) -> tf.Tensor:
        """Run the model up to its head: int32, float32 [rows, width] -> [rows, width, d_model]."""
        return prefill(self.decoder, self._embeddable(inputs))[0]

    def _embeddable(self, inputs: tf.Tensor) -> tf.Tensor:
        """Replace padding that is no token by one, as an embedding has no row -1."""
        return inputs if self.padding >= 0 else tf.maximum(inputs, 0)

    def _of_tokens(self, logits: tf.Tensor) -> tf.Tensor:
        """Replace the logits of what is no token, [.., vocabulary], by NO_TOKEN."""
        if self.tokens == self.vocab_size:
            return logits
        return tf.where(tf.range(self.vocab_size) < self.tokens, logits, NO_TOKEN)

    def _score_rows(self, inputs, targets, used):
        hidden = self._hidden(inputs, used)
        logits = self.decoder.logits(hidden)
        # Half the time of sparse_softmax_cross_entropy_with_logits, which prepares a gradient.
        its_logit = tf.gather(logits, targets, batch_dims=2)
        nll = tf.reduce_logsumexp(logits, -1) - its_logit
        guess = tf.argmax(self._of_tokens(logits), -1, tf.int32)
        right = tf.cast(guess == targets, tf.float32)
        return tf.reduce_sum(nll * used, -1), tf.reduce_sum(right * used, -1)

    def _evaluate_rows(self, inputs, targets, used):
        logits = self.decoder.logits(self._hidden(inputs, used))
        sums = score_rows(tf.cast(logits, tf.float32), targets, used, self.tokens)
        return tuple(sums[name] for name in SCORES)

    def _embed_rows(self, inputs, targets, used):
        hidden = self._hidden(inputs, used)
        return (tf.reduce_sum(tf.cast(hidden, tf.float32) * used[:, :, None], 1),)

    def generate(
        self,
        ids: tf.RaggedTensor,
        max_new_tokens: tf.Tensor,
        sampling: SamplerConfig,
        truncate_prompt: tf.Tensor,
        stop_ids: Sequence[int] | None = None,
    ) -> dict[str, Any]:
        """Continue each text until its end or for `max_new_tokens` tokens, with cached keys.

        Args:
            ids: The prompts, ragged int32 [batch, tokens].
            max_new_tokens: int32 [batch], from 1 to context_length - 1.
            sampling: How tokens are chosen.
            truncate_prompt: bool [batch]; a prompt that leaves no room in the context for begin
                and the new tokens loses its first tokens if true, and is an error if not.
            stop_ids: Of conversations: what ends an answer beside the text's end. Their prompts
                begin as the template says, and get no begin. None: `ids` are texts.

        Returns a dict: token_ids (ragged int32), prompt_tokens (used, without begin),
        truncated_tokens, completion_tokens (int32 [batch]), finish_reason (string [batch]):
        "stop" at the text's end, "length" at max_new_tokens.
        """
        length, model = self.context_length, self.decoder
        prompt_counts = tf.cast(ids.row_lengths(), tf.int32)
        begins = 1 if stop_ids is None else 0
        room = length - begins - max_new_tokens
        excess = tf.maximum(prompt_counts - room, 0)
        checks = [
            require(
                (max_new_tokens >= 1) & (max_new_tokens < length),
                f"max_new_tokens must be from 1 to {length - 1}",
            ),
            require(
                (excess == 0) | truncate_prompt,
                f"prompt and max_new_tokens exceed the context of {length} tokens"
                f"{' (one of them for the begin)' if begins else ''}; shorten one of them or set "
                "truncate_prompt",
            ),
            require(prompt_counts + begins > 0, "a prompt of a conversation may not be empty"),
            *check_sampling(sampling),
        ]
        with tf.control_dependencies(checks):
            excess = tf.identity(excess)
        batch = tf.shape(excess)[0]
        kept = tf.ragged.boolean_mask(ids, tf.ragged.range(prompt_counts) >= excess[:, None])
        prompt = kept
        if begins:
            prompt = tf.concat([tf.fill([batch, 1], self.control_ids.need("bos")), kept], axis=1)
        starts = prompt_counts - excess + begins
        with self.weights_in_use():
            tokens, counts, stopped = _continue(
                model,
                prompt.to_tensor(max(self.padding, 0)),
                starts,
                max_new_tokens,
                sampling,
                length,
                self.control_ids,
                self.tokens,
                stop_ids or (),
            )
        return {
            "token_ids": tf.RaggedTensor.from_tensor(tokens, lengths=counts),
            "prompt_tokens": starts - begins,
            "truncated_tokens": excess,
            "completion_tokens": counts,
            "finish_reason": tf.where(stopped, "stop", "length"),
        }


def _continue(
    model,
    prompt,
    starts,
    limits,
    sampling: SamplerConfig,
    context_length: int,
    control_ids: ControlIds,
    vocabulary: int,
    stop_ids: Sequence[int] = (),
):
    """Generate tokens until each text's end or limit.

    int32 [batch, width], [batch], [batch] -> tokens [batch, new], counts, stopped [batch].
    """
    batch = tf.shape(prompt)[0]
    steps = tf.reduce_max(tf.concat([limits, [1]], 0))
    slots = tf.reduce_max(tf.concat([starts + limits, [1]], 0))
    uniform = uniforms(sampling.seed, context_length)
    hidden, caches = prefill(model, prompt)
    logits = model.logits(tf.gather(hidden, starts - 1, axis=1, batch_dims=1))
    # Tokens by step, so that a step writes one row.
    tokens = tf.zeros([steps, batch], tf.int32)
    stops = tf.constant([control_ids.need("eos"), *stop_ids])

    def take(step, tokens, counts, stopped, logits):
        """Choose a token for each text that goes on; return the new state and the tokens."""
        token = choose(logits[:, :vocabulary], sampling, uniform[:, step], control_ids)
        active = (counts < limits) & ~stopped
        stopped |= active & tf.reduce_any(token[:, None] == stops[None], axis=1)
        written = active & ~stopped
        token = tf.where(written, token, max(control_ids.padding, 0))
        tokens = tf.where(tf.range(steps)[:, None] == step, token[None], tokens)
        return tokens, counts + tf.cast(written, tf.int32), stopped, token

    def open_ended(step, tokens, counts, stopped, token, caches):
        return (step < steps) & tf.reduce_any((counts < limits) & ~stopped)

    def extend(step, tokens, counts, stopped, token, caches):
        # A text that is done stays at its last slot and is not written.
        hidden, caches = decode_step(model, token, starts + counts - 1, caches)
        tokens, counts, stopped, token = take(step, tokens, counts, stopped, model.logits(hidden))
        return step + 1, tokens, counts, stopped, token, caches

    tokens, counts, stopped, token = take(
        0, tokens, tf.zeros([batch], tf.int32), tf.zeros([batch], tf.bool), logits
    )
    _, tokens, counts, stopped, _, _ = tf.while_loop(
        open_ended,
        extend,
        [tf.constant(1), tokens, counts, stopped, token, widen(caches, slots)],
    )
    return tf.transpose(tokens), counts, stopped
