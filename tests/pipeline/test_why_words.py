import numpy as np
import pytest
from click.testing import CliRunner
from ml_metadata.proto import metadata_store_pb2

from components.curate.config import CurateConfig
from components.curate.rules import RULES
from pipeline.cli import cli
from pipeline.report.curation import print_document
from pipeline.report.document import print_documents, print_models
from pipeline.report.keep_document import how_to_keep
from pipeline.report.tables import stdout_console
from tokenmill.contracts import curation
from tokenmill.contracts.document_status import DroppedDocument
from tokenmill.metadata.step_records import record_run
from tokenmill.metadata.store import open_store
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


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (dropped("too_few_words", 23, 30), "--set curate.min_words=23 or off"),
        (dropped("symbols", 0.17857, 0.1), "--set curate.max_symbols_per_word=0.179 or off"),
        (
            dropped("few_alphabetic_words", 0.6489, 0.7),
            "curate.min_alphabetic_word_fraction=0.648 or",
        ),
        (dropped("exact_duplicate", 1, 0), "--set curate.exact_duplicates=keep"),
        (dropped("near_duplicate", 0.9, 0.8), "--set curate.near_duplicates=keep"),
        (dropped("contaminated", 3, 0), "--set curate.decontaminate=held-out"),
        (dropped("wrong_language", 0, 0), "curate.languages"),
    ],
)
def test_a_dropped_document_says_what_would_keep_it(document, words, capsys):
    print_documents([Explanation(document)])
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("  to keep such: ")]
    assert words in line


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.reason)
def test_the_threshold_that_is_named_keeps_the_document(rule):
    values = [0.0, 1e-7, 1 / 3, 0.1, 0.999999, 12.0, 41 / 7, 1234.5, 100_000.0, 1234567.0]
    for value in values:
        words = how_to_keep(dropped(rule.reason, value, 0.5))
        setting, _, number = words.split()[1].partition("=")
        assert setting == f"curate.{rule.setting}"
        assert not rule.drops(np.array([value]), float(number))
        CurateConfig.model_validate({rule.setting: "off"})


@pytest.fixture
def stopped_run(tmp_path):
    """A directory whose only run failed at Curator, as TFX records it."""
    store = open_store(str(tmp_path / "metadata.sqlite"))
    record_run(store, "run-1", "", "")
    contexts = [store.get_context_by_type_and_name("pipeline_run", "run-1")]
    for kind, name in (("pipeline", "demo"), ("node", "demo.Curator")):
        type_id = store.put_context_type(metadata_store_pb2.ContextType(name=kind))
        contexts.append(metadata_store_pb2.Context(type_id=type_id, name=name))
    step = metadata_store_pb2.Execution(
        type_id=store.put_execution_type(metadata_store_pb2.ExecutionType(name="Curator")),
        last_known_state=metadata_store_pb2.Execution.FAILED,
    )
    store.put_execution(step, [], contexts)
    return tmp_path


@pytest.mark.parametrize("arguments", [["why", "1", "--run"], ["curate", "inspect"]])
def test_after_a_run_that_curation_stopped_the_error_says_what_to_ask_instead(
    stopped_run, arguments
):
    result = CliRunner().invoke(cli, [*arguments, str(stopped_run)])
    assert result.exit_code == 1
    words = " ".join(result.output.split())
    assert "the newest failed at Curator" in words
    assert "curate preview" in words
