"""Drift (against an earlier run) and skew (train against eval), by TFDV's comparators.

TFX's ExampleValidator cannot do this: its executor calls `validate_statistics` with statistics and
schema alone. The thresholds stand in the schema; for a schema that has none (an inferred one) the
defaults here are used.
"""

import math
from collections.abc import Iterable

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from components.validate.anomalies import Anomaly, is_comparison, list_anomalies
from components.validate.statistics import Statistics, document_count, features_of

CATEGORIES = ("source", "language")
"""Compared by the L-infinity norm: the largest change of any one value's share."""
LENGTHS = ("byte_count", "words")
"""Compared by the Jensen-Shannon divergence of their histograms (0 to 1)."""

THRESHOLD = 0.1
MIN_DOCUMENTS_FRACTION = 0.5
"""An earlier run with more than twice the documents is drift: input was lost."""


def chance(feature: str, documents: int, other_documents: int) -> float:
    """Bound how far apart two samples of the same documents come out by chance.

    Four standard deviations. A share's is below sqrt(1/n + 1/m) / 2. The divergence of k bins
    (TFDV makes about 20) is chi-squared with k - 1 degrees of freedom times
    (1/n + 1/m) / (8 ln 2), by its expansion to second order.
    """
    inverse = 1 / max(documents, 1) + 1 / max(other_documents, 1)
    if feature in CATEGORIES:
        return 2 * math.sqrt(inverse)
    return (19 + 4 * math.sqrt(2 * 19)) / (8 * math.log(2)) * inverse


def round_up(threshold: float) -> float:
    """Round up to two digits after the point; to 1 at most, which nothing exceeds."""
    return min(math.ceil(threshold * 100 - 1e-9) / 100, 1.0)


def set_threshold(comparator: schema_pb2.FeatureComparator, feature: str, threshold: float) -> None:
    """Set the threshold of the norm that belongs to the feature."""
    if feature in CATEGORIES:
        comparator.infinity_norm.threshold = threshold
    else:
        comparator.jensen_shannon_divergence.threshold = threshold


def add_drift_comparators(
    schema: schema_pb2.Schema, documents: int, other_documents: int
) -> schema_pb2.Schema:
    """Return a copy with the default drift comparators."""
    schema = _copy(schema)
    for feature in schema.feature:
        if feature.name in CATEGORIES + LENGTHS:
            by_chance = chance(feature.name, documents, other_documents)
            set_threshold(feature.drift_comparator, feature.name, round_up(THRESHOLD + by_chance))
    comparator = schema.dataset_constraints.num_examples_drift_comparator
    comparator.min_fraction_threshold = MIN_DOCUMENTS_FRACTION
    return schema


def has_drift_comparators(schema: schema_pb2.Schema) -> bool:
    """Return whether the schema says what drift is."""
    constraints = schema.dataset_constraints
    return constraints.HasField("num_examples_drift_comparator") or any(
        feature.HasField("drift_comparator") for feature in schema.feature
    )


def compare(
    schema: schema_pb2.Schema,
    train: Statistics,
    eval_statistics: Statistics,
    previous: Statistics | None,
) -> tuple[list[Anomaly], list[anomalies_pb2.DriftSkewInfo]]:
    """Compare train with eval, and with the train split of an earlier run if there is one.

    A feature that one side lacks is not compared with it: that it is missing, if it must not be,
    is ExampleValidator's to say.

    Returns:
        The anomalies, and everything that was measured with its threshold.
    """
    found: list[Anomaly] = []
    measured: list[anomalies_pb2.DriftSkewInfo] = []
    sides: list[tuple[str, str, Statistics]] = [("train against eval", "serving", eval_statistics)]
    if previous is not None:
        if not has_drift_comparators(schema):
            schema = add_drift_comparators(schema, document_count(train), document_count(previous))
        sides.append(("train against the earlier run", "previous", previous))
    for name, role, other in sides:
        comparable = _only(schema, set(features_of(train)) & set(features_of(other)))
        anomalies = tfdv.validate_statistics(train, comparable, **{f"{role}_statistics": other})
        found += filter(is_comparison, list_anomalies(anomalies, comparable, name))
        measured += anomalies.drift_skew_info
    return found, measured


def _only(schema: schema_pb2.Schema, names: Iterable[str]) -> schema_pb2.Schema:
    schema = _copy(schema)
    for feature in schema.feature:
        if feature.name not in names:
            feature.ClearField("drift_comparator")
            feature.ClearField("skew_comparator")
    return schema


def _copy(schema: schema_pb2.Schema) -> schema_pb2.Schema:
    copied = schema_pb2.Schema()
    copied.CopyFrom(schema)
    return copied
