"""Long texts in parts, for libraries that take bounded ones only."""

from collections.abc import Iterator


def cut_before_blanks(text: str, limit: int) -> Iterator[str]:
    """Cut a text into parts of at most `limit` characters, which joined are the text.

    A part ends before a run of blanks, or between two characters where a word (or a run of
    blanks) is longer than `limit`. An empty text is one empty part.
    """
    start = 0
    while len(text) - start > limit:
        end = start + limit
        cut = text.rfind(" ", start + 1, end + 1)
        while cut > start and text[cut - 1] == " ":
            cut -= 1
        cut = cut if cut > start else end
        yield text[start:cut]
        start = cut
    yield text[start:]
