"""{SPAN} in the input: which span is read, and that TFX sees it."""

import json

import pytest
from tfx.components.example_gen import driver
from tfx.proto import example_gen_pb2
from tfx.utils import proto_utils

from components.ingest.component import CorpusExampleGen
from components.ingest.config import CorpusConfig
from components.ingest.manifest import list_inputs, read_manifest, write_manifest
from tokenmill.errors import TokenmillError


@pytest.fixture
def corpus(tmp_path):
    """Spans 2, 9 and 10 as directories, 9 and 11 as files."""
    for name in ("in/2/a.jsonl", "in/9/a.jsonl", "in/9/b.jsonl", "in/10/deep/a.jsonl",
                 "in/latest/a.jsonl", "flat/part12-9.txt", "flat/part1-011.txt"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def listed(*patterns, span=None):
    """[(name, span)] of what the patterns give."""
    return [(f.name, f.span) for f in list_inputs([str(p) for p in patterns], span=span)]


def test_the_newest_span_is_read_by_number_not_by_letters(corpus):
    assert listed(corpus / "in/{SPAN}") == [("deep/a.jsonl", 10)]
    assert listed(f"{corpus}/in/{{SPAN}}/") == [("deep/a.jsonl", 10)]
    assert listed(corpus / "in/{SPAN}/*.jsonl") == [("a.jsonl", 9), ("b.jsonl", 9)]
    assert listed(corpus / "flat/part*-{SPAN}.txt") == [("part1-011.txt", 11)]


def test_span_by_number(corpus):
    assert listed(corpus / "in/{SPAN}", span=2) == [("a.jsonl", 2)]
    assert listed(corpus / "flat/part*-{SPAN}.txt", span=9) == [("part12-9.txt", 9)]
    assert listed(corpus / "flat/part*-{SPAN}.txt", span=11) == [("part1-011.txt", 11)]


def test_several_patterns_give_the_newest_that_all_have(corpus):
    patterns = (corpus / "in/{SPAN}/*.jsonl", corpus / "flat/part*-{SPAN}.txt")
    expected = [("a.jsonl", 9), ("b.jsonl", 9), ("part12-9.txt", 9)]
    assert listed(*patterns) == expected
    # With one more file of a name that is there already, both get more of their paths.
    assert listed(*patterns, corpus / "in/latest/a.jsonl") == [
        expected[1],
        ("in/9/a.jsonl", 9),
        ("in/latest/a.jsonl", None),
        expected[2],
    ]


@pytest.mark.parametrize(
    ("patterns", "span", "parts"),
    [
        (["in/{SPAN}"], 3, ["corpus.span = 3", "10, 9, 2"]),
        (["in/2"], 2, ["corpus.span = 2", "{SPAN}"]),
        (["in/{SPAN}/{SPAN}"], None, ["2 times"]),
        (["nothing/{SPAN}"], None, ["nothing/{SPAN}", "no file"]),
        (["in/{SPAN}/*.jsonl", "flat/part1-{SPAN}.txt"], None, ["every pattern", "9, 2", "11"]),
    ],
)
def test_spans_that_are_not_there(corpus, patterns, span, parts):
    with pytest.raises(TokenmillError) as error:
        listed(*(corpus / p for p in patterns), span=span)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(("pattern", "span"), [("in/{SPAN}", 10), ("in/2", 0)])
def test_tfx_driver_finds_the_span_and_puts_it_on_the_artifact(corpus, tmp_path, pattern, span):
    directory = write_manifest(list_inputs([str(corpus / pattern)]), str(tmp_path / "manifests"))
    assert read_manifest(directory)[1] == span
    component = CorpusExampleGen(
        directory,
        CorpusConfig(
            text_field="t", id_field="i", source_field="s", max_document_bytes=9, eval_fraction=0.5
        ),
    )
    properties = {
        "input_base": directory,
        "input_config": component.exec_properties["input_config"],
    }
    resolved = driver.FileBasedDriver(None).resolve_exec_properties(properties, None, None)
    assert resolved["span"] == span
    config = example_gen_pb2.Input()
    proto_utils.json_to_proto(resolved["input_config"], config)
    assert config.splits[0].pattern == f"manifest-span-{span}.jsonl"
    artifact = component.outputs["examples"].type().mlmd_artifact
    driver.update_output_artifact(resolved, artifact)
    assert artifact.custom_properties["span"].int_value == span
    assert "num_files:1" in artifact.custom_properties["input_fingerprint"].string_value


def test_manifests_of_two_spans_differ_even_if_the_files_are_alike(corpus, tmp_path):
    homes = [
        write_manifest(list_inputs([str(corpus / "in/{SPAN}")], span=n), str(tmp_path / "m"))
        for n in (2, 9)
    ]
    assert homes[0] != homes[1]
    with open(f"{homes[0]}/manifest-span-2.jsonl") as source:
        assert json.loads(source.readline())["span"] == 2
