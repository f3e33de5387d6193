"""What a record says of its document beside the text: title, URL, date, license and language."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from components.ingest.config import CorpusConfig
from tokenmill.records.document_metadata import encode_metadata
from tokenmill.text.language_tags import language_code


class Declared(NamedTuple):
    """The features of a document that its record declares.

    Attributes:
        language: A code of `tokenmill.text.language.LANGUAGES`; empty if there is none.
        metadata: `tokenmill.records.document_metadata`; empty for none.
    """

    language: bytes = b""
    metadata: bytes = b""


NOTHING = Declared()


class DeclaredFields:
    """The fields of records, by the section [corpus], that say what is known of a document.

    Args:
        settings: Names of the fields.
    """

    def __init__(self, settings: CorpusConfig):
        self._by_name = {
            "title": settings.title_field,
            "url": settings.url_field,
            "date": settings.date_field,
            "license": settings.license_field,
            "language": settings.language_field,
        }
        self.names = frozenset(self._by_name.values())
        self.date = settings.date_field

    def read(self, value_of: Callable[[str], object]) -> Declared:
        """Return what a record declares.

        Args:
            value_of: Returns the value of a field, None where there is none. What is no string is
                left out, but numbers of the date.
        """
        found: dict[str, str] = {}
        for name, field in self._by_name.items():
            value = value_of(field)
            if isinstance(value, str):
                found[name] = value
            elif isinstance(value, bytes):
                found[name] = value.decode("utf-8", "replace")
            elif name == "date" and type(value) in (int, float):
                found[name] = str(value)
        return declare(found)


def declare(values: Mapping[str, str]) -> Declared:
    """Return the features of a document from title, url, date, license and language as text."""
    code = language_code(values.get("language", ""))
    return Declared(code.encode(), encode_metadata(values))
