"""Thresholds by language, derived from files, and what they would drop."""

from typing import Any

from components.curate.calibrate import Method, as_toml, calibrate
from pipeline.report.curation import check_choice, number, print_document
from pipeline.report.curation_preview import Sampling
from pipeline.report.tables import escape, plain_table, share_text, stdout_console
from tokenmill.errors import TokenmillError
from tokenmill.files import write_text
from tokenmill.text.language import LANGUAGES


def calibrate_files(
    sampling: Sampling,
    method: Method,
    share: float,
    reference: str,
    min_documents: int,
    out: str | None,
) -> dict[str, Any]:
    """Derive thresholds from documents of files; return the JSON of what was found.

    Args:
        sampling: Which documents.
        method: One of METHODS.
        share: Of `tail`: what each rule drops at most.
        reference: Of the others: the language whose thresholds are right.
        min_documents: Languages with fewer documents are left out.
        out: The TOML file to write; None writes none.

    Raises:
        TokenmillError: An option names what is not there, or there are too few documents.
    """
    check_choice("--reference", reference, sorted(LANGUAGES), "There are")
    documents, run_config, *_ = sampling.read()
    config = run_config.curate
    found, left_out = calibrate(documents, config, method, share, reference, min_documents)
    if out and not found:
        raise TokenmillError(
            f"--out {out} is not written: no language to calibrate has {min_documents:,} of the "
            f"{len(documents):,} documents.",
            "Give more text of it, a larger --sample or fewer --min-documents.",
        )
    if out:
        write_text(out, as_toml(found))
    return {
        "documents": len(documents),
        "method": method,
        "rules": config.rules,
        "min_documents": min_documents,
        "out": out if found else None,
        "left_out": left_out,
        "languages": {
            code: {
                "documents": language.documents,
                "dropped_before": language.dropped_before,
                "dropped_after": language.dropped_after,
                "rules": [rule._asdict() for rule in language.rules],
                "examples": {
                    reason: [example._asdict() for example in examples]
                    for reason, examples in language.examples.items()
                },
            }
            for code, language in found.items()
        },
    }


def print_calibration(found: dict[str, Any]) -> None:
    """Print what `calibrate_files` found."""
    console = stdout_console()
    console.print(
        f"{found['documents']:,} documents; rules: {found['rules']}; method: {found['method']}"
    )
    for code, count in found["left_out"].items():
        few = count < found["min_documents"]
        why = f"fewer than {found['min_documents']:,}" if few else "the reference"
        console.print(f"{code} {count:,} documents: {why}, left out")
    if not found["languages"]:
        console.print(
            f"No language to calibrate has {found['min_documents']:,} documents (--min-documents)."
        )
        return
    for code, language in found["languages"].items():
        before, after = (
            share_text(language[name] / language["documents"])
            for name in ("dropped_before", "dropped_after")
        )
        console.print(
            f"\n[bold]{code}[/]  {language['documents']:,} documents; all rules drop {before} as "
            f"they are, {after} with these thresholds"
        )
        table = plain_table("", "as it is", "drops", "derived", "drops")
        for rule in language["rules"]:
            sign = {"below": "<", "above": ">"}[rule["drop_if"]]
            cells = []
            for name in ("before", "after"):
                value = rule[name]
                cells += [
                    "off" if value is None else f"{sign} {number(value)}",
                    share_text(rule[f"dropped_{name}"] / language["documents"]),
                ]
            table.add_row(rule["setting"], *cells)
        console.print(table)
        for reason, examples in language["examples"].items():
            console.print(reason)
            for example in examples:
                print_document(console, example, reason)
    where = found["out"]
    console.print()
    console.print(
        f"thresholds written: {escape(where)} (tokenmill run --config {escape(where)} ..)"
        if where
        else "--out FILE writes these thresholds as a configuration."
    )
