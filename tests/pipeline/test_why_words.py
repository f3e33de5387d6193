import pytest

from pipeline.report.curation import print_document
from pipeline.report.document import print_documents, print_models
from pipeline.report.tables import stdout_console
from tokenmill.contracts import curation
from tokenmill.contracts.document_status import DroppedDocument
from tokenmill.provenance.explain import Explanation


def dropped(reason, value, threshold, copy="", shared=""):
    return DroppedDocument(
        doc_id="a/1", status="dropped", source="a", split="train", raw_bytes=10,
        reason=reason, value=value, threshold=threshold, kept_copy=copy, excerpt="Some\n text.",
        language="en", shared=shared, metadata={"url": "https://e.org/1"}, matched="",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (dropped("near_duplicate", 0.868, 0.8, "a/2"),
         ["near_duplicate: Jaccard similarity 0.868, limit 0.8", "the text that stays: a/2"]),
        (dropped("contaminated", 3, 0), ["n-grams shared with the other split or a benchmark 3"]),
        (dropped("contaminated", 3, 0, "b/2", "words\n of both"),
         ["shares “words of both” with b/2"]),
        (dropped("exact_duplicate", 1, 0, "a/2"), ["the same text, once normalized"]),
        (dropped("few_stop_words", 0, 1), ["few_stop_words: value 0, limit 1", "Some text."]),
    ],
)  # fmt: skip
def test_a_dropped_document_says_what_the_value_is(document, words, capsys):
    print_documents([Explanation(document)])
    printed = capsys.readouterr().out
    for word in words:
        assert word in printed


def test_why_shows_language_and_what_the_record_says(capsys):
    document = dropped("near_duplicate", 0.868, 0.8, "a/2").model_copy(
        update={"metadata": {"title": "A\x1b title", "license": "MIT"}, "language": "und"}
    )
    print_documents([Explanation(document)])
    printed = capsys.readouterr().out
    for line in ("  language: not known", r"  title: A\u001b title", "  license: MIT"):
        assert line in printed.splitlines()


def model(**times):
    return {"model": "m/1", "pushed_to": [], "times_trained_by_row": times}


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ({"3": 0, "4": 0}, "was not trained on it"),
        ({"3": 2}, "read it 2 times"),
        ({"3": 1}, "read it 1 time\n"),
        ({"3": 0, "4": 1}, "read its rows 0 to 1 time"),
    ],
)
def test_a_model_says_how_often_it_read_the_rows(times, words, capsys):
    print_models([model(**times)])
    assert words in capsys.readouterr().out


def test_inspect_shows_the_words_of_an_overlap_and_who_has_them(capsys):
    record = curation.DroppedDocument(
        "eval", b"a/1", b"a", "Some text.", 10, "contaminated", 3.0, 0.0, b"benchmark text 7", "en",
        "words\nof both",
    )  # fmt: skip
    print_document(stdout_console(), record.to_json(), "contaminated")
    assert "3 > 0, shares “words of both” with benchmark text 7" in capsys.readouterr().out
