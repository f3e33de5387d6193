"""What the Evaluator slices by, beside the source: the document's length and its language.

TFX's Evaluator imports this module by its path and calls `custom_extractors`.
"""

from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from tokenmill.contracts.evaluation import LANGUAGE, LENGTH
from tokenmill.text.language import determined, identify

UNCERTAIN = "uncertain"

_BYTES_ABOVE = (0, 1_000, 4_000, 16_000)
_LENGTH_NAMES = ("under 1 kB", "1-4 kB", "4-16 kB", "16 kB and more")


def length_name(byte_count: int) -> str:
    """Return the length class of a document of so many bytes."""
    return _LENGTH_NAMES[int(np.searchsorted(_BYTES_ABOVE, byte_count, side="right")) - 1]


def add_slice_features(extracts: dict[str, Any]) -> dict[str, Any]:
    """Add two features to a batch of TFMA extracts: `length` and `language`.

    Args:
        extracts: Batched extracts with the features `text` and `byte_count`, [batch, 1] each.
    """
    features = dict(extracts[tfma.FEATURES_KEY])
    counts = np.asarray(features["byte_count"]).ravel()
    texts = [text.decode() for text in np.asarray(features["text"], object).ravel()]
    features[LENGTH] = _column([length_name(count) for count in counts])
    features[LANGUAGE] = _column(determined(identify(texts), UNCERTAIN))
    return {**extracts, tfma.FEATURES_KEY: features}


def _column(values: list[str]) -> np.ndarray:
    return np.array([[value.encode()] for value in values], object)


def custom_extractors(
    eval_shared_model: Any, eval_config: config_pb2.EvalConfig, tensor_adapter_config: Any
) -> list[tfma.extractors.Extractor]:
    """Return TFMA's extractors, and after the features' one that adds what to slice by."""
    extractors = tfma.default_extractors(
        eval_shared_model=eval_shared_model,
        eval_config=eval_config,
        tensor_adapter_config=tensor_adapter_config,
    )
    stage = tfma.extractors.Extractor(
        stage_name="AddSliceFeatures", ptransform=beam.Map(add_slice_features)
    )
    place = [e.stage_name for e in extractors].index("ExtractFeatures") + 1
    return [*extractors[:place], stage, *extractors[place:]]
