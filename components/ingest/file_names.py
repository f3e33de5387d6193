"""What a file's name says: its format, its compression, and why a directory's file is left out."""

import os
import re

MEDIA_TYPES = {
    "pdf": "application/pdf",
    "epub": "application/epub+zip",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "odt": "application/vnd.oasis.opendocument.text",
    "odp": "application/vnd.oasis.opendocument.presentation",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "rtf": "application/rtf",
}
"""Documents of a file each that one library reads: books, office documents, PDF."""
FORMATS = {
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "text": (".txt", ".text", ".md", ".rst"),
    "csv": (".csv", ".tsv"),
    "parquet": (".parquet", ".pq", ".arrow"),
    "tfrecord": (".tfrecord", ".tfrecords"),
    "html": (".html", ".htm", ".xhtml"),
    "warc": (".warc", ".wet"),
    "mediawiki": (".xml",),
    "mbox": (".mbox",),
    "eml": (".eml",),
    **{name: (f".{name}",) for name in MEDIA_TYPES},
}
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tbz2")
FORMAT_BY_SUFFIX = {suffix: name for name, suffixes in FORMATS.items() for suffix in suffixes}
COMPRESSION_SUFFIXES = (".gz", ".bz2", ".zst")

# As TensorFlow, Beam and TFX number shards, before or after the suffix of the compression.
_SHARD = re.compile(r"-\d+-of-\d+$")
# What Hugging Face's datasets writes beside its Arrow files.
_OF_DATASETS = ("dataset_info.json", "dataset_dict.json", "state.json")
_WIKI_DUMP = re.compile(r"-pages-|wiki[^/]*$", re.IGNORECASE)
_TFX = re.compile(r"_(tfrecords?)$")  # data_tfrecord-00000-of-00001.gz


def compression_of(path: str) -> str:
    """Return the suffix of the compression, one of COMPRESSION_SUFFIXES; empty for none."""
    suffix = os.path.splitext(_SHARD.sub("", path.lower()))[1]
    suffix = {".tgz": ".gz", ".tbz2": ".bz2"}.get(suffix, suffix)
    return suffix if suffix in COMPRESSION_SUFFIXES else ""


def bare_suffix(path: str) -> str:
    """Return the suffix that tells the format, in lower case, without compression and shard."""
    lower = _SHARD.sub("", path.lower()).removesuffix(compression_of(path))
    return os.path.splitext(_TFX.sub(r".\1", _SHARD.sub("", lower)))[1]


def format_of(path: str) -> str:
    """Return the format by the suffix; anything unknown is text."""
    return FORMAT_BY_SUFFIX.get(bare_suffix(path), "text")


def why_left_out(name: str) -> str:
    """Say why a file below a directory is not read, by its path there; empty if it is read."""
    if is_hidden(name):
        return "hidden"
    if os.path.basename(name) in _OF_DATASETS:
        return "what datasets says of itself"
    if bare_suffix(name) == ".xml" and not _WIKI_DUMP.search(name):
        return ".xml"  # most XML is no MediaWiki dump
    if bare_suffix(name) in FORMAT_BY_SUFFIX or bare_suffix(name) in ARCHIVE_SUFFIXES:
        return ""
    return os.path.splitext(name)[1].lower() or "without suffix"


def is_hidden(name: str) -> bool:
    """Tell whether a path has a hidden part, such as .ipynb_checkpoints, or macOS's of archives.

    Not "." and "..": tar names what lies in the current directory ./FILE.
    """
    parts = (part for part in name.split("/") if part not in (".", ".."))
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)
