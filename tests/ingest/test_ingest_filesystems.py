"""What Beam can open is read by the same code: here a filesystem in memory, for gs://."""

import gzip
import io

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes, FileMetadata, FileSystem

from components.ingest.config import CorpusConfig
from components.ingest.manifest import list_inputs, read_manifest, write_manifest
from components.ingest.readers import read_file
from components.ingest.records import Document

FILES: dict[str, bytes] = {}


class MemoryFileSystem(FileSystem):
    """mem://, read only; it finds objects by prefix, as gs:// does."""

    @classmethod
    def scheme(cls):
        return "mem"

    def _list(self, dir_or_prefix):
        for path, data in FILES.items():
            if path.startswith(dir_or_prefix):
                yield FileMetadata(path, len(data), 5.0)

    def open(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
        assert compression_type == CompressionTypes.UNCOMPRESSED or path.endswith(".jsonl")
        return io.BufferedReader(io.BytesIO(FILES[path]))

    def exists(self, path):
        return path in FILES

    def split(self, path):
        head, _, tail = path.rpartition("/")
        return head, tail

    def has_dirs(self):
        return False

    def join(self, basepath, *paths):
        return "/".join((basepath, *paths))

    def metadata(self, path):
        return FileMetadata(path, len(FILES[path]), 5.0)

    def _unsupported(self, *args, **kwargs):
        raise NotImplementedError

    mkdirs = create = copy = rename = delete = _unsupported
    size = last_updated = checksum = _unsupported


def test_files_of_another_filesystem(tmp_path):
    table = io.BytesIO()
    pq.write_table(pa.table({"text": ["row"]}), table)
    FILES.clear()
    FILES.update(
        {
            "mem://bucket/in/a.jsonl.gz": gzip.compress(b'{"text": "line"}\n'),
            "mem://bucket/in/wiki/b.txt": b"whole",
            "mem://bucket/in/c.parquet": table.getvalue(),
            "mem://bucket/in/d.csv": b"text\nfield\n",
            "mem://bucket/in/picture.png": b"no",
            "mem://bucket/other/e.txt": b"no",
        }
    )
    files = list_inputs(["mem://bucket/in"])
    assert [f.name for f in files] == ["a.jsonl.gz", "c.parquet", "d.csv", "wiki/b.txt"]
    assert [f.name for f in list_inputs(["mem://bucket/in/*.csv", "mem://bucket/other/e.txt"])] == [
        "d.csv", "e.txt",
    ]  # fmt: skip
    read = CorpusConfig(max_document_bytes=1000, eval_fraction=0.05)
    items = [item for file in files for item in read_file(file, read)]
    assert [type(item) for item in items] == [Document] * 4
    assert [item.text for item in items] == [b"line", b"row", b"field", b"whole"]
    assert items[3].source == b"wiki"
    assert read_manifest(write_manifest(files, str(tmp_path)))[0] == files


def test_an_object_that_is_gone_when_it_is_read_is_quarantined():
    FILES.clear()
    FILES["mem://bucket/in/a.txt"] = b"t"
    (file,) = list_inputs(["mem://bucket/in"])
    FILES.clear()  # the client's error is a KeyError here, Google's is its NotFound
    (bad,) = read_file(file, CorpusConfig(max_document_bytes=1000, eval_fraction=0.05))
    assert (bad.file, bad.reason) == ("mem://bucket/in/a.txt", "unreadable_file")


def test_spans_on_another_filesystem():
    FILES.clear()
    FILES.update({f"mem://bucket/{i}/a.txt": b"t" for i in (1, 20, 3)})
    assert [f.path for f in list_inputs(["mem://bucket/{SPAN}/*.txt"])] == ["mem://bucket/20/a.txt"]
    assert [f.path for f in list_inputs(["mem://bucket/{SPAN}"], span=3)] == [
        "mem://bucket/3/a.txt"
    ]
