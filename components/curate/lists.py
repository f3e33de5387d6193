"""Rules that the user writes: lists of hosts, licenses and words to keep or to drop.

A document is dropped if its URL or license is on a list of those to deny, or not on the list of
those to keep where there is one; a document without a URL (license) is on no list.
"""

import fnmatch
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from components.curate.list_entries import ListFiles, parsed_blocks, read_pinned, split_url
from components.curate.word_list import WordList
from tokenmill.records.document_metadata import decode_metadata
from tokenmill.text.text_columns import Spans, TextColumns, is_in

LIST_KEYS = ListFiles._fields
LIST_REASONS = (
    "denied_url", "no_url", "url_not_allowed",
    "denied_license", "no_license", "license_not_allowed",
    "denied_word",
)  # fmt: skip
"""Drop reasons of these rules, in the order in which they are asked."""

_CREATIVE_COMMONS = re.compile(
    r"(?:https?://)?(?:www\.)?creativecommons\.org/(?:licenses|publicdomain)/"
    r"([a-z-]+)(?:/([0-9.]+))?(?:/.*)?",
    re.IGNORECASE,
)


class UrlList:
    """Finds URLs whose host, or beginning, is on a list.

    An entry with a path matches what begins so, on its host and the subdomains of it. All entries
    are 8 bytes each, and the beginnings of a URL are looked up by their hashes.

    Args:
        blocks: The entries as `parse_entry` returns them, in parts.
    """

    def __init__(self, blocks: Iterable[list[str]]):
        hashes = [np.zeros(0, np.uint64)]
        self._path_characters = 0  # of the longest
        for entries in blocks:
            columns = TextColumns(entries)
            first = columns.first
            hashes.append(columns.hash_spans(Spans(first[:-1], first[1:], first, first)))
            paths = (len(entry) - entry.find("/") for entry in entries if "/" in entry)
            self._path_characters = max(self._path_characters, max(paths, default=0))
        self._hashes = np.unique(np.concatenate(hashes))

    def find(self, urls: Sequence[str]) -> list[str]:
        """Return the entry that each URL matches, the shortest; empty for none."""
        texts, starts, ends, owners = [], [], [], []
        place = 0
        for number, url in enumerate(urls):
            host, path = (split_url(url) if url else None) or ("", "")
            labels = [0, *(i + 1 for i, character in enumerate(host) if character == ".")]
            reach = min(len(path), self._path_characters)
            first = place + np.array(labels)
            end = place + len(host) + np.arange(reach + 1)
            starts.append(np.repeat(first, reach + 1))
            ends.append(np.tile(end, len(labels)))
            owners.append(np.full(len(labels) * (reach + 1), number))
            texts.append(host + path)
            place += len(host) + len(path)
        result = [""] * len(urls)
        if not urls:
            return result
        start, end, owner = (np.concatenate(parts) for parts in (starts, ends, owners))
        columns = TextColumns(texts)
        hit = is_in(columns.hash_spans(Spans(start, end, owner, owner)), self._hashes)
        hit &= end > start
        start, end, owner = start[hit], end[hit], owner[hit]
        order = np.lexsort((end - start, owner))
        found, first_of = np.unique(owner[order], return_index=True)
        for number, at in zip(found.tolist(), order[first_of].tolist(), strict=True):
            begin = int(columns.first[number])
            result[number] = texts[number][start[at] - begin : end[at] - begin]
        return result


class LicenseList:
    """Finds licenses that a pattern of a list matches, whatever their case.

    Args:
        blocks: The patterns (CC-BY*, MIT), in parts.
    """

    def __init__(self, blocks: Iterable[list[str]]):
        self._patterns = [
            (entry, re.compile(fnmatch.translate(entry), re.IGNORECASE))
            for entries in blocks
            for entry in entries
        ]
        self._find = functools.lru_cache(maxsize=1 << 12)(self._search)

    def find(self, licenses: Sequence[str]) -> list[str]:
        """Return the pattern that each license matches, the first; empty for none."""
        return [self._find(license) if license else "" for license in licenses]

    def _search(self, license: str) -> str:
        names = (license, spdx_id(license))
        matches = (entry for entry, pattern in self._patterns if any(map(pattern.match, names)))
        return next(matches, "")


def spdx_id(license: str) -> str:
    """Return the SPDX id of a Creative Commons URL (CC-BY-SA-4.0); another license as it is."""
    found = _CREATIVE_COMMONS.fullmatch(license)
    if found is None:
        return license
    name = {"zero": "CC0", "mark": "CC-PDM"}.get(found[1].lower(), f"CC-{found[1].upper()}")
    return f"{name}-{found[2]}" if found[2] else name


class Lists:
    """The lists of a configuration that are in use.

    Args:
        blocks_of: Returns the entries of a key, in parts; None where there is no such list.
    """

    def __init__(self, blocks_of: Callable[[str], Iterable[list[str]] | None]):
        def made(kind, key):
            blocks = blocks_of(key)
            return None if blocks is None else kind(blocks)

        self._by_metadata = (
            ("url", made(UrlList, "deny_urls"), made(UrlList, "urls")),
            ("license", made(LicenseList, "deny_licenses"), made(LicenseList, "licenses")),
        )
        self._deny_words = made(WordList, "deny_words")

    def judge(self, texts: Sequence[str], metadata: Sequence[bytes]) -> dict[int, tuple[str, str]]:
        """Return (reason, what matched) of each document that is dropped, by its place.

        Args:
            texts: Normalized.
            metadata: Of each; empty for none.
        """
        dropped: dict[int, tuple[str, str]] = {}
        if any(deny or allow for _, deny, allow in self._by_metadata):
            known = [decode_metadata(data) for data in metadata]
            for name, deny, allow in self._by_metadata:
                values = [of_document.get(name, "") for of_document in known]
                for place, entry in enumerate(deny.find(values) if deny else ()):
                    if entry:
                        dropped.setdefault(place, (f"denied_{name}", entry))
                for place, entry in enumerate(allow.find(values) if allow else ()):
                    if not entry:
                        reason = f"{name}_not_allowed" if values[place] else f"no_{name}"
                        dropped.setdefault(place, (reason, ""))
        if self._deny_words:
            for place, word in enumerate(self._deny_words.find(texts)):
                if word:
                    dropped.setdefault(place, ("denied_word", word))
        return dropped


@functools.lru_cache(maxsize=4)
def read_lists(files: ListFiles) -> Lists:
    """Read what `pin_lists` wrote; a process keeps it."""

    def blocks_of(key: str) -> Iterable[list[str]] | None:
        path = getattr(files, key)
        return read_pinned(path) if path else None

    return Lists(blocks_of)


def lists_of(values: Mapping[str, Sequence[str]]) -> Lists:
    """Return the lists that the keys of [curate] name, by key of LIST_KEYS.

    Raises:
        TokenmillError: A file of one is missing, has no entry, or a line that is none.
    """
    return Lists(lambda key: parsed_blocks(key, values[key]) if values[key] else None)
