"""Cuts the Chinese, Japanese and Thai benchmark documents into words with a segmenter.

    PEER/bin/python benchmarks/languages/segment.py WORK_DIR

Run with peer_datatrove.py's environment, which has the segmenters: jieba for Chinese, SudachiPy
(mode A, its small units) for Japanese, PyThaiNLP's newmm for Thai. Writes WORK_DIR/segmented.jsonl:
the documents of planted.jsonl with blanks between words, punctuation left at the word before it,
and each character of the language written as a Hangul syllable, one for one. Hangul has blanks, so
tokenmill takes the words as they are; characters of the scripts themselves it would cut in its own
way. Prints MB of UTF-8 a CPU second of segmenter, its start not counted.
"""

import json
import logging
import sys
import time
from collections.abc import Callable

SEGMENTED = ("zh", "ja", "th")
_HANGUL = 0xAC00


def segmenters() -> dict[str, Callable[[str], list[str]]]:
    """Return by language what cuts a line into words."""
    import jieba
    import sudachipy
    from pythainlp.tokenize import word_tokenize

    jieba.setLogLevel(logging.ERROR)
    sudachi = sudachipy.Dictionary().create(mode=sudachipy.SplitMode.A)
    return {
        "zh": jieba.lcut,
        "ja": lambda line: [word.surface() for word in sudachi.tokenize(line)],
        "th": lambda line: word_tokenize(line, engine="newmm-safe"),
    }


def with_blanks(words: list[str]) -> str:
    """Put blanks between words where the scripts have none, but not before punctuation."""
    text = ""
    parts: list[str] = []
    for word in filter(None, words):
        is_word = any(map(str.isalnum, word))
        joined = text[-1:].isspace() or (text[-1:] + word[0]).isascii()
        parts.append(word if not parts or not is_word or joined else f" {word}")
        text = word
    return "".join(parts)


def as_hangul(text: str, syllables: dict[str, str]) -> str:
    """Write each character of a script without blanks as a syllable of its own."""
    written = []
    for character in text:
        # Thai, its vowels and tone marks too; kana and Han, and the mark of long vowels.
        if "\u0e01" <= character <= "\u0e4e" or "\u3040" <= character <= "\u9fff":
            character = syllables.setdefault(character, chr(_HANGUL + len(syllables)))
        written.append(character)
    return "".join(written)


def main() -> None:
    """Write the documents and print the speed."""
    work = sys.argv[1]
    cut = segmenters()
    syllables: dict[str, dict[str, str]] = {language: {} for language in SEGMENTED}
    size, seconds = dict.fromkeys(SEGMENTED, 0), dict.fromkeys(SEGMENTED, 0.0)
    for segmenter in cut.values():
        segmenter("ก一")
    with (
        open(f"{work}/planted.jsonl", encoding="utf-8") as lines,
        open(f"{work}/segmented.jsonl", "w", encoding="utf-8") as out,
    ):
        for line in lines:
            document = json.loads(line)
            language = document["id"][:2]
            if language not in SEGMENTED:
                continue
            started = time.process_time()
            words = [cut[language](part) for part in document["text"].split("\n")]
            seconds[language] += time.process_time() - started
            size[language] += len(document["text"].encode())
            text = "\n".join(map(with_blanks, words))
            document["text"] = as_hangul(text, syllables[language])
            out.write(json.dumps(document, ensure_ascii=False) + "\n")
    for language in SEGMENTED:
        print(f"{language}: {size[language] / 1e6 / seconds[language]:.2f} MB per CPU second")


if __name__ == "__main__":
    main()
