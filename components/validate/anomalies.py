"""Anomalies of TFDV as sentences: which feature, what was found, what was expected."""

from collections.abc import Iterator
from dataclasses import dataclass

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

_Reason = anomalies_pb2.AnomalyInfo
_NAMED_VALUES = 12


@dataclass(frozen=True, order=True)
class Anomaly:
    """One way in which the data is not as expected.

    Attributes:
        split: "train" or "eval"; for drift and skew what was compared.
        feature: The feature; empty for the data as a whole.
        found: What is the matter, in TFDV's words.
        expected: What the schema says; empty if TFDV's words have it.
        kind: TFDV's name of the type, such as ENUM_TYPE_UNEXPECTED_STRING_VALUES.
    """

    split: str
    feature: str
    found: str
    expected: str
    kind: str

    def __str__(self) -> str:
        subject = f"feature {self.feature}" if self.feature else "the data as a whole"
        expected = f" Expected: {self.expected}." if self.expected else ""
        return f"{self.split}: {subject}: {self.found}.{expected}"


def list_anomalies(
    anomalies: anomalies_pb2.Anomalies, schema: schema_pb2.Schema, split: str
) -> list[Anomaly]:
    """List every anomaly of a split, one for each reason, sorted."""
    features = {feature.name: feature for feature in schema.feature}
    found = []
    for key, info in anomalies.anomaly_info.items():
        name = info.path.step[0] if info.path.step else key
        for reason in _reasons(info):
            found.append(_anomaly(reason, split, name, features.get(name), schema))
    if anomalies.HasField("dataset_anomaly_info"):
        for reason in _reasons(anomalies.dataset_anomaly_info):
            found.append(_anomaly(reason, split, "", None, schema))
    return sorted(found)


def is_comparison(anomaly: Anomaly) -> bool:
    """Tell anomalies between two sets of data (drift or skew) from those of one."""
    return anomaly.kind.startswith("COMPARATOR_")


def _reasons(info: anomalies_pb2.AnomalyInfo) -> Iterator[anomalies_pb2.AnomalyInfo.Reason]:
    if info.reason:
        yield from info.reason
    else:  # not documented to happen; no anomaly may get lost
        yield _Reason.Reason(description=f"{info.short_description}: {info.description}")


def _anomaly(
    reason: anomalies_pb2.AnomalyInfo.Reason,
    split: str,
    name: str,
    feature: schema_pb2.Feature | None,
    schema: schema_pb2.Schema,
) -> Anomaly:
    found = (reason.description or reason.short_description).strip().rstrip(".")
    found = found.replace(" (up to six significant digits)", "")
    expected = _expected(reason.type, feature, schema)
    return Anomaly(split, name, found, expected, _Reason.Type.Name(reason.type))


def _expected(kind: int, feature: schema_pb2.Feature | None, schema: schema_pb2.Schema) -> str:
    if kind == _Reason.SCHEMA_NEW_COLUMN:
        return f"only {', '.join(f.name for f in schema.feature)}"
    if feature is None:
        if kind == _Reason.DATASET_LOW_NUM_EXAMPLES:
            return f"at least {schema.dataset_constraints.min_examples_count:,} documents"
        if kind == _Reason.COMPARATOR_LOW_NUM_EXAMPLES:
            comparator = schema.dataset_constraints.num_examples_drift_comparator
            return f"at least {comparator.min_fraction_threshold:g} times as many as before"
        return ""
    if kind == _Reason.SCHEMA_MISSING_COLUMN:
        return "in every document"
    if kind == _Reason.ENUM_TYPE_UNEXPECTED_STRING_VALUES:
        return _values(feature, schema)
    if feature.HasField("int_domain") and kind in (
        _Reason.INT_TYPE_BIG_INT,
        _Reason.INT_TYPE_SMALL_INT,
    ):
        return f"{feature.int_domain.min:,} to {feature.int_domain.max:,}"
    return ""


def _values(feature: schema_pb2.Feature, schema: schema_pb2.Schema) -> str:
    domains = {domain.name: domain.value for domain in schema.string_domain}
    known = domains.get(feature.domain, [])
    rest = f" and {len(known) - _NAMED_VALUES} more" if len(known) > _NAMED_VALUES else ""
    share = feature.distribution_constraints
    mass = share.min_domain_mass if feature.HasField("distribution_constraints") else 1.0
    of = "" if mass >= 1 else f" in {mass:.0%} of the documents"
    return f"{', '.join(known[:_NAMED_VALUES])}{rest}{of}"
