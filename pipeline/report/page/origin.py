"""Where all of it is from: lineage, input files, configuration, versions, machine, checkpoints."""

import os
import urllib.parse
from collections import Counter
from collections.abc import Iterator

from pipeline.report.cost import describe_hardware
from pipeline.report.page.content import DataTable, Section, Unfolding, shorten
from pipeline.report.page.run_documents import RunDocuments
from tokenmill.number_format import byte_size, count, duration, flops_per_second

_FILES_SHOWN = 50


def origin_section(run: RunDocuments) -> Section:
    """Show the steps from the pushed model back to the input files, and the configuration."""
    tables = [("Steps, the last first", _steps(run))] if run.links else []
    if run.inputs:
        tables.append(("Input files", _inputs(run)))
    if run.telemetry is not None and run.telemetry.versions:
        rows = list(run.telemetry.versions.items())
        tables.append(("Versions that trained", DataTable(("library", "version"), rows)))
    sentences = [*_machine(run)]
    if run.gone:
        sentences.append(f"Removed since, and so not on this page: {', '.join(run.gone)}.")
    lines = tuple(run.config_toml.splitlines())
    unfoldings = [Unfolding("The whole configuration", lines=lines)] if lines else []
    return Section("origin", "Lineage, configuration, machine", sentences, (), tables, unfoldings)


def _steps(run: RunDocuments) -> DataTable:
    rows: list[tuple[str, ...]] = []
    links: dict[tuple[int, int], str] = {}
    for step in reversed(run.links):
        outputs = list(step.outputs.items()) or [("", "")]
        for i, (key, uri) in enumerate(outputs):
            shown = os.path.relpath(uri, run.directory) if _is_local(uri) else uri
            if uri and (address := _address(run, uri)):
                links[len(rows), 1] = address
            of = (step.node, ", ".join(step.reads), "cached" if step.cached else "ran")
            first = of if i == 0 else ("", "", "")
            rows.append((first[0], shorten(f"{key}: {shown}" if key else ""), *first[1:]))
    if run.pushed_to:
        links = {(row + 1, column): to for (row, column), to in links.items()}
        rows.insert(0, ("pushed model", shorten(run.pushed_to), "Pusher", ""))
        if address := _address(run, run.pushed_to):
            links[0, 1] = address
    return DataTable(("step", "made", "from", ""), rows, links=links)


def _is_local(uri: str) -> bool:
    return bool(uri) and "://" not in uri


def _address(run: RunDocuments, path: str) -> str:
    """Return the address of a local path from the page, which lies in the log directory."""
    if not _is_local(path) or not run.log_directory:
        return ""
    relative = os.path.relpath(path, run.log_directory)
    return "./" + urllib.parse.quote(os.fsencode(relative))


def _inputs(run: RunDocuments) -> DataTable:
    ordered = sorted(run.inputs, key=lambda file: str(file.get("path", "")))
    rows: list[tuple[str, ...]] = []
    links: dict[tuple[int, int], str] = {}
    for file in ordered[:_FILES_SHOWN]:
        path = str(file.get("path", ""))
        if address := _address(run, path):
            links[len(rows), 0] = address
        size = file.get("size_bytes")
        rows.append((shorten(path), "" if size is None else byte_size(size)))
    rest = len(ordered) - len(rows)
    return DataTable(("file", "size"), rows, f"And {count(rest)} more." if rest else "", links)


def _machine(run: RunDocuments) -> Iterator[str]:
    """Say on what the run computed and with which versions, as far as it recorded them."""
    if (ledger := run.ledger) is not None:
        hardware = ledger.hardware
        yield (
            f"{describe_hardware(ledger)}; peak "
            f"{flops_per_second(hardware.peak_flops_per_second)} a "
            f"chip, MFU {hardware.mfu:.1%} ({hardware.mfu_source})."
        )
        if ledger.checkpoints is not None:
            plan = ledger.checkpoints
            yield (
                f"A checkpoint is {byte_size(plan.checkpoint_bytes)}; one every "
                f"{duration(plan.interval_seconds)} is planned, "
                f"{byte_size(plan.disk_bytes)} on disk."
            )
    telemetry = run.telemetry
    if telemetry is not None and (machine := telemetry.machine) is not None:
        accelerators = ", ".join(
            f"{number} x {name}" for name, number in Counter(machine.accelerators).items()
        )
        yield (
            f"The trainer had {machine.vcpus} cores ({machine.processor}), "
            f"{byte_size(machine.memory_bytes)} of memory and {accelerators or 'no accelerator'}."
        )
    elif versions := sorted({version for step in run.links for version in step.versions}):
        yield f"TFX {', '.join(versions)}."
