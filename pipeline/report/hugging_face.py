"""Export for Hugging Face's transformers: the files, the model card, and what is said of them."""

import os

from pipeline.report.model_card import adapter_card, model_card
from pipeline.report.tables import echo
from tokenmill.contracts.served_model import read_served_model
from tokenmill.errors import TokenmillError
from tokenmill.export.hugging_face import HuggingFaceExport, export_hugging_face
from tokenmill.export.hugging_face_adapter import export_adapter
from tokenmill.export.transformers_check import CHECKED_TEXTS
from tokenmill.files import write_bytes
from tokenmill.metadata.lineage import Lineage, trace_model

_CARD_NAME = "README.md"
# Two libraries that add up in another order differ by some 1e-6.
_LARGEST_DIFFERENCE = 1e-4
_TO_FILL_IN = f"  {_CARD_NAME}: license and intended use are to be filled in"


def export_with_card(
    version: str,
    directory: str,
    dtype: str,
    check: bool,
    run_directory: str | None,
    metadata_url: str | None,
) -> None:
    """Write a pushed model for transformers, and print what was written.

    Args:
        version: A pushed version.
        directory: Where to; new or empty.
        dtype: What the weights are stored in: float32, float16 or bfloat16.
        check: Whether to compare with the pushed model.
        run_directory: Output directory of the run that pushed it, if it lies elsewhere.
        metadata_url: The server of ML Metadata, where there is one.

    Raises:
        TokenmillError: The model cannot be exported, or what was written computes something else.
    """
    traced = _traced(version, run_directory, metadata_url)
    exported = export_hugging_face(version, directory, dtype, check)
    card = model_card(read_served_model(version), exported.architecture, traced)
    write_bytes(os.path.join(directory, _CARD_NAME), card.encode())
    echo(f"{exported.architecture} in {directory}: {', '.join([*exported.files, _CARD_NAME])}")
    if exported.largest_difference is not None:
        by = "read back by tokenmill"
        found = exported.by_transformers
        if found is None:
            by += "; transformers and torch, which are not installed here, were not asked"
        difference = f"{exported.largest_difference:.2g}"
        echo(f"  largest difference from the pushed model: {difference} ({by})")
        if found is not None:
            same = len(CHECKED_TEXTS) - found.other_ids
            echo(
                f"  by transformers {found.version}: {found.largest_difference:.2g}, and the same "
                f"ids for {same} of {len(CHECKED_TEXTS)} texts"
            )
    if not exported.exact_ids:
        echo(
            "  tokenizer.json splits some texts otherwise than the pushed model: those of which a "
            "unigram vocabulary has several splits that are equally likely"
        )
    echo(_TO_FILL_IN)
    _check(exported, version, directory, dtype)


def _check(exported: HuggingFaceExport, version: str, directory: str, dtype: str) -> None:
    """Raise if what was written computes something else than the pushed model."""
    hint = "Do not use it; this is a fault of tokenmill."
    found = exported.by_transformers
    differences = (exported.largest_difference, found and found.largest_difference)
    largest = max((value for value in differences if value is not None), default=0.0)
    if dtype == "float32" and largest > _LARGEST_DIFFERENCE:
        raise TokenmillError(
            f"{directory} computes something else than {version}: by up to {largest:.2g}, where "
            f"{_LARGEST_DIFFERENCE:g} is expected.",
            hint,
        )
    if found is not None and found.other_ids and exported.exact_ids:
        raise TokenmillError(
            f"{directory}: AutoTokenizer gives other ids than {version} for {found.other_ids} of "
            f"{len(CHECKED_TEXTS)} texts.",
            hint,
        )


def export_adapter_with_card(
    version: str,
    directory: str,
    base_model: str | None,
    run_directory: str | None,
    metadata_url: str | None,
) -> None:
    """Write a pushed model's adapters for PEFT, and print what was written.

    Args:
        version: A pushed version.
        directory: Where to; new or empty.
        base_model: What PEFT loads the frozen weights from; None for the run's base model.
        run_directory: Output directory of the run that pushed it, if it lies elsewhere.
        metadata_url: The server of ML Metadata, where there is one.

    Raises:
        TokenmillError: The model has no adapters, or they cannot be exported.
    """
    traced = _traced(version, run_directory, metadata_url)
    exported = export_adapter(version, directory, base_model)
    card = adapter_card(read_served_model(version), exported.config, traced)
    write_bytes(os.path.join(directory, _CARD_NAME), card.encode())
    echo(f"Adapters in {directory}: {', '.join([*exported.files, _CARD_NAME])}")
    echo(f"  base model: {exported.config['base_model_name_or_path']}")
    echo(_TO_FILL_IN)


def _traced(version: str, run_directory: str | None, metadata_url: str | None) -> Lineage | None:
    """Trace the run that pushed a version; None, with a word on it, where it is not at hand."""
    try:
        return trace_model(version, run_directory, metadata_url)
    except TokenmillError as error:
        if run_directory or metadata_url:
            raise
        echo(f"The model card will lack the run's numbers: {error.message}", err=True)
        return None
