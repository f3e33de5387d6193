"""Models of others (tokenizer.path): their own tokens, in training and in the graph that serves."""

import io
import itertools
import json
import os

import pytest
import sentencepiece
import tensorflow as tf

from components.artifacts import Examples, Tokenizer
from components.tokenize.component import TokenizerTrainerExecutor
from components.tokenize.config import TokenizerConfig
from components.tokenize.import_model import lossy_fraction, read_model
from components.tokenize.preprocessing import TOKENIZER_PATH_KEY, preprocessing_fn
from components.tokenize.training import train_sentencepiece
from tokenmill.contracts.tokenizer import DESCRIPTION_NAME
from tokenmill.records.documents import document_batch, encode_documents
from tokenmill.records.splits import split_directory
from tokenmill.records.tfrecord import write_tfrecords
from tokenmill.text.tokenization import PART_BYTES, may_cut

TEXTS = [
    f"{a} {b}s are in the  {a}; {b} and the {a} of the day\n    {len(a + b)} times"
    for a, b in itertools.product(
        ("river", "stone", "window", "garden", "letter", "market", "winter", "engine"),
        ("bridge", "signal", "copper", "silver", "forest", "island", "paper", "light"),
    )
]
ODD = [
    "", " ", "  two  leading and  trailing  ", "a\tb \tc", "a \u200b b", "a\u00a0 b",
    "训练 一个  模型。", "مرحبا  بالعالم", "\u2581x \u2581", "e\u0301 \u0301", "😀 x",
]  # fmt: skip
KINDS = {
    "SentencePiece's defaults": {},
    "Llama": {"remove_extra_whitespaces": False, "normalization_rule_name": "identity"},
    "no dummy prefix": {"add_dummy_prefix": False},
    "blanks behind": {"treat_whitespace_as_suffix": True},
    "line feeds are blanks": {
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
        "allow_whitespace_only_pieces": True,
    },
    "over blanks": {"split_by_whitespace": False, "normalization_rule_name": "identity"},
}


def model_of(model_type, **options) -> bytes:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=out, model_type=model_type, vocab_size=300,
        byte_fallback=True, pad_id=0, unk_id=1, bos_id=2, eos_id=3, minloglevel=2, **options,
    )  # fmt: skip
    return out.getvalue()


def graph_ids(model, texts, tmp_path) -> list[list[int]]:
    """The ids of Transform's function, which is also what is served."""
    path = tmp_path / "m.model"
    path.write_bytes(model)
    column = tf.constant([[text] for text in texts])
    inputs = {name: column for name in ("text", "doc_id", "source", "byte_count")}
    ids = preprocessing_fn(inputs, {TOKENIZER_PATH_KEY: str(path)})["token_ids"]
    found = tf.RaggedTensor.from_sparse(ids).to_list()
    return found + [[]] * (len(texts) - len(found))


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_gives_the_tokens_of_the_whole_text(tmp_path, kind):
    model = model_of("bpe", **KINDS[kind])
    library = sentencepiece.SentencePieceProcessor(model_proto=model)
    texts = [*TEXTS, *ODD]
    assert graph_ids(model, texts, tmp_path) == [library.encode(text) for text in texts]


@pytest.mark.parametrize("kind", KINDS)
def test_unigram_differs_in_ties_only(tmp_path, kind):
    model = model_of("unigram", **KINDS[kind])
    library = sentencepiece.SentencePieceProcessor(model_proto=model)
    for text, ids in zip(TEXTS, graph_ids(model, TEXTS, tmp_path), strict=True):
        scores = [sum(map(library.get_score, some)) for some in (ids, library.encode(text))]
        assert scores[0] == pytest.approx(scores[1], rel=1e-5)
        assert library.decode(ids) == library.decode(library.encode(text))


def test_which_models_are_cut():
    cut = [kind for kind in KINDS if may_cut(model_of("bpe", **KINDS[kind]))]
    assert cut == ["SentencePiece's defaults"]
    for model_type in ("bpe", "unigram"):
        own = TokenizerConfig(model_type=model_type, vocab_size=320)
        assert may_cut(train_sentencepiece(TEXTS, own))


def test_a_long_text_of_a_model_that_is_not_cut(tmp_path):
    model = model_of("bpe", **KINDS["no dummy prefix"])
    library = sentencepiece.SentencePieceProcessor(model_proto=model)
    words = 3 * PART_BYTES // len("the garden ")
    (ids,) = graph_ids(model, ["the garden " * words], tmp_path)
    assert words - 3 <= library.decode(ids).count("garden") <= words  # 64 KiB may end in a word


def test_how_lossy_a_model_is():
    texts = [b"plain words", b"two  blanks", "ﬁ".encode(), b"a\nb"]
    assert lossy_fraction(model_of("bpe"), texts) == 0.75
    assert lossy_fraction(model_of("bpe", **KINDS["Llama"]), texts) == 0
    assert lossy_fraction(model_of("bpe"), []) == 0
    own = train_sentencepiece(TEXTS, TokenizerConfig(vocab_size=320))
    assert lossy_fraction(own, [*(text.encode() for text in (*TEXTS, *ODD)), *texts]) == 0


def test_the_trainer_says_how_lossy_a_model_is(tmp_path):
    path = str(tmp_path / "some.model")
    with open(path, "wb") as out:
        out.write(model_of("bpe"))
    for split in ("train", "eval"):
        batch = document_batch([b"1", b"2"], [b"s"] * 2, [b"plain words", b"two\nlines"])
        records = [record for _, record in encode_documents(batch)]
        shard = os.path.join(split_directory(str(tmp_path / "examples"), split), "0.gz")
        write_tfrecords(shard, records, gzip=True)
    examples, tokenizer = Examples(), Tokenizer()
    examples.uri, tokenizer.uri = str(tmp_path / "examples"), str(tmp_path / "tokenizer")
    config = TokenizerConfig(vocab_size=300, path=path)
    TokenizerTrainerExecutor(
        TokenizerTrainerExecutor.Context(tmp_dir=str(tmp_path / "tmp"), unique_id="1")
    ).Do(
        {"examples": [examples]},
        {"tokenizer": [tokenizer]},
        {"config": config.to_json(), "model_sha256": read_model(path)[1]},
    )
    with open(os.path.join(tokenizer.uri, DESCRIPTION_NAME), encoding="utf-8") as source:
        assert json.load(source)["lossy_fraction"] == 0.5
    assert tokenizer.get_float_custom_property("lossy_fraction") == 0.5
