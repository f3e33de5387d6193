"""Drift of live requests from the training documents, by TFDV's comparators.

The request log holds no texts, only their sizes; those are compared with the features of the same
names in StatisticsGen's artifact.
"""

import json
import os
from collections.abc import Iterable

import pandas as pd
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2

from components.validate.anomalies import is_comparison, list_anomalies
from components.validate.comparison import THRESHOLD, chance, round_up, set_threshold
from components.validate.statistics import document_count, features_of, read_statistics
from tokenmill.contracts.base import Part, key
from tokenmill.errors import TokenmillError

# A column of the request log, one number for each text of a request -> the documents' feature.
_FEATURES = {
    "text_bytes": "byte_count",
    "text_characters": "characters",
    "text_words": "words",
}
_STATISTICS_OF_RUN = os.path.join("artifacts", "StatisticsGen", "statistics")


class FeatureDrift(Part):
    """Distance of one feature's distributions."""

    divergence: float = key("Jensen-Shannon divergence of requests and documents, 0 to 1.")
    threshold: float = key("Bound that it was compared with.")


class DriftReport(Part):
    """Comparison of a request log with the training documents."""

    texts: int = key("Texts of answered requests.")
    documents: int = key("Training documents.")
    unreadable_lines: int = key("Lines of the log that are no records, such as a torn last one.")
    features: dict[str, FeatureDrift] = key("Distances by feature of the documents.")
    drifted: list[str] = key("A sentence for each feature that drifted.")


def find_drift(
    request_log: str,
    statistics: str,
    signature: str | None = None,
    threshold: float = THRESHOLD,
) -> DriftReport:
    """Compare the sizes of answered texts with those of the training documents.

    The measure is the Jensen-Shannon divergence of the histograms (0 to 1). What samples of these
    sizes differ by chance is added to the threshold.

    Args:
        request_log: JSON lines of `tokenmill serve --request-log`.
        statistics: StatisticsGen's artifact, or a run's directory: its newest one.
        signature: Name of the only signature whose requests count; None takes all.
        threshold: Divergence that is still no drift.

    Raises:
        TokenmillError: A file is missing, or the log has no answered request with a text.
    """
    training = read_statistics(newest_statistics(statistics), "train")
    columns, unreadable = _read_log(request_log, signature)
    texts = len(next(iter(columns.values())))
    if not texts:
        wanted = f" for {signature}" if signature else ""
        raise TokenmillError(
            f"{request_log} has no answered request{wanted} with a text "
            f"({unreadable} unreadable lines).",
            "Serve with --request-log and --request-log-fraction above 0.",
        )
    live = tfdv.generate_statistics_from_dataframe(pd.DataFrame(columns))
    documents = document_count(training)
    schema = _schema(set(columns) & set(features_of(training)), texts, documents, threshold)
    anomalies = tfdv.validate_statistics(training, schema, serving_statistics=live)
    found = list_anomalies(anomalies, schema, "training against requests")
    return DriftReport(
        texts=texts,
        documents=documents,
        unreadable_lines=unreadable,
        features={
            info.path.step[0]: FeatureDrift(divergence=measured.value, threshold=measured.threshold)
            for info in anomalies.drift_skew_info
            for measured in info.skew_measurements
        },
        drifted=[str(anomaly) for anomaly in found if is_comparison(anomaly)],
    )


def newest_statistics(path: str) -> str:
    """Return `path` if it is a StatisticsGen artifact, or the newest one of the run at `path`."""
    parent = os.path.join(path, _STATISTICS_OF_RUN)
    if not os.path.isdir(parent):
        return path
    numbers = [int(name) for name in os.listdir(parent) if name.isdigit()]
    return os.path.join(parent, str(max(numbers))) if numbers else path


def _schema(
    features: Iterable[str], texts: int, documents: int, threshold: float
) -> schema_pb2.Schema:
    schema = schema_pb2.Schema()
    for name in sorted(features):
        feature = schema.feature.add(name=name, type=schema_pb2.INT)
        bound = round_up(threshold + chance(name, documents, texts))
        set_threshold(feature.skew_comparator, name, bound)
    return schema


def _read_log(path: str, signature: str | None) -> tuple[dict[str, list[int]], int]:
    """Read the columns by feature, and the number of lines that are no records."""
    columns: dict[str, list[int]] = {feature: [] for feature in _FEATURES.values()}
    unreadable = 0
    try:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                    if record["code"] != "OK" or signature not in (None, record["signature"]):
                        continue
                    rows = [[int(x) for x in record[column]] for column in _FEATURES]
                except (ValueError, KeyError, TypeError):
                    unreadable += 1
                    continue
                if len({len(row) for row in rows}) > 1:
                    unreadable += 1
                    continue
                for feature, row in zip(columns, rows, strict=True):
                    columns[feature] += row
    except OSError as error:
        raise TokenmillError(
            f"cannot read the request log {path}: {error.strerror}.",
            "It is the file that tokenmill serve --request-log FILE writes.",
        ) from None
    return columns, unreadable
