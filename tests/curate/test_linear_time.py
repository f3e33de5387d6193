"""No text takes long: all that meets a document's text is tried on its worst cases, 1 MB each."""

import time

import pyarrow as pa
import pytest

from components.curate.config import CurateConfig
from components.curate.mask import KINDS, mask
from components.curate.near_duplicates import all_ngrams
from components.curate.rules import RULES, judge, thresholds_of
from components.curate.rules.lines import LINE_RULES, remove_lines
from components.ingest.encoding import decode_cp1252, repair
from components.tokenize.training import Sentences
from components.validate.derived_features import describe_documents
from tokenmill.records.documents import document_batch
from tokenmill.text.normalize import normalize
from tokenmill.text.parts import cut_before_blanks
from tokenmill.text.text_columns import TextColumns

SIZE = 1_000_000
# A second is meant, on an idle machine; what is quadratic takes minutes.
MOST_CPU_SECONDS = 5
WORST = [
    # Runs in which a pattern could start anywhere.
    "a", "1", ".", " ", "\t", "\n", "@", ":", "<", "中", "\u0301", "\x85", "\r",
    # Almost an address, time and again.
    "a.", "a@", "a.a@", "a@b.", "a@a.bb-", "中@", "1.1.1.", "255.", "::", "f:", "[::",
    "http://", "http://.", "http://中.",
    # Almost a key, an account, a card, a phone number.
    "ghp_", "eyJa.", "sk-a", "-----BEGIN PRIVATE KEY-----", "DE89 ", "DE89A", "4111 ", "4111-1",
    "+1-", "+49 30 1", "0049", "(030) ", "00 1 ",
    # Marks in the wrong order, with and without letters; Hangul and Tibetan.
    "\u0301\u0323", "a" + "\u0301\u0323" * 15, "\u0f71\u0f72", "\u1100\u1161",
    # Almost mojibake.
    "Ã", "Ã©", "cafÃ©\né\n", "â€", "Ð¿", "Ã ", "Р°", "вЂ", "‚Ä", "ß“",
    # Lines and blanks.
    "\n\n\n", " \n", "a  ", "   a", "cookie", "terms of us", "javascrip", "\u2585", "…",
]  # fmt: skip

_EVERY_RULE = CurateConfig(rules="web", languages=("en",))


def _batch(text: str) -> pa.RecordBatch:
    return document_batch([b"1"], [b"s"], [text.encode()])


def _all_rules(text: str) -> None:
    thresholds = thresholds_of(_EVERY_RULE)
    every = {rule.setting: thresholds.get(rule.setting, 1.0) for rule in (*RULES, *LINE_RULES)}
    remove_lines([text], every)
    judge(TextColumns([text]), every)


FUNCTIONS = {
    "repair": lambda text: repair(text.encode(), True),
    "decode": lambda text: decode_cp1252(text.encode("cp1252", "replace")),
    "derive": lambda text: describe_documents(_batch(text), language=True),
    "normalize": normalize,
    "mask": lambda text: mask(text, KINDS),
    "rules": _all_rules,
    "ngrams": lambda text: all_ngrams([text], 5),
    "sentences": lambda text: list(Sentences([(b"1", b"s", text.encode())])),
    "parts": lambda text: list(cut_before_blanks(text, 65_536)),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_text_takes_linear_time(function):
    FUNCTIONS[function]("a warm-up: caches")
    slow = {}
    for unit in WORST:
        # First what has each function look closer.
        text = "a@b.co http://x cafÃ© 1.1 " + unit * (SIZE // len(unit.encode()))
        started = time.process_time()
        FUNCTIONS[function](text)
        slow[unit] = time.process_time() - started
    assert {unit: seconds for unit, seconds in slow.items() if seconds > MOST_CPU_SECONDS} == {}
