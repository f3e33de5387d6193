"""Lines that stand in many documents go; the rest of each document stays."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from components.curate.boilerplate import MIN_LINE_CHARACTERS, remove_frequent
from tokenmill.records.documents import document_batch
from tokenmill.text.normalize import normalize
from tokenmill.text.text_columns import TextColumns

LICENCE = "Licensed under the Apache License, Version 2.0, to whom it may concern."
FOOTER = "All rights are reserved, and so is this line, by its author."
LINES = st.sampled_from(["short", "", "  " + LICENCE, LICENCE + " \r", FOOTER, "x" * 40])


def without_lines(text, frequent):
    kept = [line for line in normalize(text).split("\n") if line.strip() not in frequent]
    return [line.strip() for line in kept if line.strip()]


@given(st.lists(st.lists(LINES, max_size=6).map("\n".join), max_size=5), st.sets(LINES, max_size=2))
def test_frequent_lines_go_wherever_they_stand(texts, frequent):
    frequent = {line.strip() for line in frequent if len(line.strip()) >= MIN_LINE_CHARACTERS}
    columns = TextColumns(sorted(frequent))
    hashes = np.sort(columns.hash_spans(columns.lines))
    batch = document_batch(
        [b"%d" % i for i in range(len(texts))], [b"s"] * len(texts), [t.encode() for t in texts]
    )
    edited, removed = remove_frequent(batch, hashes)
    rows = edited.to_pylist()
    removed = removed.by_reason.get("boilerplate_lines", (0, 0))[0]
    for text, row in zip(texts, rows, strict=True):
        found = row["text"].decode()
        assert normalize(found) == found
        assert [line.strip() for line in found.split("\n") if line.strip()] == without_lines(
            text, frequent
        )
        assert row["byte_count"] == len(text.encode())  # as it came in
    gone = sum(line.strip() in frequent for text in texts for line in text.split("\n"))
    assert removed == gone


def test_lines_are_counted_by_document_over_both_splits(curate):
    """LICENCE is in 4 documents, FOOTER three times in one and once in two more."""
    bodies = [f"Document {i} has a text of its own, which nobody else has got." for i in range(6)]
    texts = [f"{LICENCE}\n\n{body}" if i < 4 else body for i, body in enumerate(bodies)]
    texts[3] += f"\n{FOOTER}" * 3
    texts[4] += f"\n{FOOTER}"
    texts[5] = f"   {FOOTER}\n{texts[5]}"
    documents = [
        ("eval" if i % 3 == 0 else "train", b"%d" % i, b"s", text.encode())
        for i, text in enumerate(texts)
    ]
    documents.append(("train", b"licence", b"s", f"{LICENCE}\r\n".encode()))
    counts = Counter()
    for limit in (None, 3, 2):
        for partitions in (1, 3):
            settings = curate.settings(max_line_documents=limit or "off", partitions=partitions)
            result = curate(documents, settings, size=2)
            kept = b"\n".join(k[3] for k in result.kept).decode()
            counts[limit, "licence"] += kept.count(LICENCE)
            counts[limit, "footer"] += kept.count(FOOTER)
            report = result.report["total"]
            assert report["in"]["bytes"] == sum(len(d[3]) for d in documents)
            assert all(body in kept for body in bodies)
            licences, footers = {None: (0, 0), 3: (5, 0), 2: (5, 5)}[limit]
            size = licences * len(LICENCE.encode()) + footers * len(FOOTER.encode())
            removed = {"boilerplate_lines": (licences + footers, size)} if licences else {}
            assert result.removed_lines == removed
            # A document of boilerplate only is empty without it.
            assert result.reasons() == ({} if limit is None else {b"licence": "empty"})
    assert counts == {
        (None, "licence"): 10, (None, "footer"): 10,
        (3, "licence"): 0, (3, "footer"): 10,
        (2, "licence"): 0, (2, "footer"): 0,
    }  # fmt: skip
