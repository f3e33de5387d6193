import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmill.provenance.document_index import DocumentIndex, write_shards


def shards_of(*groups):
    return [
        [(i.encode(), json.dumps({"doc_id": i, "n": n}).encode() + b"\n") for n, i in group]
        for group in groups
    ]


def index_of(directory, *groups):
    written = write_shards(str(directory), shards_of(*groups))
    index = DocumentIndex(str(directory))
    assert len(index) == written
    return index


def test_every_document_is_found_and_no_other(tmp_path):
    ids = [f"package/module.py:function_{i:04d}" for i in range(500)]
    index = index_of(tmp_path, enumerate(ids[:300]), enumerate(ids[300:]))
    for i, name in enumerate(ids):
        assert index.find(name) == [{"doc_id": name, "n": i if i < 300 else i - 300}]
    assert index.find("package/module.py:function_9999") == []


def test_ids_that_repeat_are_all_found_in_order(tmp_path):
    index = index_of(tmp_path, [(1, "a"), (2, "b")], [], [(3, "a")])
    assert [status["n"] for status in index.find("a")] == [1, 3]


def test_a_slip_of_the_pen_gets_the_nearest_ids(tmp_path):
    ids = sorted(f"numpy/core/{name}.py" for name in ("add", "multiply", "subtract", "divide"))
    index = index_of(tmp_path, enumerate(ids), [(0, "zebra")])
    assert index.nearest("numpy/core/multipl.py")[0] == "numpy/core/multiply.py"
    assert index.nearest("entirely-different-0123456789") == []


def test_an_empty_index_finds_nothing(tmp_path):
    index = index_of(tmp_path, [])
    assert index.find("a") == []
    assert index.nearest("a") == []


def test_without_an_index_it_says_which_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"document_status\.jsonl"):
        DocumentIndex(str(tmp_path))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.text(max_size=12), max_size=20), max_size=4))
def test_whatever_the_ids_are(tmp_path_factory, groups):
    directory = tmp_path_factory.mktemp("index")
    groups = [sorted(group) for group in groups]
    index = index_of(directory, *(enumerate(group) for group in groups))
    everything = [name for group in groups for name in group]
    for name in set(everything):
        assert len(index.find(name)) == everything.count(name)


def test_the_same_documents_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        index_of(tmp_path / name, enumerate("xyz"), enumerate("pq"))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
