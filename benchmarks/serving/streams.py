"""Streams of tokens: the gateway beside one-call `generate` and beside transformers.

    uv venv PEER && uv pip install --python PEER/bin/python torch==2.13.0 transformers==5.24.0
    PYTHONPATH=. .venv/bin/python benchmarks/serving/streams.py MODEL_DIR PEER/bin/python

The model is exported by `tokenmill export hf`, so that both have the same weights. In each round
1, 4 and 16 clients ask at once for NEW tokens after a prompt of PROMPT tokens, greedily; prompts
are such that no answer ends before. Printed are medians over rounds: milliseconds to the first
token, and tokens a second of all clients together. transformers answers one client after the other,
and all of them as one batch that begins and ends together, the best that its `generate` can do.
"""

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

PROMPT, NEW, ROUNDS, STREAMS = 32, 64, 3, (1, 4, 16)
PEER = """
import json, sys, time, torch
from transformers import AutoModelForCausalLM
directory, new = sys.argv[1], int(sys.argv[2])
model = AutoModelForCausalLM.from_pretrained(directory).eval()
model.generation_config.eos_token_id = None
def generate(rows, count):
    ids = torch.tensor(rows)
    with torch.inference_mode():
        return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count,
                              do_sample=False, use_cache=True, pad_token_id=0)[:, ids.shape[1]:]
for line in sys.stdin:
    rows = json.loads(line)
    begun = time.perf_counter()
    for row in rows:
        generate([row], new)
    one_by_one = time.perf_counter() - begun
    begun = time.perf_counter()
    tokens = generate(rows, new).tolist()
    batch = time.perf_counter() - begun
    begun = time.perf_counter()
    generate(rows[:1], 1)
    first = time.perf_counter() - begun
    print("RESULT" + json.dumps([one_by_one, batch, first, tokens]), flush=True)
"""


async def stream(client, url, ids):
    """Ask for one answer; return seconds to the first token, and the number of tokens."""
    body = {
        **{"model": "default", "prompt": ids, "max_tokens": NEW, "temperature": 0},
        **{"stream": True, "stream_options": {"include_usage": True}},
    }
    begun, first, tokens = time.perf_counter(), None, 0
    async with client.stream("POST", f"{url}/v1/completions", json=body) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            if first is None:
                first = time.perf_counter() - begun
            usage = json.loads(line[6:]).get("usage")
            tokens = usage["completion_tokens"] if usage else tokens
    return first, tokens


async def gateway(url, rows):
    """Let all clients ask at once; return the median time to the first token, and tokens/s."""
    import httpx

    async with httpx.AsyncClient(timeout=600) as client:
        begun = time.perf_counter()
        answers = await asyncio.gather(*(stream(client, url, row) for row in rows))
        seconds = time.perf_counter() - begun
    return statistics.median(first for first, _ in answers), sum(n for _, n in answers) / seconds


async def one_call(url, rows):
    """The same by TensorFlow Serving's API, the whole answer at once; tokens/s."""
    import httpx

    async with httpx.AsyncClient(timeout=600) as client:

        async def ask(row):
            inputs = {"token_ids": [row[1:]], "max_new_tokens": [NEW]}
            body = {"signature_name": "generate_ids", "inputs": inputs}
            answer = await client.post(f"{url}/v1/models/default:predict", json=body)
            assert answer.status_code == 200, answer.text
            return sum(answer.json()["outputs"]["completion_tokens"])

        begun = time.perf_counter()
        counts = await asyncio.gather(*(ask(row) for row in rows))
        return sum(counts) / (time.perf_counter() - begun)


def find_prompts(version):
    """Return prompts (begin included) whose greedy answers do not end before NEW tokens."""
    import numpy as np
    import tensorflow as tf
    import tensorflow_text  # noqa: F401

    generate = tf.saved_model.load(version).signatures["generate_ids"]
    rng, found = np.random.default_rng(0), []
    options = {"max_new_tokens": [NEW], "temperature": [0.0], "top_k": [0], "top_p": [1.0]}
    options |= {"seed": [0], "truncate_prompt": [False]}
    given = {name: tf.constant(value) for name, value in options.items()}
    while len(found) < max(STREAMS):
        ids = rng.integers(300, 4000, [16, PROMPT - 1], dtype=np.int32)
        counts = generate(token_ids=tf.constant(ids), **given)["completion_tokens"].numpy()
        found += [[2, *row] for row in ids[counts == NEW].tolist()]
    return found[: max(STREAMS)]


@contextlib.contextmanager
def served(model_dir):
    """Serve in a process of its own, as the peer has one; yield the URL."""
    command = [sys.executable, "-m", "pipeline.cli", "serve", model_dir, "--openai"]
    options = ["--rest-port", "0", "--grpc-port", "0", "--deadline-seconds", "600"]
    server = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        line = next(line for line in server.stdout if line.startswith("OpenAI: "))
        yield line.removeprefix("OpenAI: ").strip().removesuffix("/v1")
    finally:
        server.terminate()
        server.wait()


def main(model_dir, peer):
    """Print a table."""
    from serving.saved_model import newest_version

    prompts = find_prompts(newest_version(model_dir))
    with tempfile.TemporaryDirectory() as scratch:
        exported = os.path.join(scratch, "hf")
        command = [sys.executable, "-m", "pipeline.cli", "export", "hf", model_dir, exported]
        subprocess.run([*command, "--no-check"], check=True, stdout=subprocess.DEVNULL)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
        process = subprocess.Popen(
            [peer, "-c", PEER, exported, str(NEW)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=environment,
        )  # fmt: skip
        with served(model_dir) as url:
            for streams in STREAMS:
                rows = prompts[:streams]
                ours, whole, singly, batch, firsts, their_firsts = [], [], [], [], [], []
                for measured in (False, *[True] * ROUNDS):
                    first, rate = asyncio.run(gateway(url, rows))
                    single = asyncio.run(one_call(url, rows))
                    process.stdin.write(json.dumps(rows) + "\n")
                    process.stdin.flush()
                    line = next(x for x in process.stdout if x.startswith("RESULT"))
                    one_by_one, together, their_first, _ = json.loads(line.removeprefix("RESULT"))
                    if not measured:
                        continue
                    firsts.append(first), ours.append(rate), whole.append(single)
                    singly.append(streams * NEW / one_by_one)
                    batch.append(streams * NEW / together)
                    their_firsts.append(their_first)
                ours_median, parts = statistics.median(ours), []
                parts.append(f"{streams:3d} streams: gateway {ours_median:7,.0f} tokens/s")
                peers = {"generate": whole, "transformers singly": singly, "as a batch": batch}
                for name, rates in peers.items():
                    rate = statistics.median(rates)
                    parts.append(f"{name} {rate:7,.0f} (x{ours_median / rate:.2f})")
                first, their_first = (statistics.median(x) for x in (firsts, their_firsts))
                parts.append(f"first token {1000 * first:.1f} ms, theirs {1000 * their_first:.1f}")
                print("; ".join(parts), flush=True)
        process.stdin.close()
        process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
