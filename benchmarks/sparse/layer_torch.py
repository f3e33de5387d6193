"""CPU seconds of a layer of experts in PyTorch, grouped by expert, beside a dense MLP.

    PEER/bin/python benchmarks/sparse/layer_torch.py

Forward and backward pass of what layer_ours.py computes: 2,048 tokens of 256 features, 8 experts of
512, two a token, against a dense MLP of 1,024. Process seconds, as the cores may be shared.
"""

import time

import torch

TOKENS, WIDTH, INNER, EXPERTS, CHOSEN, ROUNDS, STEPS = 2048, 256, 512, 8, 2, 10, 3
gelu = torch.nn.GELU(approximate="tanh")


class Dense(torch.nn.Module):
    """A dense MLP of the same active width."""

    def __init__(self):
        super().__init__()
        self.up = torch.nn.Linear(WIDTH, CHOSEN * INNER, bias=False)
        self.down = torch.nn.Linear(CHOSEN * INNER, WIDTH, bias=False)

    def forward(self, x):
        """Apply the MLP to each token."""
        return self.down(gelu(self.up(x)))


class Experts(torch.nn.Module):
    """Experts one after the other, each over its tokens, as transformers' eager Mixtral."""

    def __init__(self):
        super().__init__()
        self.router = torch.nn.Linear(WIDTH, EXPERTS, bias=False)
        self.up = torch.nn.Parameter(0.02 * torch.randn(EXPERTS, WIDTH, INNER))
        self.down = torch.nn.Parameter(0.02 * torch.randn(EXPERTS, INNER, WIDTH))

    def forward(self, x):
        """Apply the chosen experts to each token."""
        gates, chosen = torch.topk(self.router(x).softmax(-1), CHOSEN)
        gates = gates / gates.sum(-1, keepdim=True)
        y = torch.zeros_like(x)
        for expert in range(EXPERTS):
            token, place = torch.where(chosen == expert)
            own = gelu(x[token] @ self.up[expert]) @ self.down[expert]
            y = y.index_add(0, token, own * gates[token, place][:, None])
        return y


def main() -> None:
    """Print milliseconds of both, in turns."""
    torch.manual_seed(0)
    torch.set_num_threads(2)
    layers = {"dense": Dense(), "experts": Experts()}
    times: dict[str, list[float]] = {name: [] for name in layers}
    for _ in range(ROUNDS):
        x = torch.randn(TOKENS, WIDTH, requires_grad=True)
        for name, layer in layers.items():
            started = time.process_time()
            for _ in range(STEPS):
                layer.zero_grad()
                (layer(x) * x.detach()).sum().backward()
            times[name].append((time.process_time() - started) / STEPS * 1e3)
    for name, each in times.items():
        median = sorted(each)[ROUNDS // 2]
        against = median / sorted(times["dense"])[ROUNDS // 2]
        print(f"{name}: {min(each):.1f} ms least, {median:.1f} median, {against:.2f} x dense")


if __name__ == "__main__":
    main()
