"""tokenizer.json of our own vocabularies, in Hugging Face's tokenizers library."""

import json

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from open_tokenizers import TEXTS
from tokenizers import Tokenizer

from components.tokenize.config import TokenizerConfig
from components.tokenize.training import train_sentencepiece
from tokenmill.errors import TokenmillError
from tokenmill.export.hugging_face_tokenizer import tokenizer_json, write_tokenizer
from tokenmill.model.shape import ModelShape
from tokenmill.text.tokenization import load_tokenizer, tokenize
from tokenmill.text.tokenizers.importing.compare import ODD_STRINGS
from tokenmill.text.tokenizers.importing.directory import import_tokenizer
from tokenmill.text.tokenizers.load import load_tokenizer as load_any

CORPUS = [*TEXTS, *(f"def f{i}(x):\n    return  x <URL> {i}\n" for i in range(60))] * 5
STRINGS = [
    *ODD_STRINGS, *TEXTS[:20], "", " ", "  a", "\u2581 \ue000.\ue000-\ue000\u2581 .", "ab" * 3000,
    "<mask> </s> <s> <pad> <0x0A>", "<URL><URL> x<URL>", "\t\n\r\n x \x00\x01",
    "def f(x):\n    return  x\n",
]  # fmt: skip


def make(model_type, vocab_size):
    config = TokenizerConfig(
        model_type=model_type, vocab_size=vocab_size, sample_bytes=10**9, user_symbols=("<URL>",)
    )
    return train_sentencepiece(CORPUS, config)


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    """The tf.text tokenizer of a trained vocabulary, and the library's of what is exported."""
    model = make("bpe", 700)
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.model"
    path.write_bytes(model)
    return load_tokenizer(str(path)), library(model)


def library(model):
    found = Tokenizer.from_str(json.dumps(tokenizer_json(model, ("<s>",))))
    found.encode_special_tokens = True  # split_special_tokens in tokenizer_config.json
    return found


def check(tokenizers, texts):
    ours, theirs = tokenizers
    expected = tokenize(ours, tf.constant(texts)).to_list()
    for text, ids in zip(texts, expected, strict=True):
        assert theirs.encode(text, add_special_tokens=False).ids == ids, text[:200]
        assert theirs.decode(ids, skip_special_tokens=False) == text


def test_bpe_gives_the_same_ids_and_the_text_back(bpe):
    check(bpe, [text for text in STRINGS if "\ufffd" not in text])


@given(st.lists(st.text(st.sampled_from("ab ers\u2581\ue000.-\n\t<URL>é中😀\u0301")), min_size=1))
def test_bpe_gives_the_same_ids_of_any_text(bpe, texts):
    check(bpe, texts)


def test_a_text_begins_as_in_training_where_special_tokens_are_asked_for(bpe):
    _, theirs = bpe
    plain = theirs.encode("a b", add_special_tokens=False).ids
    assert theirs.encode("a b").ids == [2, *plain]
    framed = Tokenizer.from_str(json.dumps(tokenizer_json(make("bpe", 700), ("<cls>", "<sep>"))))
    assert framed.encode("a b").ids == [5, *plain, 6]


def test_unigram_gives_the_text_back_and_as_likely_a_split():
    import sentencepiece

    model = make("unigram", 600)
    ours = sentencepiece.SentencePieceProcessor(model_proto=model)
    theirs = library(model)

    def score(ids):
        return sum(ours.get_score(i) for i in ids if not ours.is_byte(i))

    for text in STRINGS:
        if "\ufffd" in text or "<URL>" in text:
            continue
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert theirs.decode(ids, skip_special_tokens=False) == text
        assert not any(ours.is_control(i) or ours.is_unknown(i) for i in ids), text
        assert score(ids) == pytest.approx(score(ours.encode(text)), abs=1e-2), text[:200]


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_an_export_is_imported_as_the_tokenizer_that_it_was(model_type, tmp_path):
    model = make(model_type, 600)
    shape = ModelShape(
        layers=1, d_model=8, heads=1, d_ff=8, vocab_size=600, sequence_length=16,
        positions="rope", norm="rms", use_bias=False, mlp="swiglu", tie_embeddings=True,
    )  # fmt: skip
    written = write_tokenizer(model, str(tmp_path), shape)
    content = import_tokenizer(str(tmp_path))
    ours, again = load_any(model, "ours"), load_any(content, "imported")
    assert again.control_ids == ours.control_ids
    assert again.token_bytes == ours.token_bytes
    texts = tf.constant(STRINGS)
    ids = ours.tokenize(texts)
    assert again.tokenize(texts).to_list() == ids.to_list()
    assert again.detokenize(ids).numpy().tolist() == ours.detokenize(ids).numpy().tolist()
    (tmp_path / "again").mkdir()
    assert sorted(write_tokenizer(content, str(tmp_path / "again"), shape).files) == sorted(
        written.files
    )
    for name in written.files:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_a_vocabulary_of_others_is_refused(tmp_path):
    import sentencepiece

    (tmp_path / "text").write_text("\n".join(TEXTS * 3))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "llama"), vocab_size=600,
        byte_fallback=True, minloglevel=2,
    )  # fmt: skip
    with pytest.raises(TokenmillError, match="not trained by tokenmill"):
        tokenizer_json((tmp_path / "llama.model").read_bytes(), ("<s>",))
