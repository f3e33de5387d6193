"""Freeze, run, be stopped, accept, run: with TFX, ML Metadata and the command line as users do."""

import pathlib

import pytest
import tensorflow_data_validation as tfdv
from click.testing import CliRunner
from ml_metadata.proto import metadata_store_pb2

from components.validate.comparison import compare
from components.validate.schema import accept_statistics, read_schema
from components.validate.statistics import read_statistics, summarize_statistics
from pipeline.cli.schema import schema as schema_command
from tokenmill.errors import TokenmillError

CACHED = metadata_store_pb2.Execution.CACHED


def command(*arguments) -> str:
    """Runs `tokenmill schema ...`; returns what it printed."""
    result = CliRunner().invoke(schema_command, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def documents_in(project, split: str) -> int:
    return summarize_statistics(project.first_statistics, split).documents


@pytest.fixture
def pinned(first_project, tmp_path) -> pathlib.Path:
    """A schema frozen from the first run; its data passes."""
    path = tmp_path / "schema.pbtxt"
    command("freeze", first_project.home, "--output", path)
    return path


def use(path) -> str:
    return f"validate.schema_path={path}"


def test_frozen_schema_passes_on_its_own_data_and_the_next_run_is_cached(
    first_project, first_records, pinned
):
    first_project.validate(first_records, use(pinned))
    before = len(first_project.executions())
    first_project.validate(first_records, use(pinned))
    again = first_project.executions()[before:]
    assert [e.last_known_state for e in again] == [CACHED] * 5


def test_frozen_schema_says_what_it_is_and_loads_in_tfdv(first_project, pinned):
    text = pinned.read_text()
    assert text.startswith("#")
    assert f"# {documents_in(first_project, 'train')} train and" in text.replace(",", "")
    schema = tfdv.load_schema_text(str(pinned))
    features = {feature.name: feature for feature in schema.feature}
    for feature in features.values():
        assert feature.presence.min_fraction == 1
        assert [dim.size for dim in feature.shape.dim] == [1]
    assert [list(d.value) for d in schema.string_domain] == [["books", "wiki"]]
    for name in ("drift_comparator", "skew_comparator"):
        assert 0.1 <= getattr(features["source"], name).infinity_norm.threshold < 0.3
        assert 0.1 <= getattr(features["words"], name).jensen_shannon_divergence.threshold < 0.3
    shown = command("show", pinned)
    for words in ("text", "one of books, wiki", "L-infinity", "Jensen-Shannon", "byte_count"):
        assert words in shown


def test_new_source_is_stopped_named_and_accepted(first_project, first_records, pinned, tmp_path):
    open_sources = tmp_path / "open.pbtxt"
    command("freeze", first_project.home, "--output", open_sources, "--open-sources")
    records = [*first_records[:-60], *({**r, "source": "forum"} for r in first_records[-60:])]
    error = first_project.stopped(records, use(pinned))
    assert "train: feature source: Examples contain values missing from the schema: forum" in str(
        error
    )
    assert "Expected: books, wiki" in error.message
    line = f"tokenmill schema accept {first_project.home} {pinned}"
    assert line in error.hint
    assert f"freeze {first_project.home} --output {pinned} --open-sources" in error.hint
    before = pinned.read_text()
    refused = CliRunner().invoke(
        schema_command, ["accept", str(first_project.home), str(pinned)], input="n\n"
    )
    assert refused.exit_code == 1
    assert pinned.read_text() == before
    printed = command(*line.split()[2:], "--yes")
    assert '+  value: "forum"' in printed
    assert pinned.read_text().startswith(before.split("feature")[0])  # the comments stay
    first_project.validate(records, use(pinned))  # in the same place: not from the cache
    first_project.validate(first_records, use(pinned))
    first_project.validate(records, use(open_sources))
    assert "Nothing to accept" in command("accept", first_project.home, pinned)


def test_longer_documents_are_stopped_and_accepted(first_project, first_records, pinned):
    longer = [{**r, "text": " ".join([r["text"]] * 4)} for r in first_records]
    settings = (use(pinned), f"validate.previous_statistics={first_project.first_statistics}")
    error = first_project.stopped(longer, *settings)
    lines = error.message.splitlines()
    assert any("train: feature byte_count: Unexpectedly large value" in line for line in lines)
    assert any(
        "earlier run: feature words: The approximate Jensen-Shannon divergence" in line
        for line in lines
    )
    assert "Expected: 1 to" in error.message
    assert "validate.previous_statistics=off" in error.hint
    command("accept", first_project.home, pinned, "--yes")
    first_project.validate(longer, *settings)


def test_language_that_is_not_identified_any_more(first_records, project, tmp_path):
    path = tmp_path / "schema.pbtxt"
    project.validate(first_records, "validate.language=true")
    command("freeze", project.home, "--output", path)
    error = project.stopped(first_records, use(path))
    assert "feature language: Column is completely missing. Expected: in every document" in str(
        error
    )
    assert "validate.language=true" in error.hint
    command("accept", project.home, path, "--yes")
    project.validate(first_records, use(path))


def test_drift_against_the_latest_other_run(project, first_records, other_records):
    latest = "validate.previous_statistics=latest"
    project.validate(first_records, latest)  # nothing to compare with yet
    # a run of the same files is not compared with itself: all from the cache
    before = len(project.executions())
    project.validate(first_records, latest)
    assert [e.last_known_state for e in project.executions()[before:]] == [CACHED] * 5
    error = project.stopped(other_records, latest)
    (line,) = error.message.splitlines()[1:]
    assert "feature source: The Linfty distance" in line
    assert "above the threshold" in line
    assert "maximum difference is: " in line
    assert "schema accept" not in error.hint  # there is no pinned schema to accept it
    # a stopped run is no point of comparison; one that was let through is
    project.stopped(other_records, latest)
    project.validate(other_records, "validate.previous_statistics=off")
    assert "feature source" in project.stopped(first_records, latest).message


def test_lost_documents_are_drift(first_project, pinned):
    schema, _ = read_schema(str(pinned))
    train, held_out = (
        read_statistics(first_project.first_statistics, split) for split in ("train", "eval")
    )
    for times, lost in ((1.9, False), (2.1, True)):
        earlier = type(train).FromString(train.SerializeToString())
        earlier.datasets[0].num_examples = int(train.datasets[0].num_examples * times)
        found, _ = compare(schema, train, held_out, earlier)
        assert bool(found) == lost
    assert "the data as a whole" in str(found[0])
    assert "at least 0.5 times as many as before" in str(found[0])
    accepted = accept_statistics(schema, {"train": train, "eval": held_out}, earlier)
    assert not compare(accepted, train, held_out, earlier)[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read the schema"),
        ("feature { nonsense }", "not a schema in text format"),
        ('feature { name: "text" type: BYTES }', "feature doc_id must be of type BYTES"),
    ],
)
def test_schema_file_that_is_none(project, first_records, tmp_path, content, words):
    path = tmp_path / "bad.pbtxt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(TokenmillError, match=words) as caught:
        project.validate(first_records, use(path))
    assert str(path) in caught.value.message


def test_previous_statistics_that_are_none(project, first_records, tmp_path):
    with pytest.raises(TokenmillError, match=r"validate\.previous_statistics"):
        project.validate(first_records, f"validate.previous_statistics={tmp_path}/nowhere")


def test_show_a_run_and_write_the_viewer(first_project, first_records, tmp_path):
    page = tmp_path / "statistics.html"
    first_project.validate(first_records)
    printed = command("show", first_project.home, "--html", page)
    for words in ("characters", "train: ", "eval: ", "words: mean", "sources: wiki", str(page)):
        assert words in printed
    assert "facets" in page.read_text()
