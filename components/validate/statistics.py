"""TFDV's statistics files: how to read them, and a summary for reports."""

import os
from typing import TypeAlias

import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import statistics_pb2

from tokenmill.contracts.validation import Distribution, SplitSummary
from tokenmill.errors import TokenmillError
from tokenmill.records.splits import SPLITS, split_directory

STATISTICS_NAME = "FeatureStats.pb"

Statistics: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList


def read_statistics(statistics_uri: str, split: str) -> Statistics:
    """Read the statistics of a split as TFDV takes them.

    Raises:
        TokenmillError: There are none.
    """
    path = os.path.join(split_directory(statistics_uri, split), STATISTICS_NAME)
    if not tf.io.gfile.exists(path):
        raise TokenmillError(
            f"no statistics of the {split} split: there is no {path}.",
            "Run the pipeline again: StatisticsGen makes what is gone.",
        )
    return tfdv.load_stats_binary(path)


def features_of(statistics: Statistics) -> dict[str, statistics_pb2.FeatureNameStatistics]:
    """Return each feature's statistics by name."""
    return {feature.path.step[0]: feature for feature in statistics.datasets[0].features}


def document_count(statistics: Statistics) -> int:
    """Return the number of documents in the split."""
    return int(statistics.datasets[0].num_examples)


def summarize_statistics(statistics_uri: str, split: str, top: int = 10) -> SplitSummary:
    """Return the numbers that a report shows of a split.

    Args:
        statistics_uri: The ExampleStatistics artifact of StatisticsGen.
        split: "train" or "eval".
        top: Most frequent sources and languages to list.
    """
    statistics = read_statistics(statistics_uri, split)
    features = features_of(statistics)
    languages = {"languages": _top(features["language"], top)} if "language" in features else {}
    return SplitSummary(
        documents=document_count(statistics),
        byte_count=_distribution(features["byte_count"].num_stats),
        characters=_distribution(features["characters"].num_stats),
        words=_distribution(features["words"].num_stats),
        sources=_top(features["source"], top),
        distinct_sources=features["source"].string_stats.unique,
        **languages,
    )


def _distribution(numbers: statistics_pb2.NumericStatistics) -> Distribution:
    """Read TFDV's histogram of deciles (its error is 1 % of rank)."""
    deciles = next(h for h in numbers.histograms if h.type == statistics_pb2.Histogram.QUANTILES)
    upper = [bucket.high_value for bucket in deciles.buckets]
    return Distribution(
        mean=numbers.mean,
        min=numbers.min,
        p10=upper[0],
        p50=numbers.median,
        p90=upper[-2] if len(upper) > 1 else upper[-1],
        max=numbers.max,
    )


def _top(feature: statistics_pb2.FeatureNameStatistics, top: int) -> list[tuple[str, int]]:
    buckets = feature.string_stats.rank_histogram.buckets
    return [(bucket.label, int(bucket.sample_count)) for bucket in buckets[:top]]


def statistics_page(statistics_uri: str) -> str:
    """Render TFDV's viewer (Facets) with train beside eval as an HTML page.

    The data is in the page; the browser fetches the viewer's script from GitHub.
    """
    from tensorflow_data_validation.utils import display_util

    lhs, rhs = (read_statistics(statistics_uri, split) for split in SPLITS)
    return display_util.get_statistics_html(lhs, rhs, lhs_name=SPLITS[0], rhs_name=SPLITS[1])
