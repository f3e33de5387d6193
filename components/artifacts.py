"""The artifact types that tokenmill adds to TFX's standard ones.

Each carries its counts as custom properties too, so that runs can be compared by a query to
ML Metadata without opening a file. None declares properties: Kubeflow's compiler wants a schema
for each, and knows TFX's own types only.
"""

from tfx.types import artifact, standard_artifacts


class Quarantine(artifact.Artifact):
    """Records that could not be read: `quarantine.jsonl` (file, offset, reason, detail)."""

    TYPE_NAME = "components.Quarantine"


class ValidationDecision(artifact.Artifact):
    """What the anomaly gate decided: `decision.json`."""

    TYPE_NAME = "components.ValidationDecision"


class DroppedDocuments(artifact.Artifact):
    """Documents that curation dropped, one reason each, and `curation.json` with the counts."""

    TYPE_NAME = "components.DroppedDocuments"


class QualityModel(artifact.Artifact):
    """A scorer of documents: `quality_model.json`, and its weights or a classifier."""

    TYPE_NAME = "components.QualityModel"


class Tokenizer(artifact.Artifact):
    """A SentencePiece model: `tokenizer.model` and `tokenizer.json` (settings, hash)."""

    TYPE_NAME = "components.Tokenizer"


class PackedRows(artifact.Artifact):
    """Fixed-length rows of tokens by split, in the format of tokenmill/rows/packed_split.py."""

    TYPE_NAME = "components.PackedRows"


class Calibration(artifact.Artifact):
    """How fast the true training step is on the machine at hand: `calibration.json`."""

    TYPE_NAME = "components.Calibration"


class Ledger(artifact.Artifact):
    """The estimate before training, `ledger.json`, and the index of documents."""

    TYPE_NAME = "components.Ledger"


class CostReport(artifact.Artifact):
    """Estimate against actual, after evaluation: `cost_report.json`."""

    TYPE_NAME = "components.CostReport"


class RegisteredModel(artifact.Artifact):
    """A pushed model in a model registry; no files, its name and labels are custom properties."""

    TYPE_NAME = "components.RegisteredModel"


class HTML(artifact.Artifact):
    """The page of a run: `report.html`.

    The name is Kubeflow Pipelines' own (kfp.dsl.HTML): its UI and Vertex AI show such an artifact,
    and take its URI for the file. pipeline/runners/kubeflow_entrypoint.py reads it in a container.
    """

    TYPE_NAME = "system.HTML"


Examples = standard_artifacts.Examples
