"""Say what is alive when the optimized program of a step holds most, by part of the model.

Reads the text that run_lowered.py writes with --text: the schedule, with each tensor from its
instruction to its last use. Parameters are left out; memory that an instruction reuses in place is
counted twice, so the sum is near the compiler's own, not the same.
"""

import argparse
import collections
import gzip
import json
import math
import pathlib
import re

_BYTES = {"f32": 4, "bf16": 2, "f16": 2, "pred": 1, "s32": 4, "s64": 8, "u32": 4, "s8": 1, "u8": 1}
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([\w-]+)\((.*)")
_TENSOR = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_NAMES_ONLY = ("bitcast", "get-tuple-element", "tuple")
# By the operation in the model and the type; the first that fits.
_PARTS = (
    ("attention probabilities, float32", r"attention\w*/.*Softmax", "f32"),
    ("attention probabilities, 16 bits", r"attention\w*/Cast", "bf16"),
    ("keys and values of each block of queries", r"attention\w*/strided_slice", ""),
    ("MLP and its norm", r"/mlp\w*/", ""),
    (
        "logits and their gradients",
        r"StatefulPartitionedCall/(MatMul|Softmax|Cast|sub|mul)",
        "bf16",
    ),
    ("attention, the rest, and its norm", r"/attention\w*/", ""),
    ("norms and residuals", r"norm|layer\d+", ""),
)


def read_entry(
    text: str,
) -> tuple[list[str], dict[str, list[str]], dict[str, tuple[str, str, str]]]:
    """Return the entry's instructions in order, their operands, and their (type, kind, op_name)."""
    order, operands, about = [], {}, {}
    for line in text[text.index("\nENTRY") :].splitlines():
        match = _INSTRUCTION.match(line)
        if not match:
            continue
        name, result, kind, rest = match.groups()
        order.append(name)
        operands[name] = re.findall(r"%([\w.-]+)", rest.split("), ")[0])
        op_name = re.search(r'op_name="([^"]+)"', line)
        about[name] = (result, kind, op_name[1] if op_name else "")
    return order, operands, about


def alive_at_peak(text: str) -> tuple[int, collections.Counter]:
    """Return the most bytes alive at once, and those bytes by part."""
    order, operands, about = read_entry(text)
    sources: dict[str, list[str]] = {}
    sizes, last_use = {}, {}
    for place, name in enumerate(order):
        result, kind, _ = about[name]
        known = [source for operand in operands[name] for source in sources.get(operand, ())]
        sources[name] = known if kind in _NAMES_ONLY else [name]
        sizes[name] = 0
        if kind not in (*_NAMES_ONLY, "parameter"):
            sizes[name] = sum(
                _BYTES.get(t, 4) * math.prod(int(n) for n in dims.split(",") if n)
                for t, dims in _TENSOR.findall(result)
            )
        for source in known:
            last_use[source] = place
    ends = collections.defaultdict(list)
    for name, place in last_use.items():
        ends[place].append(name)
    held, most, alive, at_peak = 0, 0, set(), set()
    for place, name in enumerate(order):
        held += sizes[name]
        alive.add(name)
        if held > most:
            most, at_peak = held, set(alive)
        for ended in ends[place]:
            if ended in alive:
                alive.discard(ended)
                held -= sizes[ended]
    parts: collections.Counter = collections.Counter()
    for name in at_peak:
        result, _, op_name = about[name]
        for part, pattern, kind in _PARTS:
            if re.search(pattern, op_name) and result.lstrip("(").startswith(kind):
                parts[part] += sizes[name]
                break
        else:
            parts["other"] += sizes[name]
    return most, parts


def main() -> None:
    """Print a JSON line for each program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", type=pathlib.Path, nargs="+", help="NAME.hlo.gz")
    for path in parser.parse_args().texts:
        most, parts = alive_at_peak(gzip.decompress(path.read_bytes()).decode())
        by_part = {part: round(size / 2**30, 2) for part, size in parts.most_common()}
        line = {"program": path.name, "gib": round(most / 2**30, 2), "gib_by_part": by_part}
        print(json.dumps(line))


if __name__ == "__main__":
    main()
