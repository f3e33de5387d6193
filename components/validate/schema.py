"""The schema as a file that a team keeps in its repository: read, pin, freeze, accept."""

import hashlib
import os
from collections.abc import Mapping

import tensorflow as tf
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from components.validate.anomalies import Anomaly, list_anomalies
from components.validate.comparison import (
    CATEGORIES,
    LENGTHS,
    THRESHOLD,
    add_drift_comparators,
    chance,
    compare,
    round_up,
    set_threshold,
)
from components.validate.statistics import Statistics, document_count, features_of
from tokenmill.errors import TokenmillError
from tokenmill.files import write_text
from tokenmill.records.documents import DOCUMENT_FEATURES

SCHEMA_NAME = "schema.pbtxt"

_COUNTS = ("byte_count", "characters", "words")
# Language identification errs on short texts: some documents in any language are no anomaly.
_LANGUAGE_MASS = 0.99
# A document twice as long as any before is worth a look before it is trained on.
_LENGTH_FACTOR = 2
# Beyond what this run's own splits differ by.
_SKEW_FACTOR = 1.5


def read_schema(path: str) -> tuple[schema_pb2.Schema, str]:
    """Read a schema and the text of its file.

    Raises:
        TokenmillError: The file is not there or holds no schema, or not one of documents.
    """
    try:
        with tf.io.gfile.GFile(path, "rb") as source:
            text = source.read().decode("utf-8")
        schema = text_format.Parse(text, schema_pb2.Schema())
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        reason = str(getattr(error, "message", error)).rpartition("; ")[2]
        raise TokenmillError(
            f"cannot read the schema {path}: {reason}.",
            "Make one from a run with: tokenmill schema freeze RUN_DIR --output FILE",
        ) from None
    except text_format.ParseError as error:
        raise TokenmillError(
            f"{path} is not a schema in text format: line {error}.",
            "Mend that line, or make it anew: tokenmill schema freeze RUN_DIR --output FILE",
        ) from None
    _check_documents(schema, path)
    return schema, text


def _check_documents(schema: schema_pb2.Schema, path: str) -> None:
    """Check that each document has each feature once: Transform reads documents by this schema."""
    features = {feature.name: feature for feature in schema.feature}
    for name in DOCUMENT_FEATURES:
        feature = features.get(name)
        kind = schema_pb2.INT if name == "byte_count" else schema_pb2.BYTES
        if (
            feature is None
            or feature.type != kind
            or feature.lifecycle_stage == schema_pb2.DEPRECATED
            or feature.presence.min_fraction != 1
            or [dim.size for dim in feature.shape.dim] != [1]
        ):
            raise TokenmillError(
                f"{path}: feature {name} must be of type {schema_pb2.FeatureType.Name(kind)}, in "
                "every document (presence { min_fraction: 1.0 }) and single-valued "
                "(shape { dim { size: 1 } }): the pipeline reads documents by it.",
                "Make a schema from a run with: tokenmill schema freeze RUN_DIR --output FILE",
            )


def pin_schema(path: str, directory: str) -> str:
    """Copy a schema file into a directory named by its content; return the copy's path.

    TFX's cache knows ImportSchemaGen's file by its path alone: of a file that was changed in
    place, which is what `tokenmill schema accept` does, the old content would be taken.
    """
    _, text = read_schema(path)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    target = os.path.join(directory, "schemas", name, SCHEMA_NAME)
    if not tf.io.gfile.exists(target):
        write_text(target, text)
    return target


def freeze_schema(
    inferred: schema_pb2.Schema, train: Statistics, eval_statistics: Statistics, open_sources: bool
) -> schema_pb2.Schema:
    """Turn an inferred schema into one that says what the next data must be like.

    Every feature is required. Sources are the ones seen, unless they are open; languages too, up
    to 1 % of the documents. No document is empty or longer than twice the longest. Drift and skew
    have thresholds above what chance explains at this size, and above what the train and the eval
    split differ by now.
    """
    documents, eval_documents = document_count(train), document_count(eval_statistics)
    schema = add_drift_comparators(inferred, documents, documents)
    features = {feature.name: feature for feature in schema.feature}
    for feature in schema.feature:
        feature.presence.min_fraction, feature.presence.min_count = 1.0, 1
        del feature.shape.dim[:]
        feature.shape.dim.add(size=1)
        if feature.name in CATEGORIES + LENGTHS:
            by_chance = chance(feature.name, documents, eval_documents)
            set_threshold(feature.skew_comparator, feature.name, round_up(THRESHOLD + by_chance))
    longest = max(features_of(s)["byte_count"].num_stats.max for s in (train, eval_statistics))
    for name in _COUNTS:
        features[name].int_domain.min = 1
    features["byte_count"].int_domain.max = int(longest) * _LENGTH_FACTOR
    if open_sources:
        features["source"].ClearField("domain")
        _keep_domains_in_use(schema)
    if "language" in features:
        constraints = features["language"].distribution_constraints
        constraints.min_domain_mass = _LANGUAGE_MASS
    _raise_thresholds(schema, train, eval_statistics, None, _SKEW_FACTOR)
    return schema


def _keep_domains_in_use(schema: schema_pb2.Schema) -> None:
    used = {feature.domain for feature in schema.feature}
    kept = [domain for domain in schema.string_domain if domain.name in used]
    del schema.string_domain[:]
    schema.string_domain.extend(kept)


def accept_statistics(
    schema: schema_pb2.Schema, statistics: Mapping[str, Statistics], previous: Statistics | None
) -> schema_pb2.Schema:
    """Change a schema as little as makes it accept these statistics.

    Args:
        schema: The schema that found anomalies.
        statistics: By split, train and eval.
        previous: The train split of the earlier run that was compared with, if any.

    Raises:
        TokenmillError: Something is left that no schema may accept.
    """
    accepted = schema_pb2.Schema()
    accepted.CopyFrom(schema)
    for split in statistics.values():
        accepted = tfdv.update_schema(accepted, split)
    constraints = accepted.dataset_constraints
    if constraints.min_examples_count:  # per split; update_schema leaves it as it is
        fewest = min(document_count(split) for split in statistics.values())
        constraints.min_examples_count = min(constraints.min_examples_count, fewest)
    if constraints.max_examples_count:
        most = max(document_count(split) for split in statistics.values())
        constraints.max_examples_count = max(constraints.max_examples_count, most)
    train, eval_statistics = statistics["train"], statistics["eval"]
    if previous is not None and constraints.HasField("num_examples_drift_comparator"):
        comparator = constraints.num_examples_drift_comparator
        ratio = document_count(train) / max(document_count(previous), 1)
        comparator.min_fraction_threshold = min(comparator.min_fraction_threshold, ratio)
        if comparator.HasField("max_fraction_threshold") and comparator.max_fraction_threshold:
            comparator.max_fraction_threshold = max(comparator.max_fraction_threshold, ratio)
    _raise_thresholds(accepted, train, eval_statistics, previous, 1.0)
    _check_documents(accepted, "the accepted schema")
    left = find_anomalies(accepted, statistics, previous)
    if left:
        raise TokenmillError(
            "these anomalies cannot be accepted by a change of the schema:\n  "
            + "\n  ".join(map(str, left)),
            "They are of what documents are read by: mend the data, and run again.",
        )
    return accepted


def find_anomalies(
    schema: schema_pb2.Schema, statistics: Mapping[str, Statistics], previous: Statistics | None
) -> list[Anomaly]:
    """List what ExampleValidator and the gate find in these statistics."""
    found: list[Anomaly] = []
    for split, split_statistics in statistics.items():
        anomalies = tfdv.validate_statistics(split_statistics, schema)
        found += list_anomalies(anomalies, schema, split)
    return found + compare(schema, statistics["train"], statistics["eval"], previous)[0]


def _raise_thresholds(
    schema: schema_pb2.Schema,
    train: Statistics,
    eval_statistics: Statistics,
    previous: Statistics | None,
    factor: float,
) -> None:
    """Raise comparators' thresholds, in place, to `factor` times what is measured now."""
    features = {feature.name: feature for feature in schema.feature}
    for info in compare(schema, train, eval_statistics, previous)[1]:
        feature = features[info.path.step[0]]
        for comparator, measurements in (
            ("drift_comparator", info.drift_measurements),
            ("skew_comparator", info.skew_measurements),
        ):
            for measurement in measurements:
                threshold = round_up(measurement.value * factor)
                if feature.HasField(comparator) and threshold > measurement.threshold:
                    set_threshold(getattr(feature, comparator), feature.name, threshold)


def header_of(text: str) -> str:
    """Return the comment lines that a schema file begins with."""
    lines = []
    for line in text.splitlines(keepends=True):
        if line.strip() and not line.startswith("#"):
            break
        lines.append(line)
    return "".join(lines)


def frozen_header(run_directory: str, train: Statistics, eval_statistics: Statistics) -> str:
    """Return comments that tell a reader of the file what it is."""
    return f"""\
# The schema that documents must fit (tensorflow_metadata Schema, text format).
# Frozen by `tokenmill schema freeze` from {run_directory}:
# {document_count(train):,} train and {document_count(eval_statistics):,} eval documents.
#
# Use it:        tokenmill run --set validate.schema_path=THIS_FILE
# Read it:       tokenmill schema show THIS_FILE
# After a run that it stopped, if the data is right:
#                tokenmill schema accept RUN_DIR THIS_FILE
#
# drift_comparator: against an earlier run (validate.previous_statistics).
# skew_comparator: train against eval. Meanings and thresholds: docs/validation.md.

"""


def write_schema(path: str, schema: schema_pb2.Schema, header: str) -> str:
    """Write the file atomically; return its text.

    Raises:
        TokenmillError: It cannot be written.
    """
    text = schema_text(schema, header)
    try:
        write_text(path, text)
    except (tf.errors.OpError, OSError) as error:
        raise TokenmillError(
            f"cannot write {path}: {error}.", "Name a file in a directory that can be written."
        ) from None
    return text


def schema_text(schema: schema_pb2.Schema, header: str) -> str:
    """Return the content of a schema file."""
    return header + text_format.MessageToString(schema)
