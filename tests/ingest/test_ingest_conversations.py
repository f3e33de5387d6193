"""Conversations (corpus.messages_field, prompt_field): turns from every format with fields."""

import json

import pyarrow as pa
import pytest
from format_files import csv_bytes, example, framed, parquet_bytes, read

from components.ingest.config import CorpusConfig
from tokenmill.records.conversations import Turn, decode_conversation

TALKS = [
    [("user", "Two and two?"), ("assistant", "Four.")],
    [
        ("system", "Sei kurz."),
        ("user", "größer\nals 3?"),
        ("assistant", "4"),
        ("user", "noch?"),
        ("assistant", "5"),
    ],
]


def objects(talk):
    return [{"role": role, "content": content} for role, content in talk]


def file_of(kind):
    if kind == "jsonl":
        return b"".join(
            json.dumps({"id": str(i), "messages": objects(t)}).encode() + b"\n"
            for i, t in enumerate(TALKS)
        )
    if kind == "json":
        records = [{"id": str(i), "messages": objects(t)} for i, t in enumerate(TALKS)]
        return json.dumps(records, indent=1, ensure_ascii=False).encode()
    if kind == "parquet":
        turn = pa.struct([("content", pa.string()), ("role", pa.string())])
        column = pa.array([objects(talk) for talk in TALKS], pa.list_(turn))
        return parquet_bytes({"id": ["0", "1"], "messages": column})
    as_json = [json.dumps(objects(talk)) for talk in TALKS]
    if kind == "csv":
        return csv_bytes(("id", "messages"), *((str(i), text) for i, text in enumerate(as_json)))
    return b"".join(framed(example(id=str(i), messages=t)) for i, t in enumerate(as_json))


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "csv", "tfrecord"])
def test_turns_are_read_from_every_format(tmp_path, kind):
    documents, bad = read(tmp_path / f"a.{kind}", file_of(kind), messages_field="messages")
    assert not bad
    assert [d.doc_id for d in documents] == [b"0", b"1"]
    found = [decode_conversation(d.messages) for d in documents]
    assert found == [[Turn(*turn) for turn in talk] for talk in TALKS]
    assert documents[1].text.decode() == "Sei kurz.\n\ngrößer\nals 3?\n\n4\n\nnoch?\n\n5"


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv", "tfrecord"])
def test_a_prompt_and_its_completion(tmp_path, kind):
    pairs = [("What?", "That."), ("Où ça?", "Là.")]
    if kind == "jsonl":
        lines = [json.dumps({"q": {"text": q}, "a": a}) for q, a in pairs]
        data, prompt = "\n".join(lines).encode(), "q.text"
    elif kind == "parquet":
        data, prompt = parquet_bytes({"q": [q for q, _ in pairs], "a": [a for _, a in pairs]}), "q"
    elif kind == "csv":
        data, prompt = csv_bytes(("q", "a"), *pairs), "q"
    else:
        data, prompt = b"".join(framed(example(q=q, a=a)) for q, a in pairs), "q"
    documents, bad = read(tmp_path / f"a.{kind}", data, prompt_field=prompt, completion_field="a")
    assert not bad
    found = [decode_conversation(d.messages) for d in documents]
    assert found == [[Turn("user", q), Turn("assistant", a)] for q, a in pairs]


def test_words_of_sharegpt_and_texts_in_parts(tmp_path):
    turns = [
        {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "Hello", "weight": 1},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "tool_calls": None, "weight": None},
    ]
    data = json.dumps({"conversations": turns}).encode()
    documents, bad = read(tmp_path / "a.jsonl", data, messages_field="conversations")
    assert not bad
    assert decode_conversation(documents[0].messages) == [
        Turn("user", "Hi"), Turn("assistant", "Hello"), Turn("user", "ab"), Turn("assistant", "c"),
    ]  # fmt: skip


ANSWER = {"role": "assistant", "content": "x"}
ASKED = {"role": "user", "content": "x?"}


@pytest.mark.parametrize(
    ("value", "reason", "says"),
    [
        ([{"role": "user", "content": "x"}], "invalid_messages", "no answer"),
        ([], "invalid_messages", "no list of turns"),
        ("hello", "invalid_messages", "Expecting value"),
        ({"role": "user"}, "invalid_messages", "no list of turns"),
        (["a"], "invalid_messages", "turn 1"),
        ([{"content": "x"}], "invalid_messages", "turn 1 has no role"),
        ([ANSWER, {"role": "user", "content": 3}], "invalid_messages", "turn 2, content"),
        ([{**ANSWER, "weight": 0}], "invalid_messages", "weight 0"),
        ([{**ANSWER, "tool_calls": [{"id": 1}]}], "invalid_messages", "tool_calls"),
        ([{**ANSWER, "reasoning_content": "So .."}], "invalid_messages", "reasoning_content"),
        ([{"role": "assistant", "content": "\ud800"}], "not_utf8", "surrogate"),
        ([ANSWER, {"role": "\ud800", "content": "x"}], "invalid_messages", "turn 2, role"),
        ([ASKED, {"role": "assistant", "content": " \n"}], "invalid_messages", "blank"),
        ([{"role": "assistant", "content": " \n"}], "empty_text", "blanks"),
        ([{"role": "assistant", "content": "x" * 2000}], "too_large", "2,000"),
        (None, "missing_text", "messages"),
        ([{"role": "assistant", "content": ""}] * 1001, "invalid_messages", "1,001 turns"),
        ("[" * 3000, "invalid_messages", ""),
    ],
)
def test_what_is_no_conversation_is_quarantined_and_says_why(tmp_path, value, reason, says):
    good = {"messages": objects(TALKS[0])}
    lines = [json.dumps(good), json.dumps({"messages": value}), json.dumps(good)]
    documents, bad = read(
        tmp_path / "a.jsonl",
        "\n".join(lines).encode(),
        messages_field="messages",
        max_document_bytes=1000,
    )
    assert len(documents) == 2
    assert [(b.reason, b.record) for b in bad] == [(reason, 2)]
    assert says in bad[0].detail


def test_each_turn_is_repaired_for_itself(tmp_path):
    turns = [("user", "Wie heißt er?"), ("assistant", "MÃ¼ller heiÃŸt er, schÃ¶n.")]
    data = json.dumps({"messages": objects(turns)}).encode()
    documents, bad = read(tmp_path / "a.jsonl", data, messages_field="messages")
    assert not bad
    assert documents[0].repaired == ("mojibake",)
    assert decode_conversation(documents[0].messages)[1].content == "Müller heißt er, schön."
    assert "Müller heißt" in documents[0].text.decode()


@pytest.mark.parametrize("name", ["a.txt", "a.html"])
def test_files_without_fields_are_bad_whole(tmp_path, name):
    documents, bad = read(tmp_path / name, b"<p>Some text.</p>", messages_field="messages")
    assert not documents
    assert [(b.reason, b.record) for b in bad] == [("missing_text", 0)]
    assert "JSON" in bad[0].detail


def test_fields_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="not both"):
        CorpusConfig(messages_field="m", prompt_field="p", completion_field="c")
    with pytest.raises(ValueError, match="go together"):
        CorpusConfig(prompt_field="p")
