"""Check of a SavedModel before it is pushed: calls every signature, in a process of its own.

Imports TensorFlow and tensorflow-text only, as a server would, so it needs no name of this project.
Prints one line of JSON: seconds to import, to load, and of each signature's first and second call.
"""

import json
import os
import sys
import time
import traceback

_SAMPLES: dict[str, list] = {
    "text": ["Some text to read.", ""],
    # A conversation of two words as tokenmill/text/chat.py writes it.
    "prompt": ["\ufdd00Hi", "\ufdd00Hi"],
    "token_ids": [[4, 5, 6], [7, 0, 0]],
    "max_new_tokens": [4],
    "temperature": [1.0],
    "top_k": [40],
    "top_p": [0.9],
    "seed": [1],
    "truncate_prompt": [True],
}
# A question and an answer, likewise.
_CONVERSATION = "\ufdd00Hi\ufdd02Hi".encode()


def main(path: str) -> None:
    """Call every signature of the SavedModel at `path` twice, and print the times."""
    started = time.perf_counter()
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  (registers the SentencePiece ops)

    seconds = {"import": time.perf_counter() - started}
    started = time.perf_counter()
    model = tf.saved_model.load(path)
    seconds["load"] = time.perf_counter() - started
    signatures = {}
    for name, function in sorted(model.signatures.items()):
        inputs = {
            key: _sample(tf, key, spec)
            for key, spec in function.structured_input_signature[1].items()
        }
        calls = []
        for _ in range(2):
            started = time.perf_counter()
            try:
                outputs = {key: value.numpy() for key, value in function(**inputs).items()}
            except Exception as error:
                traceback.print_exc()
                sys.exit(f"signature {name}: {_reason(str(error))}")
            calls.append(time.perf_counter() - started)
        for key, value in outputs.items():
            if "byte_count" in outputs and key == "bits_per_byte":
                value = value[outputs["byte_count"] > 0]  # of no bytes it is no number
            if value.dtype.kind == "f" and not (value == value).all():
                sys.exit(f"signature {name}: {key} is not a number")
        signatures[name] = {
            "first_seconds": calls[0],
            "second_seconds": calls[1],
            "outputs": sorted(outputs),
        }
    print(json.dumps({"seconds": seconds, "signatures": signatures}), flush=True)
    os._exit(0)  # a destructor of TensorFlow that aborts says nothing of the model


def _reason(message):
    """Return TensorFlow's message without node names and stack traces."""
    lines = [
        line.strip()
        for line in message.splitlines()
        if line.strip() and not line.startswith(("Graph execution", "Detected at", "<stack"))
    ]
    return next((line for line in lines if "{{" not in line), "it fails")


def _sample(tf, key, spec):
    if key == "examples":
        example = tf.train.Example()
        for text in _SAMPLES["text"]:
            example.features.feature["text"].bytes_list.value[:] = [text.encode()]
            example.features.feature["messages"].bytes_list.value[:] = [_CONVERSATION]
        return tf.constant([example.SerializeToString()] * 2)
    sample = tf.constant(_SAMPLES[key], spec.dtype) if key in _SAMPLES else None
    if sample is None or sample.shape.rank != spec.shape.rank:
        # One token of one text, for signatures that take a step of generation.
        return tf.zeros([size or 1 for size in spec.shape], spec.dtype)
    return sample


if __name__ == "__main__":
    main(sys.argv[1])
