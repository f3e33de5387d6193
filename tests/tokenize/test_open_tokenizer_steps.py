"""An imported tokenizer through the steps: trainer, Transform, packer, and the pushed model."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf
from open_tokenizers import TEXTS, E, values_of, write_files
from tfx.types import artifact_utils, channel_utils, standard_artifacts
from tokenizers import Tokenizer as Library
from tokenizers import decoders

from components.artifacts import Examples, PackedRows, Tokenizer
from components.pack.component import Packer, PackerExecutor
from components.pack.job import PackJob
from components.tokenize.component import TokenizerTrainerExecutor, TokenizingTransform
from components.tokenize.config import TokenizerConfig
from components.tokenize.import_model import resolve_model
from pipeline.base_model import tokenizer_values
from pipeline.loader import load_config
from tokenmill.beam_arguments import beam_arguments
from tokenmill.contracts.tokenizer import DESCRIPTION_NAME, TOKENIZER_MODEL_NAME
from tokenmill.errors import TokenmillError
from tokenmill.export.saved_model import export_model
from tokenmill.model.decoder import Decoder
from tokenmill.model.shape import ModelShape
from tokenmill.records.documents import document_batch, encode_documents
from tokenmill.records.splits import split_directory
from tokenmill.records.tfrecord import write_tfrecords
from tokenmill.rows.masking import mask_batch
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.rows.token_flags import CONTROL, STARTS_WORD, token_flags
from tokenmill.text.tokenizers.load import read_tokenizer

LENGTH = 64
FEATURE = 'feature { name: "%s" type: %s presence { min_fraction: 1 } shape { dim { size: 1 } } }\n'
SCHEMA = "".join(
    FEATURE % pair
    for pair in (("doc_id", "BYTES"), ("source", "BYTES"), ("text", "BYTES"), ("byte_count", "INT"))
)
_BERT_TOKENS = ("pad", "cls", "sep", "mask")
CONFIGS = {
    "GPT-2": {"bos_token": E, "eos_token": E, "unk_token": E},
    "BERT, uncased": {
        f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "CLS", "MASK", "SEP")
    },
}


def with_uri(artifact, path):
    artifact.uri = str(path)
    return artifact


def library_of(kind):
    library = Library.from_str(json.dumps(values_of(kind)))
    library.no_truncation()
    library.no_padding()
    return library


def pack(home, kind, task):
    """Runs the three steps; returns {artifact's name: uri}."""
    directory = write_files(home / "hf", values_of(kind), tokenizer_config=CONFIGS[kind])
    taken = {key: value for (_, key), value in tokenizer_values(directory).items()}
    config, sha256, _ = resolve_model(TokenizerConfig(**taken, path=directory), task)
    examples = with_uri(Examples(), home / "examples")
    for split, texts in (("train", TEXTS), ("eval", TEXTS[:5])):
        ids = [b"%s-%03d" % (split.encode(), i) for i in range(len(texts))]
        batch = document_batch(ids, [b"s"] * len(ids), [text.encode() for text in texts])
        path = os.path.join(split_directory(examples.uri, split), "0.gz")
        write_tfrecords(path, [record for _, record in encode_documents(batch)], gzip=True)
    examples.split_names = artifact_utils.encode_split_names(["train", "eval"])
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    tokenizer = with_uri(Tokenizer(), home / "tokenizer")
    schema = with_uri(standard_artifacts.Schema(), home / "schema")
    (home / "schema").mkdir()
    (home / "schema" / "schema.pbtxt").write_text(SCHEMA)
    TokenizerTrainerExecutor(
        TokenizerTrainerExecutor.Context(tmp_dir=str(home / "tmp"), unique_id="1")
    ).Do(
        {"examples": [examples]},
        {"tokenizer": [tokenizer]},
        {"config": config.to_json(), "model_sha256": sha256},
    )
    graph = with_uri(standard_artifacts.TransformGraph(), home / "graph")
    transformed = with_uri(standard_artifacts.Examples(), home / "transformed")
    channels = [channel_utils.as_channel([a]) for a in (examples, schema, tokenizer)]
    component = TokenizingTransform(*channels)
    executor = component.executor_spec.executor_class
    context = executor.Context(
        beam_pipeline_args=beam_arguments(), tmp_dir=str(home / "tmp"), unique_id="2"
    )
    executor(context).Do(
        {"examples": [examples], "schema": [schema], "tokenizer": [tokenizer]},
        {"transform_graph": [graph], "transformed_examples": [transformed]},
        {k: v for k, v in component.exec_properties.items() if v is not None},
    )
    rows = with_uri(PackedRows(), home / "rows")
    job = PackJob(sequence_length=LENGTH, vocab_size=config.vocab_size, task=task)
    inputs = [channel_utils.as_channel([a]) for a in (transformed, tokenizer)]
    PackerExecutor(PackerExecutor.Context(beam_pipeline_args=beam_arguments())).Do(
        {"examples": [transformed], "tokenizer": [tokenizer]},
        {"packed_rows": [rows]},
        dict(Packer(*inputs, job).exec_properties),
    )
    return {"tokenizer": tokenizer.uri, "graph": graph.uri, "rows": rows.uri}


def test_gpt_2_up_to_rows_and_the_pushed_model(tmp_path):
    uris = pack(tmp_path, "GPT-2", "causal-lm")
    library = library_of("GPT-2")
    wanted = sorted([0, *library.encode(text).ids] for text in TEXTS if text)
    split = PackedSplit(uris["rows"], "train")
    assert split.control_ids.by_name() == {"unk": 0, "bos": 0, "eos": 0}
    batch = split.read(np.arange(split.rows))
    used = batch.segment_ids > 0
    # Long texts lie in several parts: all tokens are there, each text begins and ends with E.
    found = np.sort(batch.inputs[used])
    assert found.tolist() == sorted(token for ids in wanted for token in ids)
    assert (batch.targets[used] == 0).sum() == len(wanted)
    with open(os.path.join(uris["tokenizer"], DESCRIPTION_NAME), encoding="utf-8") as source:
        description = json.load(source)
    assert description["model_type"] == "byte-level-bpe"
    assert description["lossy_fraction"] == 0

    path = os.path.join(uris["tokenizer"], TOKENIZER_MODEL_NAME)
    shape = ModelShape(
        layers=1, d_model=8, heads=1, d_ff=8, vocab_size=description["tokens"],
        sequence_length=LENGTH, positions="rope", norm="layer", use_bias=True, mlp="gelu",
        tie_embeddings=True,
    )  # fmt: skip
    decoder = Decoder(shape, 0)
    export_model(decoder, uris["graph"], path, str(tmp_path / "pushed"))
    loaded = tf.saved_model.load(str(tmp_path / "pushed"))
    texts = [TEXTS[0], "x", "<|endoftext|>", TEXTS[1][:20]]
    library.encode_special_tokens, library.decoder = True, decoders.ByteLevel()
    ids = [library.encode(text).ids for text in texts]
    padded = tf.ragged.constant(ids, tf.int32).to_tensor(-1)
    by_text = loaded.signatures["score"](text=tf.constant([text.encode() for text in texts]))
    by_ids = loaded.signatures["score_ids"](token_ids=padded)
    assert by_text["token_count"].numpy().tolist() == [len(some) + 1 for some in ids]
    np.testing.assert_allclose(by_ids["nll_sum"], by_text["nll_sum"], rtol=1e-5)
    logits = loaded.signatures["logits_ids"](token_ids=padded)["logits"]
    assert np.isfinite(logits.numpy()).all()
    options = {
        **{name: tf.constant([value]) for name, value in (("top_k", 0), ("seed", 1))},
        **{"max_new_tokens": tf.constant([8]), "temperature": tf.constant([1.0])},
        **{"top_p": tf.constant([1.0]), "truncate_prompt": tf.constant([False])},
    }
    made = loaded.signatures["generate_ids"](token_ids=padded, **options)
    counts = made["completion_tokens"].numpy()
    for row, count in zip(made["token_ids"].numpy(), counts, strict=True):
        assert (row[:count] > 0).all()
        assert (row[count:] == -1).all()
    text = loaded.signatures["generate"](text=tf.constant([t.encode() for t in texts]), **options)
    rows = [
        row[:count].tolist() for row, count in zip(made["token_ids"].numpy(), counts, strict=True)
    ]
    assert [t.decode() for t in text["text"].numpy()] == [library.decode(row) for row in rows]
    with open(tmp_path / "pushed/assets.extra/tokenizer.json", encoding="utf-8") as source:
        assert json.load(source)["control_ids"] == {"unk": 0, "bos": 0, "eos": 0}


def test_bert_up_to_masked_rows(tmp_path):
    uris = pack(tmp_path, "BERT, uncased", "masked-lm")
    split = PackedSplit(uris["rows"], "train")
    control = split.control_ids
    assert (control.pad, control.unk, control.cls, control.sep, control.mask) == (0, 1, 2, 3, 4)
    batch = split.read(np.arange(split.rows))
    used = batch.segment_ids > 0
    library = library_of("BERT, uncased")
    ids = [library.encode(text, add_special_tokens=False).ids for text in TEXTS]
    ordinary = batch.inputs[used & ~np.isin(batch.inputs, [2, 3])]
    assert np.sort(ordinary).tolist() == sorted(token for some in ids for token in some)
    assert (batch.inputs == 2).sum() == (batch.inputs == 3).sum() >= sum(map(bool, ids))
    numbers = np.arange(split.rows)
    settings = split.mask_settings()
    hidden = mask_batch(batch, numbers, numbers * 0, 1, settings, split.token_flags())
    assert (hidden.inputs == 4).sum() > 0
    assert not hidden.loss_weights[np.isin(batch.inputs, [0, 1, 2, 3])].any()


def test_flags_of_tokens(tmp_path):
    uris = pack(tmp_path, "GPT-2", "causal-lm")
    tokenizer = read_tokenizer(os.path.join(uris["tokenizer"], TOKENIZER_MODEL_NAME))
    flags = token_flags(tokenizer.token_bytes)
    by_text = dict(zip(tokenizer.token_bytes, flags.tolist(), strict=True))
    assert by_text[None] == CONTROL
    assert by_text[b" the"] & STARTS_WORD
    assert not by_text[b"s"] & STARTS_WORD
    assert by_text[b"\xd0"] == 0  # half a letter


def test_what_does_not_go_together_is_said_before_the_run(tmp_path):
    directory = write_files(tmp_path, values_of("GPT-2"), tokenizer_config=CONFIGS["GPT-2"])
    size = len(values_of("GPT-2")["model"]["vocab"])
    config = load_config("demo", None, [f'tokenizer.path="{directory}"'])
    assert (config.tokenizer.model_type, config.tokenizer.vocab_size) == ("byte-level-bpe", size)
    options = [f'tokenizer.path="{directory}"', "tokenizer.vocab_size=700"]
    differing = load_config("demo", None, options).tokenizer
    with pytest.raises(TokenmillError, match=rf"has {size} tokens, but tokenizer.vocab_size = 700"):
        resolve_model(differing, "causal-lm")
    with pytest.raises(TokenmillError, match="masked-lm needs a mask token"):
        resolve_model(config.tokenizer, "masked-lm")
    with pytest.raises(TokenmillError, match="byte-level-bpe"):
        resolve_model(config.tokenizer.model_copy(update={"model_type": "bpe"}), "causal-lm")
