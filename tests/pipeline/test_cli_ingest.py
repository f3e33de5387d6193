"""`tokenmill ingest preview`, in a process of its own."""

import gzip
import json
import os
import zipfile

import pytest
from command_line import tokenmill


@pytest.fixture
def mixed(tmp_path):
    (tmp_path / "de").mkdir()
    for i in range(5):
        (tmp_path / "de" / f"{i}.html").write_text(f"<nav>Menü</nav><p>Die {i}. Seite \x1b[31m")
    (tmp_path / "records.jsonl.gz").write_bytes(
        gzip.compress(b'{"text": "one", "title": "A [b] title"}\n{"no": 1}\n')
    )
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a.txt", "plain text")
        archive.writestr("b.png", "picture")
    (tmp_path / "c.docx").write_bytes(b"no document")
    (tmp_path / "style.css").write_text("p {}")
    return tmp_path


def preview(*arguments):
    return tokenmill("ingest", "preview", *arguments)


def test_a_mixed_directory_by_format(mixed):
    found = json.loads(preview(mixed, "--json").stdout)
    counts = {
        kind: (n["files"], n["documents"], n["quarantined"], n["left_out"])
        for kind, n in found["formats"].items()
    }
    assert counts == {
        "docx": (1, 0, 1, {}),
        "html": (5, 5, 0, {}),
        "jsonl": (1, 1, 1, {}),
        "zip": (1, 1, 0, {".png in an archive": 1}),
    }
    assert found["left_out"] == {".css": 1}
    assert found["formats"]["html"]["sources"] == {"de": 5}
    shown = preview(mixed).stdout
    for part in (
        "Seite",
        "    title: A [b] title",
        "  sources: 5 de",
        "missing_text",
        "c.docx: unreadable_file",
        ".png in an archive",
        ".css (1)",
    ):
        assert part in shown
    assert "\x1b[31m" not in shown
    assert "Menü" not in shown


def test_some_files_of_each_format(mixed):
    found = json.loads(preview(mixed, "--json", "--files", 2).stdout)
    html = found["formats"]["html"]
    assert (html["files"], html["files_read"], html["documents"]) == (5, 2, 2)


def test_what_is_not_there_is_a_sentence(tmp_path):
    result = preview(tmp_path / "nowhere")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")


def test_file_names_of_odd_bytes(tmp_path):
    for name, content in ((b"a\xff.txt", b"sound text"), (b"b\xfe.txt", b""), (b"c\n.txt", b"")):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(content)
    done = preview(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "a?.txt: sound text" in done.stdout
    assert json.loads(preview(tmp_path, "--json").stdout)["formats"]["text"]["quarantined"] == 2
