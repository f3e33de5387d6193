"""The section [validate]."""

from tokenmill.config_model import Section


class ValidateConfig(Section):
    """Data validation by TFDV."""

    schema_path: str | None = None
    """A pinned schema (schema.pbtxt); without it the schema is inferred from this run's data.

    `tokenmill schema freeze` makes one; docs/validation.md tells how."""
    previous_statistics: str = "off"
    """What to compare this run's data with, for drift: "off"; "latest", the newest run in this
    output directory that passed with other input files; another run's output directory; or a
    directory of statistics (a StatisticsGen artifact)."""
    language: bool = False
    """Identify each document's language for the statistics (some 70 microseconds each)."""
