"""Anomalies of TFDV as sentences."""

from tensorflow_metadata.proto.v0 import anomalies_pb2


def describe_anomalies(anomalies: anomalies_pb2.Anomalies) -> list[str]:
    """One sentence for each anomaly, sorted by feature; empty if the data is as the schema says."""
    lines = [
        f"feature {feature or '(dataset)'}: {info.short_description}: {info.description}"
        for feature, info in sorted(anomalies.anomaly_info.items())
    ]
    if anomalies.HasField("dataset_anomaly_info"):
        info = anomalies.dataset_anomaly_info
        lines.append(f"dataset: {info.short_description}: {info.description}")
    return lines
