"""Run by a test in a process of its own: calls every way into the SavedModel named on the command
line, with TensorFlow and tensorflow-text only, and prints the answers as JSON."""

import json
import sys

import tensorflow as tf
import tensorflow_text  # noqa: F401


def main(path: str) -> None:
    model = tf.saved_model.load(path)
    texts = ["Returns a tensor.", "", "x" * 3000, "日本語 ▁ \x00 end", "Returns a tensor."]

    def complete(prompts: list[str], tokens: int, temperature: float, seed: int) -> dict:
        outputs = model.signatures["generate"](
            text=tf.constant(prompts),
            max_new_tokens=tf.constant([tokens]),
            temperature=tf.constant([temperature]),
            top_k=tf.constant([0]),
            top_p=tf.constant([1.0]),
            seed=tf.constant([seed]),
            truncate_prompt=tf.constant([True]),
        )
        return {key: [str(x) for x in value.numpy()] for key, value in outputs.items()}

    score = model.signatures["score"](text=tf.constant(texts))
    answer = {
        "score": {key: value.numpy().tolist() for key, value in score.items()},
        "several": complete(["Returns", "The quick brown", "a" * 2000], 12, 0.0, 1),
        "alone": complete(["Returns"], 12, 0.0, 1),
        "sampled": [complete(["Returns"], 12, 1.0, seed)["text"][0] for seed in (1, 1)],
        "project_modules": [
            m
            for m in sys.modules
            if m.split(".")[0] in ("tfx", "components", "pipeline", "serving")
        ],
    }
    print(json.dumps(answer))


main(sys.argv[1])
