"""Checkpoints that transformers wrote, against what transformers computes with them.

The golden files are made by benchmarks/numerics/checkpoints.py.
"""

import dataclasses
import json
import pathlib
import shutil
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from tokenmill.checkpoints.checkpoint import read_checkpoint
from tokenmill.contracts.served_model import Pooling
from tokenmill.errors import TokenmillError
from tokenmill.model.build import build_model, loss_sums
from tokenmill.model.layers import Dropout, segment_mask
from tokenmill.rows.packed_split import Batch

GOLDEN = pathlib.Path(__file__).parent / "golden"
EXPECTED = np.load(GOLDEN / "expected.npz")
INPUTS = EXPECTED["inputs"]
ROWS, LENGTH = INPUTS.shape
STEPS = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), INPUTS.shape)
LENGTHS = EXPECTED["lengths"][:, None]
SEGMENTS = (STEPS < LENGTHS).astype(np.int32)
USED = SEGMENTS > 0
DECODERS = ["gpt2", "llama", "llama-linear", "mistral", "qwen2", "qwen3"]
DECODERS += ["mixtral", "qwen2-moe", "qwen3-moe"]
MODELS = [*DECODERS, "bert-mlm", "bert-classifier", "sentences"]
TOKEN_HEADS = [*DECODERS, "bert-mlm"]


def load(directory, **change):
    checkpoint = read_checkpoint(str(directory))
    model = build_model(dataclasses.replace(checkpoint.shape, **change), seed=0)
    return checkpoint, model, checkpoint.assign(model)


def hidden_states(model):
    """The outputs of the embeddings and of every layer, [layers + 1, rows, length, width]."""
    x = model.embed(INPUTS, STEPS, Dropout(0.0, None))
    mask = segment_mask(SEGMENTS, model.shape_config.causal)
    states = [x]
    for block in model.blocks:
        x = block(x, mask, STEPS)
        states.append(x)
    if model.final_norm is not None:
        states[-1] = model.final_norm(x)
    return np.stack([np.reshape(state, (ROWS, LENGTH, -1)) for state in states])


@pytest.mark.parametrize("name", MODELS)
def test_hidden_states_are_those_of_transformers(name):
    _, model, _ = load(GOLDEN / name)
    expected = EXPECTED[f"{name}/hidden"]
    assert expected.std() > 0.3
    np.testing.assert_allclose(hidden_states(model)[:, USED], expected[:, USED], atol=1e-4)


@pytest.mark.parametrize("name", TOKEN_HEADS)
def test_logits_are_those_of_transformers(name):
    checkpoint, model, kept = load(GOLDEN / name)
    expected = EXPECTED[f"{name}/logits"]
    assert expected.std() > 0.3
    logits = model(INPUTS, SEGMENTS, STEPS).numpy()
    np.testing.assert_allclose(logits[USED], expected[USED], atol=1e-4)
    assert kept == []
    assert checkpoint.parameters == checkpoint.shape.params_total == model.count_params()


def test_the_logits_of_a_classifier_are_those_of_transformers():
    checkpoint, model, kept = load(GOLDEN / "bert-classifier")
    logits = model(INPUTS, SEGMENTS, STEPS).numpy()[:, 0]
    np.testing.assert_allclose(logits, EXPECTED["bert-classifier/logits"], atol=1e-4)
    assert (checkpoint.head, checkpoint.shape.classes, kept) == ("classifier", 3, [])
    assert checkpoint.label_names == ("red", "green", "blue")


def test_the_gradients_of_a_step_are_those_of_transformers():
    _, model, _ = load(GOLDEN / "qwen3")
    targets = np.roll(INPUTS, -1, axis=1)
    counted = USED & np.roll(USED, -1, axis=1) & (STEPS < LENGTH - 1)
    batch = Batch(INPUTS, targets, SEGMENTS, STEPS, counted.astype(np.float32))
    with tf.GradientTape() as tape:
        sums = loss_sums(model, batch)
        loss = sums.objective / counted.sum()
    found = tape.gradient(loss, model.trainable_variables)
    # Saved under the names of the weights that they are of, so they are read as such.
    _, expected, _ = load(GOLDEN / "qwen3-gradients")
    assert float(loss) == pytest.approx(float(EXPECTED["loss"]), abs=1e-5)
    for theirs, ours in zip(expected.trainable_variables, found, strict=True):
        theirs = theirs.numpy()
        assert np.abs(theirs).max() > 1e-4, "nothing to compare"
        np.testing.assert_allclose(tf.convert_to_tensor(ours), theirs, atol=1e-5, rtol=1e-4)


def test_what_is_read_of_each_checkpoint():
    read = {name: read_checkpoint(str(GOLDEN / name)) for name in MODELS}
    found = {n: (c.family, c.architecture, c.head, c.dtypes) for n, c in read.items()}
    assert found == {
        "gpt2": ("gpt2", "GPT2LMHeadModel", "lm", ("float32",)),
        "llama": ("llama", "LlamaForCausalLM", "lm", ("float32",)),
        "llama-linear": ("llama", "LlamaForCausalLM", "lm", ("float32",)),
        "mistral": ("mistral", "MistralForCausalLM", "lm", ("float16",)),
        "qwen2": ("qwen2", "Qwen2ForCausalLM", "lm", ("bfloat16",)),
        "qwen3": ("qwen3", "Qwen3ForCausalLM", "lm", ("float32",)),
        "mixtral": ("mixtral", "MixtralForCausalLM", "lm", ("float32",)),
        "qwen2-moe": ("qwen2_moe", "Qwen2MoeForCausalLM", "lm", ("float32",)),
        "qwen3-moe": ("qwen3_moe", "Qwen3MoeForCausalLM", "lm", ("float32",)),
        "bert-mlm": ("bert", "BertForMaskedLM", "mlm", ("float32",)),
        "bert-classifier": ("bert", "BertForSequenceClassification", "classifier", ("float32",)),
        "sentences": ("bert", "BertModel", None, ("float32",)),
    }
    llama, qwen3 = read["llama"].shape, read["qwen3"].shape
    assert (llama.kv_heads, llama.rope_scaling, llama.rope_factor) == (1, "llama3", 8.0)
    assert (llama.rope_base, llama.rope_original_length, llama.epsilon) == (100.0, 32, 1e-5)
    assert (qwen3.head_width, qwen3.qk_norm, qwen3.tie_embeddings) == (12, True, True)
    assert [read[n].shape.moe_layers for n in ("mixtral", "qwen2-moe", "qwen3-moe")] == [
        (0, 1),
        (1,),
        (1,),
    ]
    shared = read["qwen2-moe"].shape
    assert (shared.experts, shared.experts_per_token, shared.shared_experts) == (6, 3, 2)
    assert (shared.expert_d_ff, shared.d_ff, shared.normalize_gates) == (8, 32, False)
    assert read["qwen2"].shape.has_qkv_bias
    assert not read["qwen2"].shape.use_bias
    assert read["bert-mlm"].shape.mlp == "gelu_exact"
    assert {n for n, c in read.items() if c.pooling} == {"sentences"}
    assert read["sentences"].pooling == Pooling(mode="mean", normalized=True, max_tokens=24)


def test_a_backbone_is_given_another_head():
    """The pooler comes with it; classes, and a masked-LM head, are to be trained."""
    _, _, kept = load(GOLDEN / "sentences", head="classifier", classes=5)
    assert kept == ["encoder/classifier/kernel", "encoder/classifier/bias"]
    _, model, kept = load(GOLDEN / "sentences", head="mlm")
    assert len(kept) == 5
    assert all(path.startswith(("encoder/head_", "encoder/output_bias")) for path in kept)
    expected = EXPECTED["sentences/hidden"]
    np.testing.assert_allclose(hidden_states(model)[:, USED], expected[:, USED], atol=1e-4)


def test_a_classifier_of_other_classes_is_to_be_trained():
    _, model, kept = load(GOLDEN / "bert-classifier", classes=7)
    assert kept == ["encoder/classifier/kernel", "encoder/classifier/bias"]
    assert model(INPUTS, SEGMENTS, STEPS).shape == (ROWS, LENGTH, 7)


@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
def test_shorter_rows_have_the_same_logits(name):
    length = 9
    checkpoint = read_checkpoint(str(GOLDEN / name), sequence_length=length)
    assert checkpoint.shape.sequence_length == length
    model = build_model(checkpoint.shape, seed=0)
    assert checkpoint.assign(model) == []
    logits = model(INPUTS[:, :length], SEGMENTS[:, :length], STEPS[:, :length]).numpy()
    np.testing.assert_allclose(logits, EXPECTED[f"{name}/logits"][:, :length], atol=1e-4)


def test_matrices_in_16_bits_are_the_stored_ones():
    checkpoint = read_checkpoint(str(GOLDEN / "qwen2"))
    model = build_model(checkpoint.shape, seed=0, precision="bfloat16")
    checkpoint.assign(model)
    stored = load_file(GOLDEN / "qwen2" / "model.safetensors")["model.embed_tokens.weight"]
    table = tf.convert_to_tensor(model.token_embedding.embeddings)
    assert table.dtype == tf.bfloat16
    assert table.numpy().tobytes() == stored.tobytes()


def changed(tmp_path, name, settings=None, tensors=None):
    """A copy of a golden checkpoint with other settings, or with what a function makes of its
    tensors."""
    copy = tmp_path / "copy"
    shutil.copytree(GOLDEN / name, copy)
    if settings is not None:
        config = json.loads((copy / "config.json").read_text())
        config = {k: v for k, v in {**config, **settings}.items() if v is not ...}
        (copy / "config.json").write_text(json.dumps(config))
    if tensors is not None:
        path = copy / "model.safetensors"
        save_file(tensors(load_file(path)), path)
    return copy


def same_logits(directory, name):
    _, model, kept = load(directory)
    assert kept == []
    logits = model(INPUTS, SEGMENTS, STEPS).numpy()
    np.testing.assert_allclose(logits[USED], EXPECTED[f"{name}/logits"][USED], atol=1e-4)


def test_rope_as_transformers_4_wrote_it(tmp_path):
    scaling = json.loads((GOLDEN / "llama" / "config.json").read_text())["rope_parameters"]
    base = scaling.pop("rope_theta")
    old = {"rope_parameters": ..., "rope_theta": base, "rope_scaling": scaling}
    old |= {"dtype": ..., "torch_dtype": "float32", "transformers_version": "4.43.0"}
    same_logits(changed(tmp_path, "llama", old), "llama")


def test_linear_rope_as_the_first_versions_wrote_it(tmp_path):
    old = {"rope_theta": 1000.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    same_logits(changed(tmp_path, "llama-linear", {**old, "rope_parameters": ...}), "llama-linear")


def test_bert_as_it_was_first_published(tmp_path):
    """bert-base-uncased: gamma and beta, pooler, next-sentence head, the tied matrix twice."""

    def old(tensors):
        renamed = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): value
            for name, value in tensors.items()
        }
        width = len(tensors["bert.embeddings.LayerNorm.weight"])
        return renamed | {
            "bert.pooler.dense.weight": np.ones((width, width), np.float32),
            "bert.pooler.dense.bias": np.ones(width, np.float32),
            "cls.seq_relationship.weight": np.ones((2, width), np.float32),
            "cls.seq_relationship.bias": np.ones(2, np.float32),
            "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"],
            "cls.predictions.decoder.bias": tensors["cls.predictions.bias"],
            "bert.embeddings.position_ids": np.arange(LENGTH)[None],
        }

    same_logits(
        changed(tmp_path, "bert-mlm", {"position_embedding_type": "absolute"}, old), "bert-mlm"
    )


def test_gpt2_as_it_was_first_published(tmp_path):
    """Without the prefix, with causal masks among the tensors."""

    def old(tensors):
        mask = {f"h.{i}.attn.bias": np.ones((1, 1, 9, 9), np.float32) for i in range(2)}
        return {k.removeprefix("transformer."): v for k, v in tensors.items()} | mask

    same_logits(changed(tmp_path, "gpt2", {"n_ctx": LENGTH}, old), "gpt2")


def test_a_decoder_without_its_head(tmp_path):
    def backbone(tensors):
        return {k.removeprefix("model."): v for k, v in tensors.items()}

    tied = changed(tmp_path / "tied", "qwen3", {"architectures": ["Qwen3Model"]}, backbone)
    assert read_checkpoint(str(tied)).head is None
    same_logits(tied, "qwen3")
    settings = {"architectures": ["Qwen3Model"], "tie_word_embeddings": False}
    untied = changed(tmp_path / "untied", "qwen3", settings, backbone)
    assert load(untied)[2] == ["decoder/output_layer/kernel"]


def test_padding_rows_of_the_vocabulary_are_kept(tmp_path):
    def padded(tensors):
        table = tensors["model.embed_tokens.weight"]
        more = np.concatenate([table, np.full((8, table.shape[1]), 7, table.dtype)])
        return {**tensors, "model.embed_tokens.weight": more}

    _, model, _ = load(changed(tmp_path, "qwen3", {"vocab_size": 72}, padded))
    table = model.token_embedding.embeddings.numpy()
    assert table.shape == (72, 16)
    assert (table[64:] == 7).all()


def test_a_shorter_window_is_harmless_for_rows_that_are_no_longer(tmp_path):
    copy = changed(tmp_path, "mistral", {"sliding_window": 10})
    with pytest.raises(TokenmillError, match=r"sliding_window = 10: expected at least 24"):
        read_checkpoint(str(copy))
    checkpoint = read_checkpoint(str(copy), sequence_length=10)
    model = build_model(checkpoint.shape, seed=0)
    checkpoint.assign(model)
    logits = model(INPUTS[:, :10], SEGMENTS[:, :10], STEPS[:, :10]).numpy()
    np.testing.assert_allclose(logits, EXPECTED["mistral/logits"][:, :10], atol=1e-4)


def test_no_two_copies_of_the_model_are_held(tmp_path):
    """Beside the model there is room for a few of its tensors, of which there are many."""
    config = json.loads((GOLDEN / "qwen3" / "config.json").read_text())
    layers, width = 16, 256
    config |= {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 4 * width}
    config |= {"layer_types": ["full_attention"] * layers}
    rng, tensors = np.random.default_rng(0), {}
    for name, value in load_file(GOLDEN / "qwen3" / "model.safetensors").items():
        sizes = tuple({16: width, 32: 4 * width}.get(size, size) for size in value.shape)
        for i in range(layers if ".0." in name else 1):
            if ".1." not in name:
                tensors[name.replace(".0.", f".{i}.")] = rng.normal(size=sizes).astype(np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    whole = sum(value.nbytes for value in tensors.values())
    largest = max(value.nbytes for value in tensors.values())
    del tensors
    assert whole > 30 * largest
    checkpoint = read_checkpoint(str(tmp_path))
    model = build_model(checkpoint.shape, seed=0)
    tracemalloc.start()
    try:
        assert checkpoint.assign(model) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * largest + 2**21 < whole / 8
