"""Small adapted models of each family, for PEFT to load (benchmarks/numerics/adapters_in_peft.py).

    python benchmarks/numerics/adapters.py DIR

Writes for each a directory with the base's weights under transformers' names, the adapters' files,
token ids and the logits that tokenmill computes of them.
"""

import os
import sys

import numpy as np
import safetensors.numpy

from tokenmill.export.adapter_files import family_of, write_adapter
from tokenmill.files import write_bytes, write_json
from tokenmill.model.build import build_model
from tokenmill.model.lora import LoraConfig
from tokenmill.model.shape import ModelShape

COMMON = {"layers": 2, "d_model": 32, "heads": 4, "d_ff": 48, "vocab_size": 60,
          "sequence_length": 16}  # fmt: skip
LLAMA = {"positions": "rope", "norm": "rms", "use_bias": False, "mlp": "swiglu", "kv_heads": 2,
         "tie_embeddings": False}  # fmt: skip
GPT2 = {"positions": "learned", "norm": "layer", "use_bias": True, "mlp": "gelu",
        "tie_embeddings": True}  # fmt: skip
NEOX = {**GPT2, "positions": "rope"}
BERT = {**GPT2, "causal": False, "norm_position": "post", "type_vocab_size": 2}
SHAPES = {
    "LlamaForCausalLM": ModelShape(**COMMON, **LLAMA),
    "Qwen3ForCausalLM": ModelShape(**COMMON, **LLAMA, head_dim=12, qk_norm=True),
    "GPT2LMHeadModel": ModelShape(**COMMON, **GPT2),
    "GPTNeoXForCausalLM": ModelShape(**COMMON, **NEOX),
    "BertForMaskedLM": ModelShape(**COMMON, **BERT, head="mlm"),
    "BertForSequenceClassification": ModelShape(**COMMON, **BERT, head="classifier", classes=3),
}


def base_tensors(model, family):
    """The base's weights, as transformers names and lays them out."""
    values = {v.path.split("/", 1)[1]: v.numpy() for v in model.base_variables}
    return {
        family.full_name(name, source.head): value
        for path, source in family.sources(model.shape_config)
        if path in values
        for name, value in source.laid_out_there(values[path]).items()
    }


def main(root):
    """Write all directories."""
    chance = np.random.default_rng(1)
    for name, shape in SHAPES.items():
        for targets in (None, ("q", "v", "down")):
            lora = LoraConfig(rank=4, alpha=8.0, targets=targets)
            model = build_model(shape, 1, lora=lora)
            for variable in model.trainable_variables:
                variable.assign(chance.normal(0, 0.2, variable.shape))
            directory = os.path.join(root, f"{name}-{'some' if targets else 'all'}")
            write_adapter(model, directory, None)
            content = safetensors.numpy.save(base_tensors(model, family_of(shape)))
            write_bytes(os.path.join(directory, "base.safetensors"), content)
            ids = chance.integers(5, shape.vocab_size, (2, shape.sequence_length)).astype(np.int32)
            steps = np.broadcast_to(np.arange(shape.sequence_length, dtype=np.int32), ids.shape)
            logits = model(ids, np.ones_like(ids), steps).numpy()
            if shape.head == "classifier":
                logits = logits[:, 0]
            write_json(
                os.path.join(directory, "expected.json"),
                {"class": name, "ids": ids.tolist(), "logits": logits.tolist()},
            )


if __name__ == "__main__":
    main(sys.argv[1])
