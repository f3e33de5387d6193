"""The embedded corpus, seen from outside."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data import embedded_corpus
from data.embedded_corpus import (
    EMBEDDED_PACKAGES,
    EmbeddedCorpusError,
    build_embedded_corpus,
    ensure_embedded_corpus,
)

ROOT = Path(__file__).resolve().parents[2]
PROSE = "A sentence that a reader would find in good documentation. " * 5


def read_documents(path):
    return [json.loads(line) for line in path.read_bytes().decode("utf-8").split("\n")[:-1]]


def run_python(code, *flags, **environment):
    return subprocess.run(
        [sys.executable, *flags, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def small(monkeypatch):
    """The cached corpus cut down to one small package."""
    monkeypatch.setattr(embedded_corpus, "EMBEDDED_PACKAGES", ("click",))


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a made-up package from {path: content} into a directory on sys.path."""

    def install(name, files, record=True):
        site = tmp_path / f"site-{name}"
        files = {
            f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
            f"License: no prose\n\n{PROSE}",
            **files,
        }
        for relative, content in files.items():
            target = site / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.encode())
        if record:
            listing = "".join(f"{relative},,\n" for relative in files)
            (site / f"{name}-1.0.dist-info/RECORD").write_text(listing)
        monkeypatch.syspath_prepend(str(site))
        return site

    return install


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return ensure_embedded_corpus(tmp_path_factory.mktemp("cache"))


def test_default_corpus_is_large_and_has_every_package(full):
    documents = read_documents(full.path)
    assert full.documents == len(documents) > 10_000
    assert full.text_bytes == sum(len(document["text"].encode()) for document in documents)
    assert 8_000_000 <= full.text_bytes <= 16_000_000
    assert {document["source"] for document in documents} == set(EMBEDDED_PACKAGES)
    assert [name for name, _ in full.packages] == sorted(EMBEDDED_PACKAGES)
    assert len({document["id"] for document in documents}) == len(documents)


def test_default_corpus_has_natural_duplicates(full):
    texts = [document["text"] for document in read_documents(full.path)]
    assert 0.03 < 1 - len(set(texts)) / len(texts) < 0.5


def test_lines_have_the_stated_form(tmp_path):
    corpus = build_embedded_corpus(tmp_path / "out.jsonl", ("rich",))
    content = corpus.path.read_bytes()
    assert content.endswith(b"\n")
    assert b"\r" not in content
    for line in content.decode("utf-8").split("\n")[:-1]:
        document = json.loads(line)
        assert list(document) == ["id", "source", "text"]
        assert document["source"] == "rich"
        assert document["id"].startswith("rich/")
        assert len(document["text"]) >= 200
        assert json.dumps(document, ensure_ascii=False) == line
    ids = {document["id"] for document in read_documents(corpus.path)}
    assert "rich/rich/console.py:Console" in ids
    assert "rich/rich/console.py:Console.print" in ids
    assert str(Path(sys.prefix)) not in content.decode("utf-8")


def test_same_bytes_whatever_the_hash_seed_and_order(tmp_path):
    code = (
        "from pathlib import Path; from data.embedded_corpus import build_embedded_corpus\n"
        "build_embedded_corpus(Path({path!r}), {packages})"
    )
    packages = ("click", "jinja2", "rich", "tensorflow-text", "google-cloud-language")
    contents = []
    for seed, ordered in (("1", packages), ("2", packages[::-1])):
        path = tmp_path / f"{seed}.jsonl"
        done = run_python(code.format(path=str(path), packages=ordered), PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    sources = [json.loads(line)["source"] for line in contents[0].splitlines()]
    assert list(dict.fromkeys(sources)) == sorted(packages)


@pytest.mark.filterwarnings("error")
def test_invalid_escapes_are_read_even_where_warnings_are_errors(tmp_path, install):
    install("toy", {"toy.py": f'"""\\d {PROSE}"""'})
    corpus = build_embedded_corpus(tmp_path / "out.jsonl", ("toy",))
    assert corpus.skipped_files == 0
    assert read_documents(corpus.path)[1]["text"].startswith("\\d A sentence")


def test_second_call_takes_the_cache(tmp_path, small):
    calls = []
    first = ensure_embedded_corpus(tmp_path, lambda *progress: calls.append(progress))
    assert calls == [(1, 1)]
    assert first.path.parent.parent == tmp_path
    written_ns = first.path.stat().st_mtime_ns
    second = ensure_embedded_corpus(tmp_path, lambda *_: pytest.fail("built again"))
    assert second == first
    assert second.path.stat().st_mtime_ns == written_ns
    assert sorted(entry.name for entry in first.path.parent.iterdir()) == [
        "corpus.json",
        "documents.jsonl",
    ]


def test_another_package_list_or_builder_is_another_corpus(tmp_path, small, monkeypatch):
    paths = {ensure_embedded_corpus(tmp_path).path}
    monkeypatch.setattr(embedded_corpus, "BUILDER_VERSION", embedded_corpus.BUILDER_VERSION + 1)
    paths.add(ensure_embedded_corpus(tmp_path).path)
    monkeypatch.setattr(embedded_corpus, "EMBEDDED_PACKAGES", ("click", "jinja2"))
    paths.add(ensure_embedded_corpus(tmp_path).path)
    assert len(paths) == 3
    assert all(path.exists() for path in paths)


@pytest.mark.parametrize(
    ("configured", "expected"), [("{tmp}/xdg", "xdg"), ("", ".cache"), ("relative", ".cache")]
)
def test_default_cache_directory(tmp_path, small, monkeypatch, configured, expected):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", configured.format(tmp=tmp_path))
    assert ensure_embedded_corpus().path.parent.parent == tmp_path / expected / "tokenmill"


@pytest.mark.parametrize("damaged_file", ["documents.jsonl", "corpus.json"])
def test_damaged_cache_is_rebuilt(tmp_path, small, damaged_file):
    first = ensure_embedded_corpus(tmp_path)
    expected = first.path.read_bytes()
    (first.path.parent / damaged_file).write_bytes(b"{")
    again = ensure_embedded_corpus(tmp_path)
    assert again == first
    assert again.path.read_bytes() == expected
    assert len(list(tmp_path.iterdir())) == 1


def test_missing_package_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "out.jsonl"
    with pytest.raises(EmbeddedCorpusError, match=r"no-such-package-here.*make setup"):
        build_embedded_corpus(path, ("click", "no-such-package-here"))
    assert not path.exists()


def test_package_without_file_list_is_named(tmp_path, install):
    install("bare", {"bare.py": ""}, record=False)
    with pytest.raises(EmbeddedCorpusError, match=r"bare.*make setup"):
        build_embedded_corpus(tmp_path / "out.jsonl", ("bare",))


def test_failed_build_leaves_nothing(tmp_path, small):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_embedded_corpus(tmp_path, stop)
    assert list(tmp_path.iterdir()) == []


def test_killed_build_leaves_no_corpus_and_is_swept_later(tmp_path, small):
    code = (
        "import os, signal; from pathlib import Path; from data import embedded_corpus as e\n"
        "e.EMBEDDED_PACKAGES = ('click',)\n"
        f"e.ensure_embedded_corpus(Path({str(tmp_path)!r}),"
        " lambda *_: os.kill(os.getpid(), signal.SIGKILL))"
    )
    assert run_python(code).returncode == -9
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(".")
    young = ensure_embedded_corpus(tmp_path)
    assert young.documents == len(read_documents(young.path))
    assert leftover.exists(), "may belong to a build in progress"
    os.utime(leftover, (0, 0))
    (young.path.parent / "corpus.json").unlink()
    ensure_embedded_corpus(tmp_path)
    assert list(tmp_path.iterdir()) == [young.path.parent]


def test_two_builds_at_once_end_with_the_corpus_of_the_first(tmp_path, small):
    first = []

    def build_meanwhile(*_):
        corpus = ensure_embedded_corpus(tmp_path)
        first.append((corpus, corpus.path.stat().st_ino))

    second = ensure_embedded_corpus(tmp_path, build_meanwhile)
    assert first == [(second, second.path.stat().st_ino)]
    assert list(tmp_path.iterdir()) == [second.path.parent]


def test_unreadable_files_are_counted_not_fatal(tmp_path, install):
    site = install(
        "toy",
        {
            "toy/__init__.py": f'"""{PROSE}"""',
            "toy/syntax.py": f'"""{PROSE}"""\ndef broken(:\n',
            "toy/latin.py": b'"""caf\xe9"""\n',
            "toy/nul.py": b"x = 1\0\n",
            "toy/notes.md": b"\xff\xfe" + PROSE.encode(),
            "toy/gone.py": "",
        },
    )
    (site / "toy/gone.py").unlink()
    corpus = build_embedded_corpus(tmp_path / "out.jsonl", ("toy",))
    assert corpus.skipped_files == 5
    assert corpus.packages == (("toy", "1.0"),)
    assert [document["id"] for document in read_documents(corpus.path)] == [
        "toy/toy-1.0.dist-info/METADATA:description",
        "toy/toy/__init__.py:module",
    ]
    assert str(site) not in corpus.path.read_text(encoding="utf-8")


def test_every_kind_of_definition_is_found_and_named(tmp_path, install):
    doc = f'"""{PROSE}"""'
    module = f"""
class Outer:
    {doc}
    @property
    def size(self):
        {doc}
    @size.setter
    def size(self, value):
        {doc}
    class Inner:
        {doc}
async def task():
    {doc}
    def helper():
        {doc}
try:
    def tried():
        {doc}
except ImportError:
    def tried():
        {doc}
def short():
    \"\"\"Too short.\"\"\"
def odd():
    \"\"\"\\ud800 {PROSE}\"\"\"
"""
    install("toy", {"toy.py": module})
    corpus = build_embedded_corpus(tmp_path / "out.jsonl", ("toy",))
    documents = {document["id"]: document["text"] for document in read_documents(corpus.path)}
    names = [key.split(":")[1] for key in documents if key.startswith("toy/toy.py:")]
    assert names == [
        "Outer",
        "Outer.size",
        "Outer.size#2",
        "Outer.Inner",
        "task",
        "task.<locals>.helper",
        "tried",
        "tried#2",
        "odd",
    ]
    assert documents["toy/toy.py:odd"].startswith("\\ud800 A sentence")


def test_tests_licences_and_generated_files_are_left_out(tmp_path, install):
    module = f'"""{PROSE}"""'
    unwanted = {
        "toy/api_pb2.py": module,
        "toy/test_x.py": module,
        "toy/x_test.py": module,
        "toy/tests/helper.py": module,
        "toy/_vendor/other.py": module,
        "toy/_vendor/other-2.0.dist-info/METADATA": f"Name: other\n\n{PROSE}",
        "toy/huge.py": module + "\nx = 1" * 100_000,
        "toy/LICENSE.txt": PROSE,
        "toy/table.csv": PROSE,
        "toy-1.0.dist-info/licenses/AUTHORS.md": PROSE,
    }
    wanted = {"toy/code.py": module, "toy/docs/guide.rst": PROSE, "toy/README.md": PROSE}
    install("toy", {**unwanted, **wanted})
    corpus = build_embedded_corpus(tmp_path / "out.jsonl", ("toy",))
    assert corpus.skipped_files == 0
    assert [document["id"] for document in read_documents(corpus.path)] == [
        "toy/toy-1.0.dist-info/METADATA:description",
        "toy/toy/README.md:document",
        "toy/toy/code.py:module",
        "toy/toy/docs/guide.rst:document",
    ]


def test_building_imports_none_of_the_packages(tmp_path):
    code = (
        "import sys; from pathlib import Path; from data import embedded_corpus as e\n"
        f"e.build_embedded_corpus(Path({str(tmp_path / 'out.jsonl')!r}), ('keras', 'click'))\n"
        "print(sorted({'tensorflow', 'tfx', 'numpy', 'keras', 'click'} & set(sys.modules)))"
    )
    done = run_python(code)
    assert done.stdout.strip() == "[]", done.stderr
