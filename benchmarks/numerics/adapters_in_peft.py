"""Adapters as PEFT reads them: the same logits as tokenmill's.

    uv venv --python 3.11 PEER && uv pip install --python PEER/bin/python torch transformers peft
    python benchmarks/numerics/adapters.py DIR
    PEER/bin/python benchmarks/numerics/adapters_in_peft.py DIR

2026-11-29, PEFT 0.21.2, transformers 5.24.0: at most 8e-7 apart, 0.07 to 1.03 without adapters.
"""

import json
import pathlib
import sys

import numpy as np
import peft
import safetensors.torch
import torch
import transformers

LLAMA = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 16, "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}  # fmt: skip
BERT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 16, "hidden_act": "gelu_new", "layer_norm_eps": 1e-12,
}  # fmt: skip
CONFIGS = {
    "LlamaForCausalLM": (transformers.LlamaConfig, LLAMA),
    "Qwen3ForCausalLM": (transformers.Qwen3Config, {**LLAMA, "head_dim": 12}),
    "GPT2LMHeadModel": (
        transformers.GPT2Config,
        {"n_embd": 32, "n_inner": 48, "n_layer": 2, "n_head": 4, "n_positions": 16},
    ),
    "GPTNeoXForCausalLM": (
        transformers.GPTNeoXConfig,
        {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 16,
            "hidden_act": "gelu_new",
            "use_parallel_residual": False,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "partial_rotary_factor": 1.0,
            },
        },
    ),
    "BertForMaskedLM": (transformers.BertConfig, BERT),
    "BertForSequenceClassification": (transformers.BertConfig, {**BERT, "num_labels": 3}),
}
# Copies of the embedding, and of the bias beside it.
TIED = {"lm_head.weight", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}


def main(root):
    """Print the largest difference for each directory; fail above 1e-5."""
    for directory in sorted(pathlib.Path(root).iterdir()):
        expected = json.loads((directory / "expected.json").read_text())
        config, options = CONFIGS[expected["class"]]
        settings = config(vocab_size=60, attn_implementation="eager", **options)
        model = getattr(transformers, expected["class"])(settings).eval()
        base = safetensors.torch.load_file(directory / "base.safetensors")
        missing, unexpected = model.load_state_dict(base, strict=False)
        assert not unexpected, unexpected
        assert set(missing) <= TIED, missing
        model.tie_weights()
        ids, logits = torch.tensor(expected["ids"]), np.array(expected["logits"])
        plain = np.abs(model(ids).logits.detach().numpy() - logits).max()
        adapted = peft.PeftModel.from_pretrained(model, directory).eval()
        apart = np.abs(adapted(ids).logits.detach().numpy() - logits).max()
        print(f"{directory.name:40} {apart:.1e} with adapters, {plain:.2f} without")
        assert apart < 1e-5


if __name__ == "__main__":
    main(sys.argv[1])
