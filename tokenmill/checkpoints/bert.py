"""BERT (Devlin et al. 2018), and sentence-transformers' models that are built on it."""

from collections.abc import Mapping
from typing import Any

from tokenmill.checkpoints.family import (
    GELU_NAMES,
    GELUS,
    Family,
    Source,
    Sources,
    layer_norm,
    linear,
    read_sizes,
    table,
    write_sizes,
)
from tokenmill.checkpoints.settings import Settings
from tokenmill.model.shape import Head, ModelShape

_ONE_LABEL = "single_label_classification"


def label_names(settings: Settings) -> list[str]:
    """Return the names of a classifier's classes, in their order.

    Raises:
        TokenmillError: They are no names of at least two classes, of which a text has one.
    """
    settings.choice("problem_type", {_ONE_LABEL: True}, _ONE_LABEL)
    names = settings.mapping("id2label")
    count = len(names) or settings.size("num_labels", 2)
    if names and set(names) != {str(i) for i in range(count)}:
        raise settings.refusal("id2label", f"the keys 0 to {count - 1}")
    if count < 2:
        raise settings.refusal(
            "id2label" if names else "num_labels", "at least two classes; one is a regression"
        )
    return [str(names.get(str(i), f"LABEL_{i}")) for i in range(count)]


def _read_shape(settings: Settings, head: Head | None) -> ModelShape:
    options: dict[str, Any] = {}
    if head == "classifier":
        options["classes"] = len(label_names(settings))
    tied = settings.flag("tie_word_embeddings", True)
    return ModelShape(
        **read_sizes(settings),
        positions="learned",
        norm="layer",
        use_bias=True,
        mlp=settings.choice("hidden_act", GELUS, "gelu"),
        # Only a masked-LM head has a matrix to be tied.
        tie_embeddings=tied or head != "mlm",
        causal=False,
        norm_position="post",
        type_vocab_size=settings.size("type_vocab_size", 2),
        norm_epsilon=settings.number("layer_norm_eps", 1e-12),
        head=head or "lm",
        **options,
    )


def _write_settings(shape: ModelShape) -> dict[str, Any]:
    classes = {"num_labels": shape.classes} if shape.head == "classifier" else {}
    return {
        **write_sizes(shape),
        "hidden_act": GELU_NAMES.get(shape.mlp),
        "tie_word_embeddings": shape.tie_embeddings,
        "type_vocab_size": shape.type_vocab_size,
        "layer_norm_eps": shape.epsilon,
        **classes,
    }


def _sources(shape: ModelShape) -> Sources:
    d, embeddings = shape.d_model, "embeddings"
    for ours, theirs, rows in (
        ("token", "word", shape.vocab_size),
        ("position", "position", shape.sequence_length),
        ("type", "token_type", shape.type_vocab_size),
    ):
        parts = f"{ours}_embedding", f"{embeddings}.{theirs}_embeddings", rows, d
        yield from table(*parts, cut=ours == "position")
    yield from layer_norm("embedding_norm", f"{embeddings}.LayerNorm", d)
    for i in range(shape.layers):
        ours, theirs = f"layer{i}", f"encoder.layer.{i}"
        attention, output = f"{ours}/attention", f"{theirs}.attention.output"
        qkv = {f"{theirs}.attention.self.{x}": d for x in ("query", "key", "value")}
        yield from linear(f"{attention}/qkv", qkv, d, bias=True)
        yield from linear(f"{attention}/output_projection", {f"{output}.dense": d}, d, bias=True)
        yield from layer_norm(f"{ours}/attention_norm", f"{output}.LayerNorm", d)
        up, down = {f"{theirs}.intermediate.dense": shape.d_ff}, {f"{theirs}.output.dense": d}
        yield from linear(f"{ours}/mlp/up", up, d, bias=True)
        yield from linear(f"{ours}/mlp/down", down, shape.d_ff, bias=True)
        yield from layer_norm(f"{ours}/mlp_norm", f"{theirs}.output.LayerNorm", d)
    yield from linear("pooler", {"pooler.dense": d}, d, bias=True, head="classifier")
    if shape.head == "classifier":
        classes = {"classifier": shape.classes}
        yield from linear("classifier", classes, d, bias=True, head="classifier")
    if shape.head == "mlm":
        transform = "cls.predictions.transform"
        yield from linear("head_dense", {f"{transform}.dense": d}, d, bias=True, head="mlm")
        yield from layer_norm("head_norm", f"{transform}.LayerNorm", d, head="mlm")
        vocabulary = (shape.vocab_size,)
        yield "output_bias", Source({"cls.predictions.bias": vocabulary}, head="mlm")
        if not shape.tie_embeddings:
            decoder = {"cls.predictions.decoder": shape.vocab_size}
            yield from linear("output_layer", decoder, d, bias=False, head="mlm")


def _copies(shape: ModelShape) -> Mapping[str, str]:
    if shape.head != "mlm":
        return {}
    copies = {"cls.predictions.decoder.bias": "cls.predictions.bias"}
    if shape.tie_embeddings:
        copies["cls.predictions.decoder.weight"] = "embeddings.word_embeddings.weight"
    return copies


BERT = Family(
    name="bert",
    heads={
        "BertForMaskedLM": "mlm",
        "BertForPreTraining": "mlm",
        "BertForSequenceClassification": "classifier",
        "BertModel": None,
    },
    prefix="bert.",
    read_shape=_read_shape,
    write_settings=_write_settings,
    sources=_sources,
    copies=_copies,
    only={"position_embedding_type": ("absolute",)},
    harmless=(
        r"embeddings\.(position_ids|token_type_ids)",
        # The second task of BertForPreTraining: does a sentence follow another.
        r"cls\.seq_relationship\.(weight|bias)",
    ),
    below_prefix=("pooler.",),
    renamed={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
)
