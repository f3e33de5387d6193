"""Tokenizers of open models in the graph give the ids that the tokenizers library gives."""

import copy
import functools
import json
import time

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from open_tokenizers import KINDS, TEXTS, E, values_of, write_files
from tokenizers import Tokenizer, decoders

from tokenmill.errors import TokenmillError
from tokenmill.text.control_ids import ControlIds
from tokenmill.text.tokenizers.compiled import unpack_tokenizer
from tokenmill.text.tokenizers.importing.compare import ODD_STRINGS
from tokenmill.text.tokenizers.importing.directory import import_tokenizer
from tokenmill.text.tokenizers.load import load_tokenizer

LOSSLESS = ("GPT-2", "GPT-2, split", "SmolLM", "Llama 3", "Llama 2")
SPECIAL_TEXT = ("<|endoftext|>", "[CLS]", "</s>", "<s>", "[UNK]", "<|begin_of_text|>", "<0x41>")


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Kind -> content of the file, tokenizer, graph, library; each made once."""

    @functools.cache
    def make(kind):
        directory = write_files(tmp_path_factory.mktemp("hf"), values_of(kind))
        content = import_tokenizer(directory)
        library = Tokenizer.from_str(json.dumps(values_of(kind)))
        library.encode_special_tokens = True
        library.no_truncation()
        library.no_padding()
        tokenizer = load_tokenizer(content, directory)
        spec = [tf.TensorSpec([None], tf.string)]
        graph = tf.function(tokenizer.tokenize, input_signature=spec, autograph=False)
        return content, tokenizer, graph, library

    return make


def library_ids(library, texts):
    return [library.encode(text, add_special_tokens=False).ids for text in texts]


def graph_ids(graph, texts):
    return graph(tf.constant([text.encode() for text in texts], tf.string)).to_list()


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_the_librarys(imported, kind):
    _, tokenizer, graph, library = imported(kind)
    texts = [
        *ODD_STRINGS,
        *TEXTS,
        *(f" {a}\n{b} " for a, b in zip(TEXTS, ODD_STRINGS, strict=False)),
    ]
    found = graph_ids(graph, texts)
    assert found == library_ids(library, texts)
    assert max(max(ids, default=0) for ids in found) < tokenizer.vocab_size
    assert sum(map(len, found)) > 1000


ALPHABET = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from(
        "  \n\r\t'sStlLm019.,!-_\u2581\u0301\u00a0\u3000ſKéßİ漢字あ한ㄱ👍🏽\u200d\ufe0f"
    ),
    st.sampled_from([*SPECIAL_TEXT, "<tool_call>", " the", "'ll", "\r\n", "River"]),
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(texts=st.lists(st.lists(ALPHABET, max_size=40).map("".join), min_size=1, max_size=20))
def test_ids_of_any_text(imported, kind, texts):
    _, _, graph, library = imported(kind)
    assert graph_ids(graph, texts) == library_ids(library, texts)


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_of_a_control_token_stays_text(imported, kind):
    _, tokenizer, graph, _ = imported(kind)
    control = {i for i, value in enumerate(tokenizer.token_bytes) if value is None}
    control -= {tokenizer.control_ids.unk} if "BERT" in kind else set()
    texts = [form % text for text in SPECIAL_TEXT for form in ("%s", "a %s b", "x%sy\n")]
    for ids in graph_ids(graph, texts):
        assert ids
        assert not control & set(ids)


def test_added_tokens_that_are_not_special_are_found(imported):
    _, tokenizer, graph, _ = imported("Qwen 2")
    text = "a<tool_call>s<tool_call>\n</tool_call> e\u0301<|fim_prefix|><|im_start|>"
    (ids,) = graph_ids(graph, [text])
    found = [tokenizer.token_bytes[i] for i in ids if len(tokenizer.token_bytes[i]) > 8]
    assert found == [b"<tool_call>s", b"<tool_call>", b"</tool_call>", b"<|fim_prefix|>"]
    assert b"".join(tokenizer.token_bytes[i] for i in ids).decode() == text.replace(
        "e\u0301", "\u00e9"
    )


@pytest.mark.parametrize("kind", LOSSLESS)
def test_text_comes_back(imported, kind):
    _, tokenizer, graph, _ = imported(kind)
    texts = [text.encode() for text in (*ODD_STRINGS, *TEXTS)]
    if kind == "Llama 2":  # a blank and U+2581 are one there
        texts = [text.replace("\u2581".encode(), b"") for text in texts]
    assert tokenizer.detokenize(graph(tf.constant(texts))).numpy().tolist() == texts


@pytest.mark.parametrize("kind", KINDS)
def test_text_of_ids_is_the_librarys(imported, kind):
    _, tokenizer, graph, library = imported(kind)
    library.decoder = _decoder_of(kind)
    texts = TEXTS[:40] if "BERT" in kind else [*TEXTS, "é👍 x"]
    ids = graph_ids(graph, texts)
    if kind not in ("BERT, uncased", "BERT, cased"):
        ids = [[*some, tokenizer.token_bytes.index(None)] for some in ids]
    found = tokenizer.detokenize(tf.ragged.constant(ids, tf.int32)).numpy().tolist()
    wanted = [library.decode(some, skip_special_tokens=True) for some in ids]
    assert [text.decode() for text in found] == wanted


def _decoder_of(kind):
    if kind in ("Llama 2", "Metaspace"):
        blanks, bytes_ = decoders.Replace("\u2581", " "), decoders.ByteFallback()
        return decoders.Sequence([blanks, bytes_, decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return decoders.WordPiece() if "BERT" in kind else decoders.ByteLevel()


@pytest.mark.parametrize("kind", ["GPT-2", "Qwen 2", "BERT, uncased", "Llama 2"])
def test_what_is_not_utf8(imported, kind):
    _, _, graph, _ = imported(kind)
    texts = tf.constant([b"a\xffb", b"\xc3", b"\xe2\x82 x", b"fine"])
    repaired = ["a\ufffdb", "\ufffd", "\ufffd x", "fine"]
    assert graph(texts).to_list() == graph_ids(graph, repaired)


def test_tokens_that_are_parts_of_a_character(imported):
    _, tokenizer, graph, library = imported("GPT-2")
    (ids,) = graph_ids(graph, ["𠀀"])
    assert len(ids) > 1
    half = tokenizer.detokenize(tf.ragged.constant([ids[:-1]], tf.int32)).numpy()[0]
    assert half.decode() == library.decode(ids[:-1]) == "\ufffd"


def test_tokens_whose_bytes_only_look_like_characters(imported):
    """A surrogate, an overlong blank, a code point beyond Unicode: RE2 takes them for UTF-8."""
    _, tokenizer, _, _ = imported("GPT-2")
    id_of = {value: i for i, value in enumerate(tokenizer.token_bytes) if value}
    for data in (b"\xed\xa0\x80", b"\xe0\x80\xa0", b"\xf4\x90\x80\x80"):
        ids = tf.ragged.constant([[id_of[bytes([byte])] for byte in b"a" + data + b"b"]], tf.int32)
        text = tokenizer.detokenize(ids).numpy()[0].decode()  # valid
        assert text.replace("\ufffd", "") == "ab"
        assert "\ufffd" in text


@pytest.mark.parametrize("kind", ["GPT-2", "Llama 3", "BERT, uncased", "Llama 2"])
def test_65536_characters_without_a_blank(imported, kind):
    _, _, graph, library = imported(kind)
    texts = ["漢" * 65_536, "engine" * 10_923, "=" * 65_536, " " * 65_536, "\n" * 65_536]
    assert graph_ids(graph, texts) == library_ids(library, texts)


@pytest.mark.parametrize("kind", ["GPT-2", "Qwen 2", "BERT, uncased", "Llama 2"])
@pytest.mark.parametrize("unit", ["River engine 12.\n", "signal", "e\u0301 ", "漢字，", "\t \n"])
def test_time_is_linear(imported, kind, unit):
    _, _, graph, _ = imported(kind)

    def seconds(size):
        text = tf.constant([(unit * (size // len(unit))).encode()])
        graph(text)
        start = time.process_time()
        graph(text)
        return time.process_time() - start

    # Quadratic, it would be 64.
    assert seconds(800_000) < 30 * max(seconds(100_000), 0.005)


@pytest.mark.parametrize("kind", ["GPT-2", "BERT, uncased", "Llama 2"])
def test_the_same_files_give_the_same_bytes(imported, tmp_path, kind):
    content = imported(kind)[0]
    assert import_tokenizer(write_files(tmp_path, values_of(kind))) == content
    file = unpack_tokenizer(content, "x")
    assert json.loads(file.sources["tokenizer.json"]) == values_of(kind)


@pytest.mark.parametrize("kind", ["Qwen 2", "BERT, uncased", "Llama 2"])
def test_the_graph_can_be_saved(imported, tmp_path, kind):
    _, tokenizer, graph, _ = imported(kind)
    module = tf.Module()
    module.tokenize, module.resources = graph, tokenizer.resources()
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    assert graph_ids(loaded.tokenize, TEXTS) == graph_ids(graph, TEXTS)


def test_vocab_txt(tmp_path, imported):
    _, tokenizer, _, library = imported("BERT, uncased")
    vocab = values_of("BERT, uncased")["model"]["vocab"]
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in vocab), encoding="utf-8")
    assert list(vocab.values()) == list(range(len(vocab)))
    own = load_tokenizer(import_tokenizer(str(tmp_path / "vocab.txt")), "x")
    assert (
        own.control_ids == tokenizer.control_ids == ControlIds(pad=0, unk=1, cls=2, sep=3, mask=4)
    )
    texts = tf.constant([text.encode() for text in TEXTS])
    assert own.tokenize(texts).to_list() == library_ids(library, TEXTS)


def test_control_ids_come_from_the_configurations(tmp_path):
    values = values_of("Qwen 2")
    size = len(values["model"]["vocab"])
    directory = write_files(
        tmp_path,
        values,
        tokenizer_config={
            "bos_token": None,
            "pad_token": {"content": E},
            "eos_token": "<|im_start|>",
        },
        special_tokens_map={"eos_token": E},
        config={"bos_token_id": 0, "eos_token_id": [size, 0], "vocab_size": 10_000},
    )
    ids = load_tokenizer(import_tokenizer(directory), "x").control_ids
    assert ids == ControlIds(pad=0, bos=0, eos=1)
    assert ids.padding == -1  # to pad is to begin a text here
    assert ControlIds(pad=0, cls=1).padding == 0


def changed(kind, change):
    values = copy.deepcopy(values_of(kind))
    change(values)
    return values


def set_at(*path_and_value):
    *path, last, value = path_and_value

    def change(values):
        for name in path:
            values = values[name]
        values[last] = value

    return change


REFUSED = {
    "normalizer": ("GPT-2", set_at("normalizer", {"type": "NFKC"}), "NFKC"),
    "lower case": ("GPT-2", set_at("normalizer", {"type": "Lowercase"}), "Lowercase"),
    "pattern": (
        "Qwen 2",
        set_at("pre_tokenizer", "pretokenizers", 0, "pattern", {"Regex": "\\w+|\\W"}),
        "pattern",
    ),
    "pre-tokenizer": ("GPT-2", set_at("pre_tokenizer", {"type": "Whitespace"}), "Whitespace"),
    "word of its own": ("Qwen 2", set_at("added_tokens", 2, "single_word", True), "single_word"),
    "normalized": ("Qwen 2", set_at("added_tokens", 2, "normalized", True), "normalized"),
    "dropout": ("GPT-2", set_at("model", "dropout", 0.1), "model.dropout"),
    "byte without a token": (
        "GPT-2",
        lambda values: values["model"]["vocab"].pop("A") and values["model"].update(merges=[]),
        "0x41",
    ),
    "words": ("BERT, cased", set_at("pre_tokenizer", {"type": "Whitespace"}), "Whitespace"),
    "BERT normalizer": ("BERT, cased", set_at("normalizer", {"type": "NFD"}), "NFD"),
    "blanks": ("Llama 2", set_at("normalizer", {"type": "NFC"}), "NFC"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_by_name(tmp_path, name):
    kind, change, said = REFUSED[name]
    with pytest.raises(TokenmillError, match="not understood") as error:
        import_tokenizer(write_files(tmp_path, changed(kind, change)))
    assert said in str(error.value)
    assert "tokenizer.json" in str(error.value)
    assert "Understood:" in str(error.value)


def test_unigram_is_refused(tmp_path):
    values = changed(
        "GPT-2", set_at("model", {"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0]]})
    )
    values |= {"pre_tokenizer": None, "added_tokens": []}
    with pytest.raises(TokenmillError, match="Unigram"):
        import_tokenizer(write_files(tmp_path, values))


def test_files_that_are_none(tmp_path):
    with pytest.raises(TokenmillError, match="there is no tokenizer"):
        import_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(
        TokenmillError, match=r"no tokenizer\.json that the tokenizers library reads"
    ):
        import_tokenizer(str(tmp_path))
    with pytest.raises(TokenmillError, match="no compiled tokenizer"):
        load_tokenizer(b"PK\x03\x04broken", "some.file")
