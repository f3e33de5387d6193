"""The notebook runs from its first cell to its last on a real run, and shows what the run says."""

import copy
import pathlib

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOTEBOOK = nbformat.read(ROOT / "notebooks" / "a_run.ipynb", as_version=4)


def executed(directory) -> str:
    """Run it on this output directory; returns all that it shows, as text and HTML."""
    notebook = copy.deepcopy(NOTEBOOK)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert first.source.startswith('RUN = "../runs/demo"')
    first.source = f"RUN = {str(directory)!r}"
    NotebookClient(
        notebook, timeout=500, resources={"metadata": {"path": str(ROOT / "notebooks")}}
    ).execute()
    shown = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            shown += [output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")]
            shown += [kind for kind in data if kind.startswith("image/")]
    return "\n".join(shown)


@pytest.fixture(scope="module")
def shown(first_run):
    return executed(first_run.home)


def test_it_shows_the_runs_own_numbers(shown, first_run):
    report = first_run.report()
    assert f"{report['ledger']['funnel']['total']['train']['effective_tokens']:,.0f} eff" in shown
    for stage in report["ledger"]["funnel"]["total"]["stages"]:
        assert stage["stage"] in shown
    for source in report["ledger"]["funnel"]["by_source"]:
        assert source in shown
    assert f"{report['cost_report']['actual']['mfu']:,.4g}" in shown


def test_it_shows_statistics_slices_the_loss_and_the_page(shown):
    assert "byte_count" in shown
    assert "facets-overview" in shown
    assert "source german" in shown
    assert "bits_per_byte_ci95_low" in shown
    assert "image/png" in shown
    assert '<iframe srcdoc="&lt;!doctype html' in shown.replace("DOCTYPE", "doctype")


def test_the_file_holds_no_outputs_and_keeps_its_form():
    nbformat.validate(NOTEBOOK)
    for cell in NOTEBOOK.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None
