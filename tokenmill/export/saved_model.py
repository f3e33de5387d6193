"""The SavedModel that is pushed: its signatures and its files.

Every signature takes and returns batches. Those on raw text hold the tokenizer; their `*_ids` twins
take token ids (int32 [batch, width], filled up with `ControlIds.padding` at the right).

    score (also serving_default), score_ids: the log-likelihood of a text.
    generate, generate_ids: a continuation.
    chat: the next answer of a conversation, of a model that was trained on conversations; its
        `prompt` is what tokenmill.text.chat.Chat writes.
    embed, embed_ids: a vector.
    classify, classify_ids: a class, of a classifier.
    prefill_ids, decode_ids, sample, log_probabilities_ids: of a server that streams
        (tokenmill/export/step_signatures.py).
    logits_ids: the model itself, begin (2) and tokens -> logits; TF Lite is made of it.
    evaluate: `examples` (serialized tf.Examples with a `text` feature) -> what score returns, and
        the sums that the Evaluator's other metrics take.

A masked language model has no likelihood of a text and continues none: no score, no generate. Its
serving_default is embed, its logits_ids takes `CLS tokens SEP`, and its evaluate hides tokens
(tokenmill/export/text_masking.py) and sums over these. A classifier's serving_default is
classify; its evaluate reads the feature `label` beside `text`. The evaluate of a model of
conversations reads `messages` and scores answers; its evaluate_texts is that of other models.

Every answer counts its tokens. docs/serving.md describes inputs, outputs and errors.
"""

import functools
import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from tokenmill.contracts.chat import ChatFormat, find_chat_format, write_chat_format
from tokenmill.contracts.served_model import (
    GENERATE_OPTIONS,
    Pooling,
    Quantization,
    ServedModel,
    write_served_model,
)
from tokenmill.export.decoder_signatures import ServedDecoder
from tokenmill.export.encoder_signatures import ServedEncoder
from tokenmill.export.sampler import SamplerConfig, require
from tokenmill.export.step_signatures import StepSignatures
from tokenmill.export.text_masking import TextMasking
from tokenmill.export.tokenizer_assets import write_tokenizer_assets
from tokenmill.export.warmup_requests import write_warmup_requests
from tokenmill.model.build import Decoder, Encoder
from tokenmill.text.chat import ChatTokens, chat_tokens
from tokenmill.text.tokenizers.load import read_tokenizer

EVALUATE_TEXTS = "evaluate_texts"
_TYPES = {int: tf.int32, float: tf.float32, bool: tf.bool}


class ExportedModel(tf.Module):
    """`ServedDecoder` or `ServedEncoder` behind named signatures.

    Args:
        model: The trained decoder or encoder.
        transform_graph_uri: Transform's output; its graph turns raw text into ids.
        tokenizer_path: The tokenizer's file, for turning ids back into text.
        quantization: How the weights are stored.
        masking: What a masked language model's `evaluate` hides.
        label_names: The classes of a classifier.
        pooling: What an encoder's `embed` computes; None for the mean over all rows of a text.
        chat_format: Of a model of conversations.
    """

    def __init__(
        self,
        model: Decoder | Encoder,
        transform_graph_uri: str,
        tokenizer_path: str,
        quantization: Quantization,
        masking: TextMasking | None = None,
        label_names: Sequence[str] | None = None,
        pooling: Pooling | None = None,
        chat_format: ChatFormat | None = None,
    ):
        super().__init__()
        # Not TFTransformOutput.transform_features_layer: a Keras model within takes as long to
        # save as all the rest.
        graph = os.path.join(transform_graph_uri, tft.TFTransformOutput.TRANSFORM_FN_DIR)
        self.transform = tf.saved_model.load(graph)
        tokenizer = read_tokenizer(tokenizer_path)
        self._detokenize = tokenizer.detokenize
        self._chat_format = chat_format
        self._token_sizes = [len(value or b"") for value in tokenizer.token_bytes]
        self.tokenizer = tokenizer.resources()
        self.padding = tokenizer.control_ids.padding
        self.head = model.shape_config.head
        # Traced once for all signatures.
        self._tokenize = tf.function(
            self._tokenize_text,
            input_signature=[tf.TensorSpec([None], tf.string)],
            autograph=False,
        )
        self.served: ServedDecoder = (
            ServedEncoder(
                model,
                self._tokenize,
                quantization,
                masking,
                label_names,
                tokenizer.control_ids,
                tokenizer.vocab_size,
                pooling,
            )
            if isinstance(model, Encoder)
            else ServedDecoder(
                model, self._tokenize, quantization, tokenizer.control_ids, tokenizer.vocab_size
            )
        )

    def _tokenize_text(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Tokenize by Transform's graph: string [batch] -> int32 ragged [batch, tokens]."""
        ((specs,), _) = self.transform.transform_fn.structured_input_signature
        rows = tf.shape(text)[0]
        # Of the columns of a document the graph reads the text only.
        features = {name: tf.zeros([rows, 1], spec.dtype) for name, spec in specs.items()}
        features["text"] = text[:, None]
        ids = tf.RaggedTensor.from_sparse(self.transform.transform_fn(features)["token_ids"])
        return tf.cast(ids, tf.int32)

    def _chat_tokens(self, conversations: tf.Tensor) -> ChatTokens:
        assert self._chat_format is not None
        return chat_tokens(conversations, self._tokenize, self._chat_format.special_tokens)

    def _evaluate_conversations(self, conversations: tf.Tensor) -> dict[str, tf.Tensor]:
        # A model may have more rows of embeddings than its tokenizer has tokens.
        unused = max(0, self.served.vocab_size - len(self._token_sizes))
        sizes = tf.constant(self._token_sizes + [0] * unused, tf.int32)
        scores = self.served.evaluate_answers(self._chat_tokens(conversations), sizes)
        return self._with_bytes(scores, scores["byte_count"])

    def _as_text(self, generated: dict[str, Any]) -> dict[str, Any]:
        """Replace the token_ids that `generate` returns by their text."""
        token_ids = generated.pop("token_ids")
        return {"text": self._detokenize(token_ids), **generated}

    def _with_bytes(
        self, scores: dict[str, tf.Tensor], byte_count: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        bits = scores["nll_sum"] / tf.math.log(2.0)
        # Of no bytes it is no number: 0 would be a perfect score.
        per_byte = tf.where(byte_count > 0, bits / tf.cast(byte_count, tf.float32), float("nan"))
        return {**scores, "byte_count": byte_count, "bits_per_byte": per_byte}

    def signatures(self) -> dict[str, Any]:
        """Make the functions to save, by name."""
        served = self.served
        text_spec = tf.TensorSpec([None], tf.string, name="text")
        ids_spec = tf.TensorSpec([None, None], tf.int32, name="token_ids")
        defaults = {
            name: tf.constant([value], _TYPES[kind])
            for name, (value, kind) in GENERATE_OPTIONS.items()
        }
        options = [tf.TensorSpec([None], x.dtype, name=k) for k, x in defaults.items()]
        d = tuple(defaults.values())

        # Nothing here has Python control flow on tensors, and autograph takes half of the export.
        function = functools.partial(tf.function, autograph=False)
        # A signature on text and its twin on ids share these: they are traced and stored once.
        ragged = tf.RaggedTensorSpec([None, None], tf.int32)
        unnamed = tuple(tf.TensorSpec([None], x.dtype) for x in d)
        score_of = function(served.score, input_signature=[ragged])
        embed_of = function(served.embed, input_signature=[ragged])
        # Only an encoder has it, and only for a classifier it is called.
        classify_of = function(getattr(served, "classify", served.embed), input_signature=[ragged])
        generate_of = function(
            functools.partial(_generate, served), input_signature=[ragged, unnamed]
        )

        @function(input_signature=[text_spec])
        def score(text):
            return self._with_bytes(score_of(served.token_ids(text)), tf.strings.length(text))

        @function(input_signature=[ids_spec])
        def score_ids(token_ids):
            return score_of(self._unpadded(token_ids))

        @function(input_signature=[text_spec])
        def embed(text):
            return embed_of(served.token_ids(text))

        @function(input_signature=[ids_spec])
        def embed_ids(token_ids):
            return embed_of(self._unpadded(token_ids))

        @function(input_signature=[ids_spec])
        def logits_ids(token_ids):
            return {"logits": served.logits(self._one_row(token_ids))}

        @function(input_signature=[text_spec, *options])
        def generate(
            text,
            max_new_tokens=d[0],
            temperature=d[1],
            top_k=d[2],
            top_p=d[3],
            seed=d[4],
            truncate_prompt=d[5],
        ):
            outputs = generate_of(
                served.token_ids(text),
                (max_new_tokens, temperature, top_k, top_p, seed, truncate_prompt),
            )
            return self._as_text(outputs)

        @function(input_signature=[ids_spec, *options])
        def generate_ids(
            token_ids,
            max_new_tokens=d[0],
            temperature=d[1],
            top_k=d[2],
            top_p=d[3],
            seed=d[4],
            truncate_prompt=d[5],
        ):
            outputs = generate_of(
                self._unpadded(token_ids),
                (max_new_tokens, temperature, top_k, top_p, seed, truncate_prompt),
            )
            return {**outputs, "token_ids": outputs["token_ids"].to_tensor(self.padding)}

        @function(input_signature=[tf.TensorSpec([None], tf.string, name="prompt"), *options])
        def chat(
            prompt,
            max_new_tokens=d[0],
            temperature=d[1],
            top_k=d[2],
            top_p=d[3],
            seed=d[4],
            truncate_prompt=d[5],
        ):
            assert self._chat_format is not None
            outputs = _generate(
                served,
                self._chat_tokens(prompt).ids,
                (max_new_tokens, temperature, top_k, top_p, seed, truncate_prompt),
                self._chat_format.stop_ids,
            )
            return self._as_text(outputs)

        @function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def evaluate(examples):
            features = {"text": tf.io.FixedLenFeature([], tf.string)}
            if self.head == "classifier":
                features["label"] = tf.io.FixedLenFeature([], tf.string, default_value="")
            parsed = tf.io.parse_example(examples, features)
            text = parsed["text"]
            if self.head == "classifier":
                return served.evaluate_classes(self._tokenize(text), parsed["label"])
            scores = served.evaluate(self._tokenize(text))
            if self.head != "lm":
                return scores
            return self._with_bytes(scores, tf.strings.length(text))

        @function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def evaluate_conversations(examples):
            feature = {"messages": tf.io.FixedLenFeature([], tf.string)}
            parsed = tf.io.parse_example(examples, feature)
            return self._evaluate_conversations(parsed["messages"])

        @function(input_signature=[text_spec])
        def classify(text):
            return classify_of(served.token_ids(text))

        @function(input_signature=[ids_spec])
        def classify_ids(token_ids):
            return classify_of(self._unpadded(token_ids))

        vectors = {"embed": embed, "embed_ids": embed_ids}
        if self.head == "classifier":
            return {
                "serving_default": classify,
                "classify": classify,
                "classify_ids": classify_ids,
                "evaluate": evaluate,
                **vectors,
            }
        model = {"logits_ids": logits_ids, "evaluate": evaluate, **vectors}
        if self.head == "mlm":
            return {"serving_default": embed, **model}
        return {
            "serving_default": score,
            "score": score,
            "score_ids": score_ids,
            "generate": generate,
            "generate_ids": generate_ids,
            **StepSignatures(served, self._known).signatures(),
            **model,
            **(
                {}
                if self._chat_format is None
                else {"chat": chat, "evaluate": evaluate_conversations, EVALUATE_TEXTS: evaluate}
            ),
        }

    def _known(self, token_ids: tf.Tensor) -> tf.Operation:
        vocabulary = self.served.vocab_size
        least = min(self.padding, 0)
        known = (token_ids >= least) & (token_ids < vocabulary)
        return require(known, f"token_ids must be from {least} to {vocabulary - 1}")

    def _one_row(self, token_ids: tf.Tensor) -> tf.Tensor:
        """Check ids that are not cut into rows: their logits would take all memory."""
        longest = self.served.context_length
        fits = tf.shape(token_ids)[1] <= longest
        message = f"token_ids may have {longest} tokens at most, as the context has"
        with tf.control_dependencies([self._known(token_ids), require(fits, message)]):
            return tf.identity(token_ids)

    def _unpadded(self, token_ids: tf.Tensor) -> tf.RaggedTensor:
        is_token = tf.cast(token_ids != self.padding, tf.int32)
        gaps = (is_token == 0) & (tf.cumsum(is_token, axis=1, reverse=True) > 0)
        with tf.control_dependencies(
            [
                self._known(token_ids),
                require(
                    ~gaps, f"token_ids may hold {self.padding} (padding) at the right end only"
                ),
            ]
        ):
            return tf.RaggedTensor.from_tensor(tf.identity(token_ids), padding=self.padding)


def _generate(
    served: ServedDecoder,
    ids: tf.RaggedTensor,
    options: tuple,
    stop_ids: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Continue texts; each option has one value for each text, or one for all."""
    batch = ids.nrows(out_type=tf.int32)
    checks = []
    for name, option in zip(GENERATE_OPTIONS, options, strict=True):
        fits = (tf.shape(option)[0] == 1) | (tf.shape(option)[0] == batch)
        checks.append(require(fits, f"{name} must have one value, or as many as there are texts"))
    with tf.control_dependencies(checks):
        new, temperature, top_k, top_p, seed, truncate = (
            tf.broadcast_to(x, [batch]) for x in options
        )
    sampling = SamplerConfig(temperature, top_k, top_p, seed)
    return served.generate(ids, new, sampling, truncate, stop_ids)


def export_model(
    model: Decoder | Encoder,
    transform_graph_uri: str,
    tokenizer_path: str,
    directory: str,
    quantization: Quantization = "float32",
    masking: TextMasking | None = None,
    label_names: Sequence[str] | None = None,
    pooling: Pooling | None = None,
) -> None:
    """Write the SavedModel; a masked language model needs `masking`, a classifier `label_names`.

    `pooling` is what an encoder's `embed` computes, where its base model says so. `assets.extra`
    gets the SentencePiece model, model.json (the model's shape, how the weights are stored, a
    classifier's labels, the pooling), of a model of conversations the chat_format.json that lies
    beside the tokenizer, and the warm-up requests that TensorFlow Serving replays.
    """
    chat_format = find_chat_format(os.path.dirname(tokenizer_path))
    exported = ExportedModel(
        model,
        transform_graph_uri,
        tokenizer_path,
        quantization,
        masking,
        label_names,
        pooling,
        chat_format,
    )
    signatures = exported.signatures()
    tf.saved_model.save(exported, directory, signatures=signatures)
    extra = os.path.join(directory, "assets.extra")
    tf.io.gfile.makedirs(extra)
    write_tokenizer_assets(tokenizer_path, directory)
    if chat_format is not None:
        write_chat_format(extra, chat_format)
    stated = {"label_names": label_names and list(label_names), "pooling": pooling}
    described = ServedModel(
        model_shape=model.shape_config,
        parameters=model.count_params(),
        quantization=quantization,
        **{name: value for name, value in stated.items() if value is not None},
    )
    write_served_model(directory, described)
    write_warmup_requests(extra, model.shape_config, set(signatures))
