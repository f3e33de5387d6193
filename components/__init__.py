"""One folder per pipeline step, in the order and the words of pipeline/dag.py.

The artifact types are importable from here (`components.PackedRows`), because a container on
Kubeflow or Vertex AI imports an artifact by `<package>.<ClassName>`. They load TFX, so they are
looked up only when asked for: the plain modules below this package stay free of it.
"""

from typing import Any

_ARTIFACT_TYPES = (
    "Calibration",
    "CostReport",
    "HTML",
    "Ledger",
    "PackedRows",
    "QualityModel",
    "Quarantine",
    "RegisteredModel",
    "DroppedDocuments",
    "Tokenizer",
    "ValidationDecision",
)
__all__ = list(_ARTIFACT_TYPES)


def __getattr__(name: str) -> Any:
    if name in _ARTIFACT_TYPES:
        from components import artifacts

        return getattr(artifacts, name)
    raise AttributeError(f"module 'components' has no attribute {name!r}")
