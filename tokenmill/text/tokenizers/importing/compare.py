"""Compares a compiled tokenizer with the library that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import tensorflow as tf

from tokenmill.errors import TokenmillError
from tokenmill.text.tokenizers.base import Tokenizer

ODD_STRINGS = (
    "", " ", "  ", "\n", "\r\n", "\t", "a", "Hello world", " leading", "trailing ",
    "  two  blanks  ", "   x", "a\tb\t\tc",
    "line\nline\r\nline\n\nline \n  indented\n\t\ttabs\n \n", "a \r\n b\r c",
    "def f(x):\n    return x ** 2  # comment\n\n\nclass A:\n\tpass",
    "it's I'm we'll they'd can't", "IT'S I'LL 'S 's 'ſ 'K",
    "12345 1,234.56 3.14159 ½ ² Ⅷ ١٢٣ 一二三 1st 2nd", "  1  22   333", "a1b2 c3 4d",
    "!!! ??? ... --- *** ((()))", " !x ?\n!!\n\n  ...", "foo_bar.baz[0]->qux::quux",
    "https://example.org/a?b=c&d=%20e#f", "user@example.org", "naïve café Ünïcödé Straße ĲSSEL",
    "e\u0301 a\u0308\u0323 o\u0302\u0301 \u0301x", "\u0344 \u212b \u2126 ﬁ ﬀ Ǆ ǆ",
    "İstanbul ıI ΑΣ ς Σ", "Привет, мир! Ёлка", "Ελληνικά κείμενο", "שלום עולם",
    "مرحبا بالعالم ١٢٣", "नमस्ते दुनिया क्षत्रिय", "สวัสดีชาวโลก", "안녕하세요 세계 각",
    "한글 자모", "日本語のテキスト。カタカナ ｶﾅ", "训练一个语言模型，好吗？",
    "中文和English混合123", "Tiếng Việt có dấu", "Zażółć gęślą jaźń",
    "👍 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 ☃️", "😀😀😀x",
    "\u00a0nbsp\u00a0x \u2003em \u3000ideographic \u2028line \u2029par \u0085next",
    "a\u200bb\u200dc\ufeffd", "\x00 \x01\x02 \x07 \x1b[0m \x7f \x80 \x9f",
    "\ufffd \ufffe \uffff \ue000 \U0010ffff", "soft\u00adhyphen", "\u2581 \u2581a b\u2581c",
    "<|endoftext|>", "x<|endoftext|>y <|im_start|>user\n<|im_end|>",
    "[CLS] [SEP] [MASK] [PAD] [UNK] a[CLS]b", "<s> </s> <unk> <pad> <mask> <s>a</s>",
    "##ing a ##b", "<tool_call>{}</tool_call> <|fim_prefix|>", "<0x0A> <0xFF>",
    "a" * 99 + " " + "b" * 100 + " " + "c" * 101, "ab" * 600, "漢" * 150, " " * 40 + "x",
    "\n" * 40 + "x", "\t " * 20, "0" * 50, "=" * 70, "é" * 120, "x\u0300\u0301\u0302\u0303y",
    "\u1100\u1161\u11a8 \uac01", "𝒜𝓁𝒷 𝟙𝟚 𐍈 𠀀 𝔘", "ﷺ ㎏ ℀ ⅓", "„quotes“ «guillemets» ‘x’",
)  # fmt: skip
"""Strings on which tokenizers differ: blanks, line ends, digits, marks, scripts without blanks,
emoji with joiners, control characters, special tokens' text, long words."""

_SHOWN = 80
_BATCH_BYTES = 1 << 22


def differing_texts(
    tokenizer: Tokenizer, encode: Callable[[str], Sequence[int]], texts: Iterable[str]
) -> list[str]:
    """Return the texts whose ids are others than the library's.

    Args:
        tokenizer: To compare.
        encode: The library's ids of a text.
        texts: What to try.
    """
    signature = [tf.TensorSpec([None], tf.string)]
    graph = tf.function(tokenizer.tokenize, input_signature=signature, autograph=False)
    differing = []
    for batch in _batches(texts):
        found = graph(tf.constant([text.encode() for text in batch], tf.string)).to_list()
        pairs = zip(batch, found, strict=True)
        differing += [text for text, ids in pairs if ids != list(encode(text))]
    return differing


def check_equal(tokenizer: Tokenizer, encode: Callable[[str], Sequence[int]], path: str) -> None:
    """Check the ids of ODD_STRINGS.

    Raises:
        TokenmillError: Some differ; the message shows the first.
    """
    differing = differing_texts(tokenizer, encode, ODD_STRINGS)
    if differing:
        text = differing[0]
        ids = tokenizer.tokenize(tf.constant([text.encode()])).to_list()[0]
        shown = repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..")
        raise TokenmillError(
            f"{path}: {len(differing)} of {len(ODD_STRINGS)} built-in texts get other ids than the "
            f"tokenizers library gives them; {shown}: {ids[:20]}, expected {encode(text)[:20]}.",
            "This tokenizer cannot be imported exactly: please report it.",
        )


def _batches(texts: Iterable[str]) -> Iterable[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
