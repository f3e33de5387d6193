"""What an optimized HLO program of the Trainer does: scores in memory, library calls, branches.

Standard library only: JAX's client and TensorFlow both print such text.
"""

import collections
import math
import re

_BYTES = {"f32": 4, "bf16": 2, "f16": 2, "pred": 1, "s32": 4, "s64": 8, "u32": 4, "s8": 1, "u8": 1}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) ")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = (.*)")
_TENSOR = re.compile(r"\b([a-z]+\d*)\[([\d,]+)\]")
_FUSED = re.compile(r"\bcalls=%?([\w.-]+)")
_TARGET = re.compile(r'custom_call_target="([^"]+)"')
# Other than these nothing moves or computes a tensor.
_NAMES_ONLY = re.compile(r"\b(bitcast|get-tuple-element|parameter|tuple)\(")


def describe(text: str, rows: int, heads: int, length: int) -> dict:
    """Count score tensors that are written to memory, custom calls, branches and fusions."""
    return {
        "scores": _score_tensors(text, rows, heads, length),
        "custom_calls": dict(collections.Counter(_TARGET.findall(text)).most_common()),
        "conditionals": len(re.findall(r" conditional\(", text)),
        "fusions": len(re.findall(r" fusion\(", text)),
    }


def _score_tensors(text: str, rows: int, heads: int, length: int) -> dict:
    """Describe the tensors of attention scores that an optimized program writes to memory.

    A score tensor has rows x heads matrices of at least 128 queries by a multiple of as many keys.
    What lies inside a fusion is never written and not counted; its result is.
    """
    found: collections.Counter = collections.Counter()
    fused = set(_FUSED.findall(text))
    inside = False
    for line in text.splitlines():
        computation = _COMPUTATION.match(line)
        if computation:
            inside = computation[1] in fused
        instruction = _INSTRUCTION.match(line)
        if inside or not instruction or _NAMES_ONLY.search(instruction[1]):
            continue
        # The results stand before the operation: one tensor, or several in parentheses.
        result = re.split(r" [\w-]+\(", instruction[1], maxsplit=1)[0]
        for kind, sizes_text in _TENSOR.findall(result):
            dims = [int(n) for n in sizes_text.split(",")]
            if len(dims) < 3 or math.prod(dims[:-2]) != rows * heads:
                continue
            if min(dims[-2:]) >= 128 and max(dims[-2:]) <= length:
                found[f"{kind}[{sizes_text}]"] += 1
    sizes = {
        name: _BYTES[name.split("[")[0]] * math.prod(map(int, name.split("[")[1][:-1].split(",")))
        for name in found
    }
    return {
        "written": sum(found.values()),
        "written_bytes": sum(sizes[name] * count for name, count in found.items()),
        "largest_bytes": max(sizes.values(), default=0),
        "shapes": dict(sorted(found.items(), key=lambda each: -sizes[each[0]])[:8]),
    }
