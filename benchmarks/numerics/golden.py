"""Golden logits from the independent models of Hugging Face transformers, in PyTorch.

    uv venv --python 3.11 PEER && uv pip install --python PEER/bin/python torch transformers numpy
    PEER/bin/python benchmarks/numerics/golden.py tests/train/golden/transformers.npz

Every weight is a function of its name in tokenmill (`weight`), so that the file needs to hold
inputs and logits only; tests/train/test_numerics.py gives tokenmill's models the same weights.
"""

import sys
import zlib

import numpy as np
import torch
import transformers

VOCAB, LENGTH, WIDTH, HEADS, INNER, LAYERS, CLASSES = 96, 12, 32, 4, 64, 2, 3
LENGTHS = (12, 7)  # tokens of the two rows; the rest is padding


def weight(path, *shape):
    """N(0, 0.2), around 1 for scales; RandomState's streams never change."""
    noise = 0.2 * np.random.RandomState(zlib.crc32(path.encode())).normal(size=shape)
    return noise + (1.0 if path.endswith(("gamma", "scale")) else 0.0)


def kernel(path, rows, columns):
    """torch.nn.Linear keeps [out, in]."""
    return weight(f"{path}/kernel", rows, columns).T


def common(config_class, **options):
    return config_class(vocab_size=VOCAB, attn_implementation="eager", **options)


def gpt2():
    config = common(
        transformers.GPT2Config, n_positions=LENGTH, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS,
        n_inner=INNER, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
    )  # fmt: skip
    state = {
        "transformer.wte.weight": weight("token_embedding/embeddings", VOCAB, WIDTH),
        "transformer.wpe.weight": weight("position_embedding/embeddings", LENGTH, WIDTH),
        "transformer.ln_f.weight": weight("final_norm/gamma", WIDTH),
        "transformer.ln_f.bias": weight("final_norm/beta", WIDTH),
    }
    for i in range(LAYERS):
        ours, theirs = f"layer{i}", f"transformer.h.{i}"
        for norm, name in (("ln_1", "attention_norm"), ("ln_2", "mlp_norm")):
            state[f"{theirs}.{norm}.weight"] = weight(f"{ours}/{name}/gamma", WIDTH)
            state[f"{theirs}.{norm}.bias"] = weight(f"{ours}/{name}/beta", WIDTH)
        for module, name, rows, columns in (
            ("attn.c_attn", "attention/qkv", WIDTH, 3 * WIDTH),
            ("attn.c_proj", "attention/output_projection", WIDTH, WIDTH),
            ("mlp.c_fc", "mlp/up", WIDTH, INNER),
            ("mlp.c_proj", "mlp/down", INNER, WIDTH),
        ):  # GPT-2's Conv1D keeps [in, out]
            state[f"{theirs}.{module}.weight"] = weight(f"{ours}/{name}/kernel", rows, columns)
            state[f"{theirs}.{module}.bias"] = weight(f"{ours}/{name}/bias", columns)
    state["lm_head.weight"] = state["transformer.wte.weight"]
    return transformers.GPT2LMHeadModel(config), state


def llama():
    config = common(
        transformers.LlamaConfig, hidden_size=WIDTH, intermediate_size=INNER, rms_norm_eps=1e-6,
        num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=2,
        max_position_embeddings=LENGTH, tie_word_embeddings=False,
    )  # fmt: skip
    state = {
        "model.embed_tokens.weight": weight("token_embedding/embeddings", VOCAB, WIDTH),
        "model.norm.weight": weight("final_norm/scale", WIDTH),
        "lm_head.weight": kernel("output_layer", WIDTH, VOCAB),
    }
    for i in range(LAYERS):
        ours, theirs = f"layer{i}", f"model.layers.{i}"
        state[f"{theirs}.input_layernorm.weight"] = weight(f"{ours}/attention_norm/scale", WIDTH)
        state[f"{theirs}.post_attention_layernorm.weight"] = weight(f"{ours}/mlp_norm/scale", WIDTH)
        qkv = kernel(f"{ours}/attention/qkv", WIDTH, 2 * WIDTH)  # 4 + 2 + 2 heads of 8
        for part, rows in zip("qkv", np.split(qkv, [WIDTH, WIDTH + WIDTH // 2]), strict=True):
            state[f"{theirs}.self_attn.{part}_proj.weight"] = rows
        for module, name, rows, columns in (
            ("self_attn.o_proj", "attention/output_projection", WIDTH, WIDTH),
            ("mlp.gate_proj", "mlp/gate", WIDTH, INNER),
            ("mlp.up_proj", "mlp/up", WIDTH, INNER),
            ("mlp.down_proj", "mlp/down", INNER, WIDTH),
        ):
            state[f"{theirs}.{module}.weight"] = kernel(f"{ours}/{name}", rows, columns)
    return transformers.LlamaForCausalLM(config), state


def bert(model_class, **options):
    config = common(
        transformers.BertConfig, hidden_size=WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, intermediate_size=INNER, hidden_act="gelu_new",
        max_position_embeddings=LENGTH, type_vocab_size=2, hidden_dropout_prob=0,
        attention_probs_dropout_prob=0, **options,
    )  # fmt: skip
    state = {}

    def norm(theirs, ours):
        state[f"{theirs}.weight"] = weight(f"{ours}/gamma", WIDTH)
        state[f"{theirs}.bias"] = weight(f"{ours}/beta", WIDTH)

    def dense(theirs, ours, rows, columns):
        state[f"{theirs}.weight"] = kernel(ours, rows, columns)
        state[f"{theirs}.bias"] = weight(f"{ours}/bias", columns)

    for kind, name, rows in (
        ("word", "token", VOCAB), ("position", "position", LENGTH), ("token_type", "type", 2),
    ):  # fmt: skip
        table = weight(f"{name}_embedding/embeddings", rows, WIDTH)
        state[f"bert.embeddings.{kind}_embeddings.weight"] = table
    norm("bert.embeddings.LayerNorm", "embedding_norm")
    for i in range(LAYERS):
        ours, theirs = f"layer{i}", f"bert.encoder.layer.{i}"
        qkv = kernel(f"{ours}/attention/qkv", WIDTH, 3 * WIDTH)
        bias = weight(f"{ours}/attention/qkv/bias", 3 * WIDTH)
        for j, part in enumerate(("query", "key", "value")):
            state[f"{theirs}.attention.self.{part}.weight"] = np.split(qkv, 3)[j]
            state[f"{theirs}.attention.self.{part}.bias"] = np.split(bias, 3)[j]
        dense(f"{theirs}.attention.output.dense", f"{ours}/attention/output_projection",
              WIDTH, WIDTH)  # fmt: skip
        norm(f"{theirs}.attention.output.LayerNorm", f"{ours}/attention_norm")
        dense(f"{theirs}.intermediate.dense", f"{ours}/mlp/up", WIDTH, INNER)
        dense(f"{theirs}.output.dense", f"{ours}/mlp/down", INNER, WIDTH)
        norm(f"{theirs}.output.LayerNorm", f"{ours}/mlp_norm")
    if model_class is transformers.BertForMaskedLM:
        dense("cls.predictions.transform.dense", "head_dense", WIDTH, WIDTH)
        norm("cls.predictions.transform.LayerNorm", "head_norm")
        state["cls.predictions.bias"] = weight("output_bias", VOCAB)
        state["cls.predictions.decoder.bias"] = state["cls.predictions.bias"]
        state["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"]
    else:
        dense("bert.pooler.dense", "pooler", WIDTH, WIDTH)
        dense("classifier", "classifier", WIDTH, CLASSES)
    return model_class(config), state


def main() -> None:
    """Writes the file named by the first argument."""
    inputs = np.random.RandomState(1).randint(4, VOCAB, (len(LENGTHS), LENGTH))
    used = np.arange(LENGTH)[None] < np.array(LENGTHS)[:, None]
    inputs = np.where(used, inputs, 0)
    golden = {"inputs": inputs.astype(np.int32), "lengths": np.array(LENGTHS, np.int32)}
    models = {
        "gpt2": gpt2(),
        "llama": llama(),
        "bert-mlm": bert(transformers.BertForMaskedLM),
        "bert-classifier": bert(transformers.BertForSequenceClassification, num_labels=CLASSES),
    }
    for name, (model, state) in models.items():
        tensors = {k: torch.tensor(v, dtype=torch.float32) for k, v in state.items()}
        missing = model.load_state_dict(tensors, strict=False)
        left = [k for k in missing.missing_keys if not k.endswith(("attn.bias", "position_ids"))]
        assert not left, left
        assert not missing.unexpected_keys, missing.unexpected_keys
        with torch.no_grad():
            logits = model.eval()(
                torch.tensor(inputs), attention_mask=torch.tensor(used.astype(np.int64))
            ).logits
        golden[name] = logits.numpy()
    golden["versions"] = np.array(f"torch {torch.__version__}, {transformers.__version__}")
    np.savez_compressed(sys.argv[1], **golden)


if __name__ == "__main__":
    main()
