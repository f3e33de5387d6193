"""What records declare: carried through curation, and the rules that go by it."""

from tokenmill.records.document_metadata import encode_metadata

TEXT = "This is the text of a document, with the words that a text has to have, number {}."


def document(doc_id, split="train", text=None, language=b"", **metadata):
    """A document as ingest leaves it; its text is like no other, unless it is given."""
    text = (text or TEXT.format(doc_id)).encode()
    return split, doc_id.encode(), b"web", text, b"", language, encode_metadata(metadata)


def test_metadata_and_language_travel_with_kept_and_dropped_documents(curate):
    text = TEXT.format("same")
    documents = [
        document("a", title="Über", url="https://e.org/a"),
        document("b", text=text, license="MIT"),
        document("c", text=text.upper(), license="CC0", date="2020"),
        document("d", text="{}", title="A brace", language=b"de"),
        document("e"),
    ]
    result = curate(documents, curate.settings({"max_curly_brackets": 0}))
    kept = {row[1]: row[6:] for row in result.kept}
    assert kept == {
        b"a": (b"en", b'{"title":"\xc3\x9cber","url":"https://e.org/a"}'),
        b"b": (b"en", b'{"license":"MIT"}'),
        b"e": (b"en", b""),
    }
    dropped = {r.doc_id: (r.reason, r.language, r.metadata) for r in result.dropped}
    assert dropped == {
        b"c": ("exact_duplicate", "en", b'{"date":"2020","license":"CC0"}'),
        b"d": ("curly_brackets", "de", b'{"title":"A brace"}'),
    }
