"""Bits per byte of held-out documents by SavedModels that store their weights in different ways.

python benchmarks/serving/quality.py CURATED_EXAMPLES_URI SAVED_MODEL ...
"""

import glob
import json
import math
import os
import sys

import tensorflow as tf
import tensorflow_text  # noqa: F401

DOCUMENTS, BATCH = 400, 16


def main() -> None:
    uri, *models = sys.argv[1:]
    files = sorted(glob.glob(os.path.join(glob.escape(uri), "Split-eval", "*")))
    texts = []
    for record in tf.data.TFRecordDataset(files, "GZIP").take(DOCUMENTS).as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature["text"]
        texts.append(feature.bytes_list.value[0])
    for path in models:
        score = tf.saved_model.load(path).signatures["score"]
        nll = size = 0.0
        for i in range(0, len(texts), BATCH):
            answer = score(text=tf.constant(texts[i : i + BATCH]))
            nll += float(answer["nll_sum"].numpy().astype("float64").sum())
            size += int(answer["byte_count"].numpy().sum())
        weights = os.path.join(path, "variables", "variables.data-00000-of-00001")
        result = {
            "model": path,
            "documents": len(texts),
            "bits_per_byte": nll / math.log(2) / size,
            "variables_bytes": os.path.getsize(weights),
        }
        print(json.dumps(result), flush=True)


main()
