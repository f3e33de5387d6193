"""Statistics as files: reading them, and a summary for reports."""

import os
from typing import Any, TypeAlias

import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import statistics_pb2

from tokenmill.errors import TokenmillError
from tokenmill.records.documents import SPLITS, split_directory

STATISTICS_NAME = "FeatureStats.pb"

Statistics: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList


def read_statistics(statistics_uri: str, split: str) -> Statistics:
    """The statistics of a split as TFDV takes them.

    Raises:
        TokenmillError: There are none.
    """
    path = os.path.join(split_directory(statistics_uri, split), STATISTICS_NAME)
    if not tf.io.gfile.exists(path):
        raise TokenmillError(f"no statistics of the {split} split: there is no {path}.")
    return tfdv.load_stats_binary(path)


def features_of(statistics: Statistics) -> dict[str, statistics_pb2.FeatureNameStatistics]:
    """Each feature's statistics by name."""
    return {feature.path.step[0]: feature for feature in statistics.datasets[0].features}


def document_count(statistics: Statistics) -> int:
    """Documents in the split."""
    return int(statistics.datasets[0].num_examples)


def summarize_statistics(statistics_uri: str, split: str, top: int = 10) -> dict[str, Any]:
    """The numbers that a report shows of a split.

    Args:
        statistics_uri: The ExampleStatistics artifact of StatisticsGen.
        split: "train" or "eval".
        top: Most frequent sources and languages to list.

    Returns:
        documents; for each of byte_count, characters and words {mean, min, p10, p50, p90, max};
        sources and (if identified) languages: [[value, documents], ...], most frequent first;
        distinct_sources.
    """
    statistics = read_statistics(statistics_uri, split)
    features = features_of(statistics)
    summary: dict[str, Any] = {"documents": document_count(statistics)}
    for name in ("byte_count", "characters", "words"):
        summary[name] = _quantiles(features[name].num_stats)
    summary["sources"] = _top(features["source"], top)
    summary["distinct_sources"] = features["source"].string_stats.unique
    if "language" in features:
        summary["languages"] = _top(features["language"], top)
    return summary


def _quantiles(numbers: statistics_pb2.NumericStatistics) -> dict[str, float]:
    """From TFDV's histogram of deciles (its error is 1 % of rank)."""
    deciles = next(h for h in numbers.histograms if h.type == statistics_pb2.Histogram.QUANTILES)
    upper = [bucket.high_value for bucket in deciles.buckets]
    return {
        "mean": numbers.mean,
        "min": numbers.min,
        "p10": upper[0],
        "p50": numbers.median,
        "p90": upper[-2] if len(upper) > 1 else upper[-1],
        "max": numbers.max,
    }


def _top(feature: statistics_pb2.FeatureNameStatistics, top: int) -> list[list[Any]]:
    buckets = feature.string_stats.rank_histogram.buckets
    return [[bucket.label, int(bucket.sample_count)] for bucket in buckets[:top]]


def statistics_page(statistics_uri: str) -> str:
    """TFDV's viewer (Facets) with train beside eval, as an HTML page.

    The data is in the page; the browser fetches the viewer's script from GitHub.
    """
    from tensorflow_data_validation.utils import display_util

    lhs, rhs = (read_statistics(statistics_uri, split) for split in SPLITS)
    return display_util.get_statistics_html(lhs, rhs, lhs_name=SPLITS[0], rhs_name=SPLITS[1])
