"""Paths, directories and globs become a fixed list of files, named by its content."""

import os

import pytest

from components.ingest.manifest import list_inputs, read_manifest, write_manifest
from tokenmill.errors import TokenmillError


@pytest.fixture
def corpus(tmp_path):
    """A directory with files to read and files to leave alone."""
    root = tmp_path / "corpus"
    for name in ("a.txt", "b.md", "c.jsonl.gz", "deep/er/d.NDJSON", "deep/e.json.zst", "f.rst.bz2"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    for name in ("picture.png", "deep/archive.7z", "noext"):
        (root / name).write_text("not text")
    return root


def names(*inputs):
    """The names under which the inputs are listed."""
    return [file.name for file in list_inputs([str(i) for i in inputs])]


def test_directory_is_walked_for_text_files(corpus):
    assert names(corpus) == [
        "a.txt", "b.md", "c.jsonl.gz", "deep/e.json.zst", "deep/er/d.NDJSON", "f.rst.bz2",
    ]  # fmt: skip
    assert names(f"{corpus}/") == names(corpus)


def test_single_file_may_have_any_suffix(corpus):
    assert names(corpus / "deep/e.json.zst") == ["e.json.zst"]
    assert names(corpus / "noext") == ["noext"]


def test_globs(corpus):
    assert names(f"{corpus}/*.txt") == ["a.txt"]
    assert names(f"{corpus}/?.md") == ["b.md"]
    assert names(f"{corpus}/[ab].*") == ["a.txt", "b.md"]
    assert names(f"{corpus}/**.zst") == ["deep/e.json.zst"]


def test_names_from_a_glob_do_not_depend_on_where_the_corpus_is(corpus):
    """Ids are made of them."""
    assert names(f"{corpus.parent}/[bc]orpus/a.txt") == ["corpus/a.txt"]
    assert names(f"{corpus.parent}/c?rpus/a.txt") == ["corpus/a.txt"]
    assert names(f"{corpus.parent}/*/a.txt") == ["corpus/a.txt"]


@pytest.mark.parametrize("odd", ["part[1]", "what?", "star*", "a]b[c"])
def test_path_that_exists_is_no_glob(tmp_path, odd):
    (tmp_path / odd).mkdir()
    (tmp_path / odd / f"{odd}.txt").write_text("found")
    (tmp_path / "part1").mkdir()
    (tmp_path / "part1" / "part1.txt").write_text("not this")
    assert names(tmp_path / odd) == [f"{odd}.txt"]
    assert names(tmp_path / odd / f"{odd}.txt") == [f"{odd}.txt"]


def test_relative_paths_and_home(corpus, monkeypatch):
    monkeypatch.chdir(corpus.parent)
    monkeypatch.setenv("HOME", str(corpus.parent))
    assert list_inputs(["corpus/a.txt"]) == list_inputs(["~/corpus/a.txt"])
    assert list_inputs(["corpus/a.txt"])[0].path == str(corpus / "a.txt")


def test_file_named_twice_is_read_once(corpus):
    files = list_inputs([str(corpus / "a.txt"), f"{corpus}/*.txt", str(corpus / "a.txt")])
    assert [file.path for file in files] == [str(corpus / "a.txt")]


def test_order_of_inputs_does_not_matter(corpus):
    inputs = [str(corpus / "b.md"), str(corpus / "deep"), str(corpus / "a.txt")]
    assert list_inputs(inputs) == list_inputs(inputs[::-1])


@pytest.mark.parametrize(
    "bad", ["missing.txt", "missing_dir/", "*.parquet", "empty", "dangling.txt"]
)
def test_input_that_matches_nothing_is_an_error_that_names_it(corpus, bad):
    (corpus / "empty").mkdir()
    (corpus / "dangling.txt").symlink_to(corpus / "nowhere")
    with pytest.raises(TokenmillError) as error:
        list_inputs([str(corpus / "a.txt"), f"{corpus}/{bad}"])
    assert f"{corpus}/{bad}" in str(error.value)
    assert ".jsonl" in str(error.value)  # which files would have been read


def test_dangling_link_in_a_directory_stops_nothing(corpus):
    before = names(corpus)
    (corpus / "dangling.txt").symlink_to(corpus / "nowhere")
    assert names(corpus) == before


def test_manifest_of_the_same_files_is_the_same_file_with_the_same_time(corpus, tmp_path):
    first = write_manifest(list_inputs([str(corpus)]), str(tmp_path / "manifests"))
    path = os.path.join(first, "manifest-span-0.jsonl")
    inode = os.stat(path).st_ino
    os.utime(path, (1, 1))  # as a copy has another time
    again = write_manifest(list_inputs([str(corpus)]), str(tmp_path / "manifests"))
    assert again == first
    assert (os.stat(path).st_ino, os.path.getmtime(path)) == (inode, 0)
    assert os.listdir(first) == ["manifest-span-0.jsonl"]


@pytest.mark.parametrize("change", ["content", "time", "new", "gone"])
def test_manifest_of_changed_files_is_another(corpus, tmp_path, change):
    first = write_manifest(list_inputs([str(corpus)]), str(tmp_path / "manifests"))
    file = corpus / "a.txt"
    if change == "content":
        modified = file.stat().st_mtime
        file.write_text("longer than before")
        os.utime(file, (modified, modified))
    elif change == "time":
        os.utime(file, (1, 1))
    elif change == "new":
        (corpus / "new.txt").write_text("new")
    else:
        file.unlink()
    assert write_manifest(list_inputs([str(corpus)]), str(tmp_path / "manifests")) != first


def test_manifest_round_trip(corpus, tmp_path):
    (corpus / "ü \n\u2028 odd.txt").write_text("odd name")
    files = list_inputs([str(corpus)])
    directory = write_manifest(files, str(tmp_path / "manifests"))
    assert read_manifest(directory) == (files, 0)
