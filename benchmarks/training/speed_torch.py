"""The same decoder as speed_ours.py in PyTorch; one JSON line a round, for speed.py."""

import argparse
import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Pre-norm attention and MLP, in PyTorch's fused forms."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        """[B, T, D] -> [B, T, D]."""
        rows, length, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(rows, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).reshape(rows, length, width))
        up = functional.gelu(self.up(self.mlp_norm(x)), approximate="tanh")
        return x + self.down(up)


class Decoder(nn.Module):
    """Tied embeddings, learned positions; returns the mean loss."""

    def __init__(self, layers: int, width: int, length: int, vocab: int):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, width // 64) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, inputs, targets):
        """int64 [B, T] twice -> scalar."""
        x = self.tokens(inputs) + self.positions.weight
        for block in self.blocks:
            x = block(x)
        logits = self.norm(x) @ self.tokens.weight.T
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def main() -> None:
    """Builds, compiles, then measures a round for each line read."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--compile", action="store_true")
    for name, default in (
        ("layers", 4), ("width", 256), ("length", 256), ("vocab", 8192), ("rows", 16),
        ("steps", 6), ("threads", 2),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = Decoder(options.layers, options.width, options.length, options.vocab)
    tokens = torch.randint(0, options.vocab, (options.rows, options.length + 1))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    optimizer = torch.optim.AdamW(
        model.parameters(), 1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    forward = torch.compile(model) if options.compile else model

    def step():
        optimizer.zero_grad()
        loss = forward(inputs, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    step()
    step()
    for _ in sys.stdin:
        started = time.perf_counter()
        for _ in range(options.steps):
            loss = step()
        seconds = (time.perf_counter() - started) / options.steps
        rate = options.rows * options.length / seconds
        print("RESULT", json.dumps({"tokens_per_second": rate, "loss": loss}), flush=True)


if __name__ == "__main__":
    main()
