"""Statistics of documents, against counts made here."""

import collections
import statistics

import pyarrow as pa
import pytest
import tensorflow_data_validation as tfdv
from tfx_bsl.tfxio import tensor_representation_util

from components.validate.derived_features import describe_documents
from components.validate.history import gate_records
from components.validate.statistics import statistics_page, summarize_statistics
from tokenmill.records.documents import document_batch

SPLITS = ("train", "eval")


@pytest.fixture(scope="module")
def uri(first_project):
    return first_project.first_statistics


def test_summary_is_what_a_count_of_the_input_says(uri, first_records):
    train, held_out = (summarize_statistics(uri, split) for split in SPLITS)
    assert train.documents + held_out.documents == len(first_records)
    assert 0.2 < held_out.documents / len(first_records) < 0.3
    sizes = {
        "byte_count": [len(r["text"].encode()) for r in first_records],
        "characters": [len(r["text"]) for r in first_records],
        "words": [len(r["text"].split()) for r in first_records],
    }
    for name, values in sizes.items():
        mean = sum(s.documents * getattr(s, name).mean for s in (train, held_out)) / len(values)
        assert mean == pytest.approx(sum(values) / len(values))
        assert min(getattr(s, name).min for s in (train, held_out)) == min(values)
        assert max(getattr(s, name).max for s in (train, held_out)) == max(values)
        deciles = statistics.quantiles(values, n=10)
        spread = max(values) - min(values)
        for key, value in (("p10", deciles[0]), ("p50", deciles[4]), ("p90", deciles[8])):
            found = getattr(getattr(train, name), key)
            assert found == pytest.approx(value, abs=0.06 * spread), (name, key)
    sources = collections.Counter()
    for summary in (train, held_out):
        sources.update(dict(summary.sources))
    assert sources == collections.Counter(r["source"] for r in first_records)
    assert train.distinct_sources == len(sources)
    assert train.languages is None


def test_bytes_characters_and_words_differ_where_they_should():
    texts = ["naïve café\n", " \t two\u00a0words ", "日本語", "a" * 50]
    batch = document_batch(
        [b"%d" % i for i in range(4)], [b"s"] * 4, [text.encode() for text in texts]
    )
    facts = describe_documents(batch, language=False).to_pydict()
    assert facts["byte_count"] == [[13], [14], [9], [50]]
    assert facts["characters"] == [[11], [13], [3], [50]]
    assert facts["words"] == [[2], [2], [3], [1]]  # each Chinese character is a word
    assert "language" not in facts


def test_language_is_told_or_left_undetermined():
    texts = [
        "The statistics of the documents are computed before anything else is done.",
        "Die Statistik der Dokumente wird berechnet, bevor irgendetwas anderes geschieht.",
        "Les statistiques des documents sont calculées avant toute autre chose.",
        "12345 67890",
    ]
    batch = document_batch([b"i"] * 4, [b"s"] * 4, [text.encode() for text in texts])
    facts = describe_documents(batch, language=True)
    assert facts.column(facts.schema.get_field_index("language")).to_pylist() == [
        [b"en"], [b"de"], [b"fr"], [b"und"]
    ]  # fmt: skip
    assert isinstance(facts, pa.RecordBatch)


def test_values_of_text_and_ids_are_not_counted(uri):
    path = f"{uri}/Split-train/FeatureStats.pb"
    (dataset,) = tfdv.load_stats_binary(path).datasets
    kinds = {f.path.step[0]: f.WhichOneof("stats") for f in dataset.features}
    assert kinds == {
        "doc_id": "bytes_stats", "text": "bytes_stats", "source": "string_stats",
        "byte_count": "num_stats", "characters": "num_stats", "words": "num_stats",
    }  # fmt: skip
    with open(path, "rb") as source:
        assert b"stone river" not in source.read()


def test_transform_and_evaluator_see_the_documents_features_only(first_project):
    """The inferred schema has the derived features, for validation; nobody else must want them."""
    schema_uri = gate_records(str(first_project.home))[-1].schema_uri
    schema = tfdv.load_schema_text(f"{schema_uri}/schema.pbtxt")
    assert {"characters", "words"} < {feature.name for feature in schema.feature}
    tensors = tensor_representation_util.InferTensorRepresentationsFromMixedSchema(schema)
    assert set(tensors) == {"doc_id", "source", "text", "byte_count"}
    for name, tensor in tensors.items():
        assert [dim.size for dim in tensor.dense_tensor.shape.dim] == [1], name


def test_tfdv_viewer_opens_the_statistics(uri):
    page = statistics_page(uri)
    assert "facets" in page
    assert len(page) > 1000
