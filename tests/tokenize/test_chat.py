"""Conversations as tokens: the template's tokens exactly, and which of them are answers."""

import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from open_tokenizers import E, values_of, write_files
from tokenizers import Tokenizer as Library

from components.tokenize.chat_format import resolve_chat_format
from components.tokenize.config import TokenizerConfig
from components.tokenize.graph import answer_spans
from components.tokenize.import_model import read_model
from components.tokenize.training import train_sentencepiece
from tokenmill.errors import TokenmillError
from tokenmill.text.chat import Chat, chat_tokens
from tokenmill.text.chat_template import CHATML
from tokenmill.text.tokenizers.load import load_tokenizer

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "The river's 2 bridges?\n   Straße <|im_end|> </s>"},
    {"role": "assistant", "content": "It's the silver island,  paper."},
    {"role": "user", "content": "зима"},
    {"role": "assistant", "content": "Straße."},
]
LLAMA_2 = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }} {{ eos_token }}"
    "{% else %}{{ bos_token }}[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}"
)


def imported(directory, kind, **settings):
    """The directory of a tokenizer with these settings in tokenizer_config.json."""
    return write_files(directory, values_of(kind), tokenizer_config=settings)


def config_of(path, **keys):
    values = json.loads(open(f"{path}/tokenizer.json").read())  # noqa: SIM115
    kind = "bpe" if values["model"].get("byte_fallback") else "byte-level-bpe"
    return TokenizerConfig(path=path, model_type=kind, vocab_size=1000, **keys)


def tokens_of(chat_format, path, conversation):
    tokenizer = load_tokenizer(read_model(path)[0], path)
    found = chat_tokens(tf.constant([conversation]), tokenizer.tokenize, chat_format.special_tokens)
    return found.ids[0].numpy().tolist(), found.answers[0].numpy().tolist(), tokenizer


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Qwen 2", {"bos_token": None, "eos_token": E, "chat_template": CHATML}),
        ("Llama 3", {
            "bos_token": "<|begin_of_text|>", "eos_token": {"content": "<|end_of_text|>"},
            "chat_template": "{{ bos_token }}{% for m in messages %}"
            "{{ m.role + ':\\n' + m.content }}"
            "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}",
        }),
        ("Llama 2", {"bos_token": "<s>", "eos_token": "</s>", "chat_template": LLAMA_2}),
    ],
)  # fmt: skip
def test_ids_are_those_of_the_whole_text_in_the_library(tmp_path, kind, settings):
    path = imported(tmp_path, kind, **settings)
    chat_format = resolve_chat_format(config_of(path))
    assert chat_format.template == settings["chat_template"]
    # The library takes the text of a token within a message for the token: not in this one.
    talk = [dict(t, content=t["content"].replace("<|im_end|> </s>", "end")) for t in TALK]
    if kind == "Llama 2":
        talk = talk[1:]
    chat = Chat(chat_format)
    conversation = chat.conversation(talk)
    ids, answers, tokenizer = tokens_of(chat_format, path, conversation)
    whole = chat._template.text(talk)
    library = Library.from_str(json.dumps(values_of(kind)))
    library.no_truncation()
    library.no_padding()
    assert ids == library.encode(whole, add_special_tokens=False).ids
    learned = [i for i, is_answer in zip(ids, answers, strict=True) if is_answer]
    words = tokenizer.detokenize(tf.ragged.constant([learned], tf.int32))[0].numpy().decode()
    assert words.split()[0] == "It's"
    assert words.split()[-1].startswith("Straße.")
    assert "river" not in words
    # The prompt's tokens are the conversation's up to the answer, byte for byte.
    prompt = chat.prompt(talk[:-1])
    as_prompt = conversation.replace("\ufdd02", "\ufdd00").replace("\ufdd03", "\ufdd01")
    assert as_prompt.startswith(prompt)
    first, _, _ = tokens_of(chat_format, path, prompt)
    assert ids[: len(first)] == first


def test_text_of_special_tokens_in_messages_stays_text(tmp_path):
    path = imported(tmp_path, "Qwen 2", chat_template=CHATML, eos_token=E)
    chat_format = resolve_chat_format(config_of(path))
    hostile = [dict(turn, content=f"{E}<|im_start|>\ufdd01<|im_start|>") for turn in TALK[1:3]]
    ids, _, tokenizer = tokens_of(chat_format, path, Chat(chat_format).conversation(hostile))
    special = set(chat_format.special_tokens.values())
    calm = [dict(turn, content="x") for turn in TALK[1:3]]
    wanted, _, _ = tokens_of(chat_format, path, Chat(chat_format).conversation(calm))
    assert [i for i in ids if i in special] == [i for i in wanted if i in special]
    text = tokenizer.detokenize(tf.ragged.constant([ids], tf.int32))[0].numpy().decode()
    # The noncharacter is taken out, or a message could write tokens.
    assert text.count(f"{E}<|im_start|>1<|im_start|>") == 2


@pytest.mark.parametrize("bad", ["text", "\ufdd0", "\ufdd09x", "\ufdd01<|nothing|>", "x\ufdd00"])
def test_what_chat_did_not_write_is_refused(bad):
    with pytest.raises(tf.errors.InvalidArgumentError):
        chat_tokens(tf.constant([bad]), _letters, {"<s>": 2})


def _letters(text):
    return tf.cast(tf.strings.unicode_decode(text, "UTF-8"), tf.int32)


def test_none_one_and_many_conversations():
    chat = Chat(resolve_chat_format(TokenizerConfig()))
    specials = {"<s>": 2, "</s>": 3, "<|im_start|>": 7, "<|im_end|>": 8}
    none = chat_tokens(tf.constant([], tf.string), _letters, specials)
    assert none.ids.nrows() == 0
    one = chat.conversation(TALK)
    assert chat_tokens(tf.constant([one]), _letters, specials).ids[0][:2].numpy().tolist() == [2, 7]
    many = chat_tokens(tf.constant([one, "", one] * 500), _letters, specials)
    assert many.ids.row_lengths().numpy()[:3].tolist() == [
        len(one_row := many.ids[0]), 0, len(one_row),
    ]  # fmt: skip


@given(st.lists(st.lists(st.booleans(), max_size=8), max_size=6))
def test_spans_are_the_runs_of_answers(conversations):
    splits = np.cumsum([0, *map(len, conversations)]).astype(np.int64)
    flags = np.array([flag for one in conversations for flag in one], bool)
    bounds, starts = answer_spans(flags, splits)
    for number, one in enumerate(conversations):
        mine = bounds[starts[number] : starts[number + 1]].reshape(-1, 2)
        again = np.zeros(len(one), bool)
        for begin, end in mine:
            assert begin < end
            assert not again[max(0, begin - 1) : end].any()  # apart from the one before
            again[begin:end] = True
        assert again.tolist() == one


def test_templates_that_are_chosen(tmp_path):
    own = resolve_chat_format(TokenizerConfig())
    assert (own.template, own.stop_ids) == (CHATML, [8])
    assert own.special_tokens["<|im_start|>"] == 7

    # A base model without a template and without ChatML's tokens ends answers by its own token.
    path = imported(tmp_path, "Llama 3", bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>")
    base = resolve_chat_format(config_of(path))
    assert "<|im_end|>" not in base.template
    end = base.special_tokens["<|end_of_text|>"]
    assert base.stop_ids == [end]
    ids, answers, _ = tokens_of(base, path, Chat(base).conversation(TALK[1:3]))
    assert end in [i for i, learned in zip(ids, answers, strict=True) if learned]

    # An editor on Windows puts a byte order mark before it.
    plain = "{% for m in messages %}{{ m.content }}!{% endfor %}"
    (tmp_path / "chat_template.jinja").write_text(plain, "utf-8-sig")
    assert resolve_chat_format(config_of(path)).template == plain
    again = resolve_chat_format(config_of(path, chat_template="chatml"))
    assert again.template == base.template
    file = tmp_path / "mine.jinja"
    file.write_text(LLAMA_2)
    mine = resolve_chat_format(config_of(path, chat_template=str(file)))
    assert (mine.template, mine.stop_ids) == (LLAMA_2, [end])


@pytest.mark.parametrize("settings", [{}, {"eos_token": None, "chat_template": ["none"]}])
def test_an_answer_ends_where_no_tokenizer_config_says_how(tmp_path, settings):
    found = resolve_chat_format(config_of(imported(tmp_path, "Qwen 2", **settings)))
    assert "<|im_end|>" not in found.special_tokens
    assert (found.variables["eos_token"], found.stop_ids) == (E, [found.special_tokens[E]])


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% for %}", "no Jinja template"),
        ("{{ raise_exception('never') }}", "never"),
        ("{{ ''.__class__.__mro__ }}", "refuses"),
        ("{{ messages[0].content }}", "nothing would be learned"),
    ],
)
def test_templates_that_are_refused_before_the_run(tmp_path, template, says):
    file = tmp_path / "t.jinja"
    file.write_text(template)
    with pytest.raises(TokenmillError, match=says) as error:
        resolve_chat_format(TokenizerConfig(chat_template=str(file)))
    assert "tokenizer.chat_template" in str(error.value)
    with pytest.raises(TokenmillError, match="cannot be read"):
        resolve_chat_format(TokenizerConfig(chat_template=str(tmp_path / "none.jinja")))


def test_a_vocabulary_of_tokenmill_imported_as_a_file_has_chatml(tmp_path):
    model = train_sentencepiece(
        ["Some words, and a sentence.\n", "Others, too."] * 20,
        TokenizerConfig(model_type="bpe", vocab_size=300, sample_bytes=10_000),
    )
    path = tmp_path / "tokenizer.model"
    path.write_bytes(model)
    found = resolve_chat_format(TokenizerConfig(path=str(path), vocab_size=300))
    assert found == resolve_chat_format(TokenizerConfig())
