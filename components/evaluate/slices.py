"""What the Evaluator slices by, beside the source: the document's length and its language.

TFX's Evaluator imports this module by its path and calls `custom_extractors`.
"""

from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from tokenmill.contracts.evaluation import LANGUAGE, LENGTH
from tokenmill.records.documents import decode_documents

_BYTES_ABOVE = (0, 1_000, 4_000, 16_000)
_LENGTH_NAMES = ("under 1 kB", "1-4 kB", "4-16 kB", "16 kB and more")


def length_name(byte_count: int) -> str:
    """Return the length class of a document of so many bytes."""
    return _LENGTH_NAMES[int(np.searchsorted(_BYTES_ABOVE, byte_count, side="right")) - 1]


def add_slice_features(extracts: dict[str, Any]) -> dict[str, Any]:
    """Add two features to a batch of TFMA extracts: `length` and `language`.

    The language is what curation found. TFMA's own features lack it: they are those of the schema,
    which is of the documents before curation.

    Args:
        extracts: Batched extracts with the curated documents, serialized.
    """
    documents = decode_documents(list(extracts[tfma.INPUT_KEY]))
    lengths = [length_name(count).encode() for count in documents.column("byte_count").to_pylist()]
    added = {LENGTH: lengths, LANGUAGE: documents.column("language").to_pylist()}
    columns = {name: np.array([[v] for v in values], object) for name, values in added.items()}
    return {**extracts, tfma.FEATURES_KEY: {**extracts[tfma.FEATURES_KEY], **columns}}


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
