"""What can be wrong with a checkpoint: one clear message each, and nothing is unpickled."""

import json
import pathlib
import pickle
import shutil

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from tokenmill.checkpoints.checkpoint import FAMILIES, read_checkpoint
from tokenmill.checkpoints.pooling import write_modules
from tokenmill.contracts.served_model import Pooling
from tokenmill.errors import TokenmillError
from tokenmill.model.build import build_model
from tokenmill.model.shape import ModelShape

GOLDEN = pathlib.Path(__file__).parent / "golden"
SHARD = "model-00002-of-00003.safetensors"


@pytest.fixture
def copy(tmp_path):
    """Makes a copy of a golden checkpoint that can be damaged."""

    def make(name):
        return pathlib.Path(shutil.copytree(GOLDEN / name, tmp_path / name))

    return make


def set_config(directory, **change):
    path = directory / "config.json"
    config = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def set_tensors(directory, change, file="model.safetensors"):
    tensors = load_file(directory / file)
    change(tensors)
    save_file(tensors, directory / file)


def refused(directory, *words, sequence_length=None):
    with pytest.raises(TokenmillError) as caught:
        read_checkpoint(str(directory), sequence_length)
    message = str(caught.value)
    for word in words:
        assert word in message
    assert "\n" not in message
    return message


# The directory


def test_a_name_on_a_hub_is_no_directory():
    refused("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B/config.json", "hf download")


def test_no_config(copy):
    directory = copy("gpt2")
    (directory / "config.json").unlink()
    refused(directory, "config.json: there is no such file")


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"', "\x00", "[" * 100_000])
def test_a_config_that_is_no_object(copy, text):
    directory = copy("gpt2")
    (directory / "config.json").write_text(text)
    refused(directory, "config.json", "JSON")


class Exploding:
    """Pickled, it writes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (pathlib.Path.touch, (pathlib.Path(self.path),))


def test_a_pickle_is_not_opened(copy, tmp_path):
    directory, trace = copy("gpt2"), tmp_path / "was-here"
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps(Exploding(trace)))
    refused(directory, "only pytorch_model.bin", "save_pretrained", "run code")
    assert not trace.exists()


def test_no_weights_at_all(copy):
    directory = copy("gpt2")
    (directory / "model.safetensors").unlink()
    message = refused(directory, "neither model.safetensors nor model.safetensors.index.json")
    assert "only" not in message


# The files


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_truncated_file(tmp_path_factory, data):
    whole = (GOLDEN / "qwen2" / "model.safetensors").read_bytes()
    length = data.draw(st.integers(0, len(whole) - 1))
    directory = tmp_path_factory.mktemp("cut")
    shutil.copy(GOLDEN / "qwen2" / "config.json", directory)
    (directory / "model.safetensors").write_bytes(whole[:length])
    refused(directory, "model.safetensors: no whole safetensors file", "fetch it again")


def test_a_pointer_of_git_lfs(copy):
    directory = copy("gpt2")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
    (directory / "model.safetensors").write_text(pointer)
    refused(directory, "pointer of Git LFS", "git lfs pull")


def test_a_missing_shard(copy):
    directory = copy("llama")
    (directory / SHARD).unlink()
    refused(directory, f"{SHARD} is missing", "Fetch all files")


def test_a_truncated_shard(copy):
    directory = copy("llama")
    content = (directory / SHARD).read_bytes()
    (directory / SHARD).write_bytes(content[:-1])
    refused(directory, f"{SHARD}: no whole safetensors file")


def test_shards_in_each_other_s_place(copy):
    directory = copy("llama")
    other = directory / "model-00001-of-00003.safetensors"
    first, second = other.read_bytes(), (directory / SHARD).read_bytes()
    other.write_bytes(second)
    (directory / SHARD).write_bytes(first)
    refused(directory, other.name, "has no tensor", "mixed up")


def test_a_shard_of_another_split(copy):
    directory = copy("llama")
    set_tensors(directory, lambda t: t.update(extra=np.zeros(3, np.float32)), SHARD)
    refused(directory, f"{SHARD}: it has the tensor extra", "does not say")


@pytest.mark.parametrize(
    "index",
    [
        "{",
        "[]",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": []}',
        '{"weight_map": {"a": 5}}',
        '{"weight_map": {"a": "../model.safetensors"}}',
        '{"weight_map": {"a": "/etc/passwd"}}',
        '{"weight_map": {"a": "pytorch_model.bin"}}',
    ],
)
def test_an_index_that_is_none(copy, index):
    directory = copy("llama")
    (directory / "model.safetensors.index.json").write_text(index)
    refused(directory, "model.safetensors.index.json: ")


# The tensors


def test_a_missing_tensor(copy):
    directory = copy("qwen3")
    set_tensors(directory, lambda t: t.pop("model.layers.1.self_attn.q_norm.weight"))
    refused(directory, "no tensor layers.1.self_attn.q_norm.weight")


def test_fewer_layers_than_config_says(copy):
    directory = copy("gpt2")
    set_config(directory, n_layer=10**12)
    refused(directory, "no tensor h.2.ln_1.weight")


def test_more_layers_than_config_says(copy):
    directory = copy("gpt2")
    set_config(directory, n_layer=1)
    refused(directory, "tensor transformer.h.1.attn.c_attn.bias belongs to no part of a gpt2 model")


def test_a_tensor_of_another_shape(copy):
    directory = copy("bert-mlm")
    name = "bert.encoder.layer.1.intermediate.dense.weight"
    set_tensors(directory, lambda t: t.update({name: np.ones((32, 8), np.float32)}))
    refused(directory, f"model.safetensors: tensor {name} has the shape [32, 8]: expected [32, 16]")


def test_a_vocabulary_of_another_size_than_the_embedding(copy):
    directory = copy("llama-linear")
    set_config(directory, vocab_size=60)
    refused(directory, "model.embed_tokens.weight has the shape [64, 16]: expected [60, 16]")


@pytest.mark.parametrize("dtype", ["float64", "int8", "int64", "float8_e4m3fn", "bool"])
def test_a_tensor_of_another_type(copy, dtype):
    directory = copy("qwen3")
    name = "model.norm.weight"
    kind = getattr(ml_dtypes, dtype, dtype)
    set_tensors(directory, lambda t: t.update({name: np.ones(16).astype(kind)}))
    refused(directory, f"tensor {name} has the type", "expected one of F32, F16, BF16")


def test_an_unknown_tensor(copy):
    directory = copy("llama-linear")
    name = "model.layers.0.self_attn.k_norm.weight"
    set_tensors(directory, lambda t: t.update({name: np.ones(8, np.float32)}))
    refused(directory, f"tensor {name} belongs to no part of a llama model")


def test_one_tensor_under_two_names(copy):
    directory = copy("qwen3")
    set_tensors(directory, lambda t: t.update({"norm.weight": t["model.norm.weight"]}))
    refused(directory, "model.norm.weight and norm.weight are the same one")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("gpt2", "transformer.h.1.mlp.c_proj.weight"),
        ("qwen3", "model.layers.0.self_attn.k_proj.weight"),
        ("qwen2", "model.layers.1.self_attn.v_proj.bias"),
        ("sentences", "embeddings.word_embeddings.weight"),
    ],
)
def test_weights_that_are_not_finite(copy, name, tensor, value):
    directory = copy(name)

    def spoil(tensors):
        tensors[tensor] = tensors[tensor].copy()
        tensors[tensor].flat[[1, 5]] = value

    set_tensors(directory, spoil)
    checkpoint = read_checkpoint(str(directory))
    message = f"model.safetensors: tensor {tensor}: 2 of .* values are not finite"
    with pytest.raises(TokenmillError, match=message):
        checkpoint.assign(build_model(checkpoint.shape, 0))
    with pytest.raises(TokenmillError, match=message):
        checkpoint.weights.check_values()


def test_a_weight_too_large_for_the_type_that_trains(copy):
    directory = copy("gpt2")

    def spoil(tensors):
        tensors["transformer.wte.weight"][3, 3] = np.finfo(np.float32).max

    set_tensors(directory, spoil)
    checkpoint = read_checkpoint(str(directory))
    assert checkpoint.assign(build_model(checkpoint.shape, 0)) == []
    with pytest.raises(TokenmillError, match="1 of 1,024 values are not finite in bfloat16"):
        checkpoint.assign(build_model(checkpoint.shape, 0, "bfloat16"))


@pytest.mark.parametrize("name", ["qwen3", "bert-mlm"])
def test_tied_matrices_that_differ(copy, name):
    directory = copy(name)
    tied, table = {
        "qwen3": ("lm_head.weight", "model.embed_tokens.weight"),
        "bert-mlm": ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
    }[name]

    def spoil(tensors):
        tensors[tied] = tensors[table].copy()
        tensors[tied][9, 0] += 1

    set_tensors(directory, spoil)
    checkpoint = read_checkpoint(str(directory))
    with pytest.raises(TokenmillError, match=f"{tied} differs from {table} in row 9") as caught:
        checkpoint.assign(build_model(checkpoint.shape, 0))
    assert "tie_word_embeddings = false" in str(caught.value)
    # What the message says to do works.
    set_config(directory, tie_word_embeddings=False)
    checkpoint = read_checkpoint(str(directory))
    model = build_model(checkpoint.shape, 0)
    assert checkpoint.assign(model) == []
    kernel = model.output_layer.kernel.numpy()
    table = model.token_embedding.embeddings.numpy()
    assert kernel[0, 9] == pytest.approx(table[9, 0] + 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"d_ff": 48}, "model.d_ff = 48, there 32"),
        ({"norm_epsilon": 1e-3}, "model.norm_epsilon = 0.001, there 1e-06"),
        ({"rope_base": 10_000.0}, "model.rope_base = 10000.0, there 1000000.0"),
        ({"tie_embeddings": False}, "model.tie_embeddings = false, there true"),
        ({"causal": False}, "model.causal = false, there true"),
        ({"sequence_length": 25}, "model.sequence_length = 25"),
    ],
)
def test_a_model_of_another_shape(change, words):
    checkpoint = read_checkpoint(str(GOLDEN / "qwen3"))
    shape = ModelShape(**{**checkpoint.shape.__dict__, **change})
    model = build_model(shape, 0)
    before = [w.numpy() for w in model.trainable_variables]
    with pytest.raises(TokenmillError) as caught:
        checkpoint.assign(model)
    assert words in str(caught.value)
    for old, new in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


# The settings


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("llama", {"model_type": "roberta"}, "model_type = 'roberta': expected one of bert, gpt2"),
        ("llama", {"model_type": ...}, "model_type is missing"),
        ("llama", {"auto_map": {"AutoModel": "m.M"}}, "auto_map"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("llama", {"architectures": ["LlamaForTokenClassification"]}, "LlamaForCausalLM"),
        ("llama", {"architectures": ...}, "architectures is missing"),
        ("llama", {"hidden_act": "relu2"}, "hidden_act = 'relu2': expected one of silu"),
        ("llama", {"attention_bias": True}, "attention_bias = True: expected false as mlp_bias"),
        ("llama", {"mlp_bias": True}, "attention_bias = False: expected true as mlp_bias"),
        ("llama", {"attention_bias": "yes"}, "attention_bias = 'yes': expected true or false"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5: expected 1"),
        ("llama", {"use_parallel_residual": False}, "use_parallel_residual = False"),
        ("llama", {"final_logit_softcapping": 30.0}, "final_logit_softcapping = 30.0"),
        ("llama", {"hidden_size": ...}, "hidden_size is missing: expected a whole number"),
        ("llama", {"hidden_size": "16"}, "hidden_size = '16'"),
        ("llama", {"head_dim": None, "num_attention_heads": 3}, "d_model = 16"),
        ("llama", {"num_attention_heads": 3, "num_key_value_heads": 2}, "divisor of heads = 3"),
        ("llama", {"head_dim": 7}, "head_dim = 7: expected an even number"),
        ("llama", {"rms_norm_eps": 10**400}, "rms_norm_eps = 1000"),
        ("llama", {"a\nb": 1}, "a\\nb = 1"),
        ("llama", {"num_hidden_layers": True}, "num_hidden_layers = True"),
        ("llama", {"rms_norm_eps": 0}, "rms_norm_eps = 0: expected a number above 0"),
        ("llama", {"rope_theta": 7.0}, "rope_theta = 7.0: expected 100.0, as in rope_parameters"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "none beside rope_parameters"),
        ("llama", {"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters.rope_type = 'yarn'"),
        ("llama", {"rope_parameters": {"type": "dynamic"}}, "rope_parameters.type = 'dynamic'"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "llama3"}},
            "rope_parameters.factor is missing",
        ),
        ("llama", {"rope_parameters": {"full_attention": {}}}, "rope_parameters.full_attention"),
        ("llama", {"rope_parameters": {"attention_factor": 2}}, "rope_parameters.attention_factor"),
        ("llama", {"rope_parameters": 5}, "rope_parameters = 5: expected an object"),
        ("mistral", {"sliding_window": 23}, "sliding_window = 23: expected at least 24"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8}, "sliding_window = 8"),
        ("qwen2", {"layer_types": ["linear_attention", "full_attention"]}, "layer_types"),
        ("qwen2", {"use_mrope": True}, "use_mrope = True: expected false"),
        ("qwen3", {"attention_bias": True}, "attention_bias = True: expected false"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights = False: expected true"),
        ("gpt2", {"activation_function": "relu"}, "activation_function = 'relu'"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention = True"),
        ("bert-mlm", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("bert-mlm", {"is_decoder": True}, "is_decoder = True: expected false"),
        ("bert-mlm", {"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ("bert-classifier", {"problem_type": "regression"}, "problem_type = 'regression'"),
        ("bert-classifier", {"id2label": {"0": "x"}}, "at least two classes"),
        ("bert-classifier", {"id2label": {"1": "x", "2": "y"}}, "the keys 0 to 1"),
        ("bert-classifier", {"id2label": {"0": "x", "1": "y"}}, "[3, 16]: expected [2, 16]"),
    ],
)
def test_a_setting_that_cannot_be_expressed_is_named(copy, name, change, words):
    directory = copy(name)
    set_config(directory, **change)
    if "expected [" not in words:
        for file in directory.glob("*.safetensors"):  # told before any weight is looked at
            file.write_bytes(b"")
    refused(directory, "config.json", words)


@pytest.mark.parametrize("name", [p.name for p in sorted(GOLDEN.iterdir()) if p.is_dir()])
def test_settings_that_change_nothing(copy, name):
    directory = copy(name)
    set_config(
        directory, use_cache=False, torch_dtype="bfloat16", attention_dropout=0.3, unknown=None,
        task_specific_params={"x": 1}, pretraining_tp=2, _name_or_path="x", pruned_heads={},
    )  # fmt: skip
    assert read_checkpoint(str(directory)).shape == read_checkpoint(str(GOLDEN / name)).shape


def test_longer_rows_than_the_model_was_made_for():
    refused(GOLDEN / "gpt2", "model.sequence_length = 25", "at most 24", sequence_length=25)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
KEYS = sorted(
    {key for path in GOLDEN.glob("*/config.json") for key in json.loads(path.read_text())}
    | {"sliding_window", "rope_scaling", "rope_theta", "num_labels", "n_inner", "problem_type"}
)


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(["gpt2", "llama", "mistral", "qwen2", "qwen3", "bert-classifier"]),
    change=st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=3),
)
def test_any_setting_builds_a_model_or_is_refused(tmp_path_factory, name, change):
    directory = tmp_path_factory.mktemp("any")
    for file in (GOLDEN / name).iterdir():
        if file.suffix != ".npz" and file.is_file():
            (directory / file.name).symlink_to(file)
    (directory / "config.json").unlink()
    config = json.loads((GOLDEN / name / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **change}))
    try:
        checkpoint = read_checkpoint(str(directory))
        assert checkpoint.family in FAMILIES
        # The sizes are those of the tensors, so it is small. Tied matrices may differ.
        assert checkpoint.assign(build_model(checkpoint.shape, 0)) == []
    except TokenmillError:
        return


# sentence-transformers


def set_modules(directory, *kinds, **pooling):
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    (directory / "modules.json").write_text(json.dumps(listed))
    config = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": False, **pooling}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(config))


TRANSFORMER, POOLING = ("", "Transformer"), ("1_Pooling", "Pooling")


def test_a_pooling_by_the_first_token_without_normalization(copy):
    directory = copy("sentences")
    set_modules(directory, TRANSFORMER, POOLING, pooling_mode_cls_token=True)
    pooling = read_checkpoint(str(directory)).pooling
    assert (pooling.mode, pooling.normalized) == ("cls", False)


def test_a_transformer_in_a_directory_of_its_own(copy):
    directory = copy("sentences")
    inner = directory / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "model.safetensors"):
        (directory / name).rename(inner / name)
    modules = [("0_Transformer", "Transformer"), POOLING, ("2_Normalize", "Normalize")]
    set_modules(directory, *modules, pooling_mode_mean_tokens=True)
    checkpoint = read_checkpoint(str(directory))
    assert checkpoint.directory == str(inner)
    assert checkpoint.pooling.normalized


@pytest.mark.parametrize(
    ("modules", "pooling", "words"),
    [
        ([TRANSFORMER], {}, "the modules are Transformer: expected"),
        ([TRANSFORMER, POOLING, ("2_Dense", "Dense")], {}, "Transformer, Pooling, Dense"),
        ([("../x", "Transformer"), POOLING], {}, "path = '../x'"),
        ([("/etc", "Transformer"), POOLING], {}, "path = '/etc'"),
        ([TRANSFORMER, POOLING], {"pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
        ([TRANSFORMER, POOLING], {}, "no pooling_mode is true"),
        (
            [TRANSFORMER, POOLING],
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "pooling_mode_mean_tokens and pooling_mode_cls_token",
        ),
        (
            [TRANSFORMER, POOLING],
            {"pooling_mode_mean_tokens": True, "word_embedding_dimension": 5},
            "word_embedding_dimension = 5: expected 16",
        ),
        ([TRANSFORMER, POOLING], {"pooling_mode_mean_tokens": 1}, "expected true or false"),
    ],
)
def test_what_sentence_transformers_has_besides(copy, modules, pooling, words):
    directory = copy("sentences")
    set_modules(directory, *modules, **pooling)
    refused(directory, words)


SIX = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}


def test_a_directory_that_sentence_transformers_6_saved(copy):
    directory = copy("sentences")
    kinds = ("base.modules.transformer.Transformer", "modules.pooling.Pooling")
    listed = [{"path": path, "type": f"sentence_transformers.{kind}"}
              for path, kind in zip(("", "1_Pooling"), kinds, strict=True)]  # fmt: skip
    (directory / "modules.json").write_text(json.dumps(listed))
    pooling = {"embedding_dimension": 16, "pooling_mode": "cls", "include_prompt": True}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (directory / "sentence_bert_config.json").write_text(json.dumps(SIX))
    (directory / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 12}))
    found = read_checkpoint(str(directory)).pooling
    assert (found.mode, found.normalized, found.max_tokens) == ("cls", False, 12)


@pytest.mark.parametrize(
    ("module", "tokenizer", "longest"),
    [
        ({"max_seq_length": 20, "do_lower_case": False}, {"model_max_length": 10}, 20),
        ({"max_seq_length": None}, {"model_max_length": 10}, 10),
        ({"max_seq_length": 9999}, {}, 24),  # more than the model has positions
        ({}, {"model_max_length": 1000000000000000019884624838656}, 24),
        ({}, {"model_max_length": 1e30}, 24),
        (None, None, 24),
    ],
)
def test_where_texts_are_cut(copy, module, tokenizer, longest):
    """As in sentence-transformers 6.2: the module says, else the tokenizer, else the model."""
    directory = copy("sentences")
    for name, values in (("sentence_bert", module), ("tokenizer", tokenizer)):
        if values is not None:
            (directory / f"{name}_config.json").write_text(json.dumps(values))
    assert read_checkpoint(str(directory), sequence_length=1).pooling.max_tokens == longest


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("sentence_bert", {"max_seq_length": 2}, "max_seq_length = 2: expected at least 3"),
        ("sentence_bert", {"max_seq_length": "x"}, "max_seq_length = 'x'"),
        ("sentence_bert", {"do_lower_case": True}, "do_lower_case = True: expected false"),
        ("sentence_bert", {"query_length": 3}, "query_length = 3: expected no such setting"),
        ("tokenizer", {"model_max_length": 2}, "model_max_length = 2: expected at least 3"),
        ("tokenizer", {"model_max_length": -1}, "model_max_length = -1"),
    ],
)
def test_what_a_sentence_transformer_cannot_say(copy, name, values, words):
    directory = copy("sentences")
    (directory / f"{name}_config.json").write_text(json.dumps(values))
    refused(directory, f"{name}_config.json", words)


@pytest.mark.parametrize("mode", ["mean", "cls"])
@pytest.mark.parametrize("normalized", [True, False])
def test_modules_that_are_written_are_read_again(copy, mode, normalized):
    directory = copy("sentences")
    (directory / "modules.json").unlink()
    shutil.rmtree(directory / "1_Pooling")
    assert read_checkpoint(str(directory)).pooling is None
    pooling = Pooling(mode=mode, normalized=normalized, max_tokens=17)
    for name in write_modules(str(directory), pooling, width=16):
        assert (directory / name).exists()
    # sentence-transformers looks for the directory of each module.
    assert (directory / "2_Normalize").exists() == normalized
    assert read_checkpoint(str(directory)).pooling == pooling


def test_a_decoder_with_a_pooling(copy):
    directory = copy("llama")
    (directory / "1_Pooling").mkdir()
    set_modules(directory, TRANSFORMER, POOLING, pooling_mode_mean_tokens=True)
    refused(directory, "modules.json pools what a decoder computes", "remove modules.json")
