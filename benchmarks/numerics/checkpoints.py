"""Tiny checkpoints of every family with random weights, and what transformers computes with them.

    uv venv --python 3.11 PEER && uv pip install --python PEER/bin/python torch transformers
    PEER/bin/python benchmarks/numerics/checkpoints.py tests/checkpoints/golden

Each directory is as `save_pretrained` writes it; expected.npz beside it has the hidden states
behind the embeddings and every layer, the logits, and the rows that they are of. The directory
qwen3-gradients holds, under the weights' names, the gradients of the mean loss of one step.
"""

import json
import pathlib
import shutil
import sys

import numpy as np
import torch
import transformers

VOCAB, LENGTH, WIDTH, INNER, LAYERS, CLASSES = 64, 24, 16, 32, 2, 3
LENGTHS = (24, 15)  # tokens of the two rows; the rest is padding

DECODER = {
    "vocab_size": VOCAB, "hidden_size": WIDTH, "intermediate_size": INNER,
    "num_hidden_layers": LAYERS, "num_attention_heads": 2, "max_position_embeddings": LENGTH,
}  # fmt: skip
ENCODER = {
    **DECODER, "type_vocab_size": 2, "hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0,
}  # fmt: skip


def rope(base, **scaling):
    return {"rope_type": "default", "rope_theta": base, **scaling}


# Frequencies 1, 0.32, 0.1, 0.032: kept, mixed and, twice, lowered.
LLAMA3 = rope(
    100.0, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=32,
)  # fmt: skip

MODELS = {
    "gpt2": transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=VOCAB, n_positions=LENGTH, n_embd=WIDTH, n_layer=LAYERS, n_head=2,
            resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, attn_implementation="eager",
        )
    ),
    "llama": transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            **DECODER, num_key_value_heads=1, rms_norm_eps=1e-5, rope_parameters=LLAMA3,
            attn_implementation="eager",
        )
    ),
    "llama-linear": transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            **DECODER, rope_parameters=rope(1000.0, rope_type="linear", factor=2.0),
            attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
            attn_implementation="eager",
        )
    ),
    "mistral": transformers.MistralForCausalLM(
        transformers.MistralConfig(
            **DECODER, num_key_value_heads=2, head_dim=12, sliding_window=LENGTH,
            rms_norm_eps=1e-5, attn_implementation="eager",
        )
    ),
    "qwen2": transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            **DECODER, num_key_value_heads=1, tie_word_embeddings=True,
            rope_parameters=rope(1_000_000.0), attn_implementation="eager",
        )
    ),
    "qwen3": transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(
            **DECODER, num_key_value_heads=1, head_dim=12, tie_word_embeddings=True,
            rope_parameters=rope(1_000_000.0), attn_implementation="eager",
        )
    ),
    "bert-mlm": transformers.BertForMaskedLM(
        transformers.BertConfig(**ENCODER, attn_implementation="eager")
    ),
    "bert-classifier": transformers.BertForSequenceClassification(
        transformers.BertConfig(
            **ENCODER, id2label={0: "red", 1: "green", 2: "blue"}, attn_implementation="eager"
        )
    ),
    "sentences": transformers.BertModel(
        transformers.BertConfig(**ENCODER, attn_implementation="eager")
    ),
    "mixtral": transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            **DECODER, num_key_value_heads=1, num_local_experts=5, num_experts_per_tok=2,
            attn_implementation="eager",
        )
    ),
    "qwen2-moe": transformers.Qwen2MoeForCausalLM(
        transformers.Qwen2MoeConfig(
            **{**DECODER, "num_hidden_layers": 3}, num_key_value_heads=1, num_experts=6,
            num_experts_per_tok=3, moe_intermediate_size=8, shared_expert_intermediate_size=16,
            decoder_sparse_step=2, attn_implementation="eager",
        )
    ),
    "qwen3-moe": transformers.Qwen3MoeForCausalLM(
        transformers.Qwen3MoeConfig(
            **DECODER, num_key_value_heads=1, head_dim=12, num_experts=4, num_experts_per_tok=2,
            moe_intermediate_size=8, norm_topk_prob=True, mlp_only_layers=[0],
            attn_implementation="eager",
        )
    ),
}  # fmt: skip
# How the weights are stored; what is expected is computed in float32 from the stored values.
STORED = {"qwen2": torch.bfloat16, "mistral": torch.float16}
SHARDED = {"llama"}


def randomize(model, seed):
    """N(0, 0.2), around 1 for the scales of norms, so that every weight matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            scale = "norm" in name.lower() or ".ln_" in name
            center = 1.0 if scale and name.endswith("weight") else 0.0
            weight.copy_(center + 0.2 * torch.randn(weight.shape, generator=generator))
    model.tie_weights()


def save(model, directory, sharded=False):
    model.save_pretrained(directory, **({"max_shard_size": "12KB"} if sharded else {}))
    for path in directory.iterdir():
        if path.name != "config.json" and "safetensors" not in path.name:
            path.unlink()


def modules(directory):
    """The files of sentence-transformers, as all-MiniLM-L6-v2 has them."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    (directory / "modules.json").write_text(json.dumps(listed, indent=2))
    (directory / "1_Pooling").mkdir(exist_ok=True)
    pooling = {
        "word_embedding_dimension": WIDTH,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
    }
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2))


def gradients(model, inputs, used, directory):
    """Save the gradients of the mean loss over all next tokens that are there."""
    logits = model(inputs, attention_mask=used).logits
    counted = (used[:, 1:] > 0).flatten()
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, VOCAB)[counted], inputs[:, 1:].flatten()[counted]
    )
    loss.backward()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.grad)
    save(model, directory)
    return loss.item()


def main() -> None:
    """Writes into the directory that the first argument names."""
    target = pathlib.Path(sys.argv[1])
    shutil.rmtree(target, ignore_errors=True)
    rows = np.random.RandomState(1).randint(4, VOCAB, (len(LENGTHS), LENGTH))
    here = np.arange(LENGTH)[None] < np.array(LENGTHS)[:, None]
    rows = np.where(here, rows, 0)
    inputs, used = torch.tensor(rows), torch.tensor(here.astype(np.int64))
    expected = {"inputs": rows.astype(np.int32), "lengths": np.array(LENGTHS, np.int32)}
    for seed, (name, model) in enumerate(MODELS.items()):
        randomize(model, seed)
        if name in STORED:
            model.to(STORED[name])
        save(model, target / name, sharded=name in SHARDED)
        # From the files, as a user would: `to` also rounds the buffer of RoPE's frequencies.
        model = (
            type(model)
            .from_pretrained(target / name, dtype=torch.float32, attn_implementation="eager")
            .eval()
        )
        with torch.no_grad():
            out = model(inputs, attention_mask=used, output_hidden_states=True)
        expected[f"{name}/hidden"] = np.stack([h.numpy() for h in out.hidden_states])
        if name == "sentences":
            modules(target / name)
        else:
            expected[f"{name}/logits"] = out.logits.numpy()
        if name == "qwen3":
            expected["loss"] = gradients(model, inputs, used, target / "qwen3-gradients")
    expected["versions"] = np.array(f"torch {torch.__version__}, {transformers.__version__}")
    np.savez_compressed(target / "expected.npz", **expected)


if __name__ == "__main__":
    main()
