"""Text of documents on the terminal: shown, never obeyed."""

import io
import json
import logging
import pathlib
import re

import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.report.console import RunConsole
from pipeline.report.document import print_documents
from pipeline.report.tables import echo, escape, plain_table
from tokenmill.contracts.document_status import DroppedDocument, KeptDocument
from tokenmill.errors import TokenmillError
from tokenmill.library_logs import set_up_library_logging
from tokenmill.provenance.explain import Explanation
from tokenmill.visible import visible, visible_lines

REPORTS = pathlib.Path(__file__).parents[2] / "pipeline" / "report"
HOSTILE = "s\x1b]0;title\x07\x1b[2J\x9b31m\u202egnp.exe\u2066\x7f\r\x08\ud800[bold]"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def test_controls_are_shown_and_letters_of_all_scripts_stay():
    assert visible("a\x1b[2J\n\tb\u202e\x9b") == r"a\u001b[2J\n\tb\u202e\u009b"
    assert visible_lines("a\n\tb\r\n\x1b") == "a\n\tb\\r\n\\u001b"
    for text in (
        "naïve",
        "mañana",
        "سلام\u200cها",
        "नमस्ते",
        "\U0001f469\u200d\U0001f4bb",
        "日本",
        "a\u200fb",
    ):
        assert visible(text) == text
    assert visible(visible(HOSTILE)) == visible(HOSTILE)
    said = json.dumps({"text": HOSTILE}, ensure_ascii=False, indent=2)
    assert json.loads(visible_lines(said)) == {"text": HOSTILE}


def test_tables_lines_errors_and_logs_show_them(capsys):
    out = io.StringIO()
    console = RunConsole(out)
    table = plain_table("", "n")
    table.add_row(escape(f"{HOSTILE}\nsecond"), "1")
    table.add_row(HOSTILE.replace("[bold]", ""), "2")  # one that was forgotten
    console.console.print(table)
    console.note(HOSTILE)
    console.step_finished("Curator", [HOSTILE], cached=False)
    assert not RAW.search(out.getvalue())
    assert r"\u001b]0;title" in out.getvalue()
    assert r"\nsecond" in out.getvalue()
    assert "[bold]" in out.getvalue()
    echo(HOSTILE, bold=True)
    set_up_library_logging()
    logging.getLogger("beam").warning("odd document %s", HOSTILE)
    said = capsys.readouterr()
    assert not RAW.search(said.out.replace("\x1b[1m", "").replace("\x1b[0m", ""))
    assert r"odd document s\u001b" in said.err
    assert not RAW.search(said.err)


def test_why_shows_ids_and_sources_on_a_line_each(capsys):
    print_documents(
        [
            Explanation(
                DroppedDocument(
                    doc_id=f"{HOSTILE}\nkept", source=HOSTILE, split="train", status="dropped",
                    reason="exact_duplicate", value=1.0, threshold=1.0, raw_bytes=3,
                    kept_copy=HOSTILE, excerpt=HOSTILE, shared="", language="und",
                    metadata={"title": HOSTILE, "url": HOSTILE}, matched=HOSTILE,
                )
            ),
            Explanation(
                KeptDocument(
                    doc_id=HOSTILE, source=HOSTILE, split="train", status="kept", byte_count=3,
                    language="de", metadata={"license": HOSTILE},
                ),
                [],
            ),
        ]
    )  # fmt: skip
    said = capsys.readouterr().out
    assert not RAW.search(re.sub(r"\x1b\[[01]m", "", said))
    assert not any(line.startswith("kept") for line in said.splitlines())


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_preview_of_hostile_documents(tmp_path, options):
    path = tmp_path / "a.jsonl"
    records = [
        {"id": f"{HOSTILE}{i}", "source": f"{HOSTILE}{i % 2}", "text": f"short {HOSTILE} {i}"}
        for i in range(6)
    ]
    lines = [json.dumps(record).replace("\\ud800", "") for record in records]
    path.write_text("\n".join([*lines, f'{{"text": "{HOSTILE[:-7]}']), errors="replace")
    shown = CliRunner().invoke(cli, ["curate", "preview", str(path), *options])
    assert shown.exit_code == 0, shown.output
    assert r"\u001b]0;title" in shown.output
    assert not RAW.search(shown.output)


def test_errors_that_quote_data(tmp_path):
    wrong = CliRunner().invoke(cli, ["curate", "preview", str(tmp_path / "a\x1b[2J")])
    assert wrong.exit_code == 1
    assert not RAW.search(wrong.output)
    assert str(TokenmillError(HOSTILE)) == HOSTILE  # only the screen changes it


@pytest.mark.parametrize("path", sorted(REPORTS.glob("*.py")), ids=lambda path: path.name)
def test_reports_print_by_the_functions_that_show_controls(path):
    if path.name != "tables.py":
        found = re.findall(
            r"rich\.markup|click\.s?echo|\bConsole\(|[^\w.]print\(", path.read_text()
        )
        assert not found, "use SafeConsole, escape and echo of pipeline/report/tables.py"
