"""Every document of tokenmill/contracts: read back as written, refused where it is not as expected.

The documents are made from the models' types, so that a new model is tested without a line here.
"""

import json
import math
import random
import runpy
import types
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import ValidationError

from components.train.config import TrainConfig, TrainingJob
from tokenmill.contracts.base import Part, read_document, write_document
from tokenmill.contracts.curation import DroppedDocument, read_dropped, write_dropped_shard
from tokenmill.contracts.ingest import BadRecord, read_quarantine, write_quarantine
from tokenmill.errors import TokenmillError
from tokenmill.model.shape import ModelShape

TOOL = Path(__file__).resolve().parents[1] / "tools" / "contract_docs.py"
MODELS = runpy.run_path(str(TOOL))["contract_models"]()

SHAPE = ModelShape(
    layers=1, d_model=8, heads=2, d_ff=16, vocab_size=300, sequence_length=32, positions="rope",
    norm="rms", use_bias=False, mlp="swiglu", tie_embeddings=True,
)  # fmt: skip
MADE = {
    ModelShape: SHAPE,
    TrainingJob: TrainingJob(shape=SHAPE, train=TrainConfig(), seed=7),
    Any: "anything",
    type(None): None,
}
TEXTS = ["", "plain", 'quotes " and \\', "Zürich\n\u2028\U0001f600"]
CHOICES = {
    bool: [False, True],
    int: [1, 7, 2**53 + 1],
    float: [5e-324, 2.5e-8, 0.1, 1 / 3, 1.0],
    str: TEXTS,
}


def made(kind, rng):
    """A value of a type; of a model, with some of the keys that may be absent."""
    if kind in MADE:
        return MADE[kind]
    if kind in CHOICES:
        return rng.choice(CHOICES[kind])
    inner = get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        return made(rng.choice(inner), rng)
    if get_origin(kind) is Literal:
        return rng.choice(inner)
    if get_origin(kind) is dict:
        return {made(inner[0], rng): made(inner[1], rng) for _ in range(2)}
    if get_origin(kind) is list or inner[-1:] == (...,):
        return [made(inner[0], rng) for _ in range(2)]
    if get_origin(kind) is tuple:
        return tuple(made(each, rng) for each in inner)
    if issubclass(kind, Enum):
        return rng.choice(list(kind))
    assert issubclass(kind, Part), kind
    given = {
        field.alias or name: made(field.annotation, rng)
        for name, field in kind.model_fields.items()
        if field.is_required() or rng.random() < 0.5
    }
    return kind.model_validate(given)


def parts_in(value, *where):
    """Each part of a document, with the keys that lead to it in JSON."""
    if isinstance(value, Part):
        yield where, type(value)
        for name, field in type(value).model_fields.items():
            if name in value.model_fields_set:
                yield from parts_in(getattr(value, name), *where, field.alias or name)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from parts_in(inner, *where, name)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from parts_in(inner, *where, i)


def changed(document, where, change):
    """The JSON of a document after a change of the part there."""
    values = json.loads(json.dumps(document.to_json()))
    part = values
    for name in where:
        part = part[name]
    change(part)
    return values


def refuses(path, values, model, where, key):
    """Whether the file is refused by an error that names it and the key."""
    path.write_text(json.dumps(values), "utf-8")
    with pytest.raises(TokenmillError) as error:
        read_document(str(path), model)
    assert str(error.value).startswith(f"{path}: {'.'.join(map(str, (*where, key)))}")


@pytest.fixture(params=MODELS, ids=lambda model: model.__name__)
def document(request):
    return made(request.param, random.Random(1))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_what_is_written_is_read_back(tmp_path, model):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    for seed in range(10):
        document = made(model, random.Random(seed))
        write_document(str(first), document)
        found = read_document(str(first), model)
        assert found == document
        assert found.model_fields_set == document.model_fields_set
        write_document(str(second), found)
        assert second.read_bytes() == first.read_bytes()


def test_unknown_and_missing_keys_are_refused(tmp_path, document):
    model = type(document)
    for where, part in parts_in(document):
        values = changed(document, where, lambda p: p.update(unknown=1))
        refuses(tmp_path / "file.json", values, model, where, "unknown")
        for name, field in part.model_fields.items():
            key = field.alias or name
            if field.is_required():
                values = changed(document, where, lambda p, key=key: p.pop(key))
                refuses(tmp_path / "file.json", values, model, where, key)


def test_numbers_that_are_not_finite_are_refused(tmp_path, document):
    path = tmp_path / "file.json"
    for where, part in parts_in(document):
        for name, field in part.model_fields.items():
            alone = get_origin(field.annotation) in (None, Union, types.UnionType)
            if not alone or float not in (field.annotation, *get_args(field.annotation)):
                continue
            key = field.alias or name
            for number in (math.nan, math.inf):
                values = changed(document, where, lambda p, new={key: number}: p.update(new))
                refuses(path, values, type(document), where, key)
                with pytest.raises(ValidationError):
                    type(document).model_validate(values)


def test_numbers_that_are_not_finite_are_not_written(tmp_path):
    for model in MODELS:
        for name, field in model.model_fields.items():
            if field.annotation is float:
                document = made(model, random.Random(1)).model_copy(update={name: math.nan})
                with pytest.raises(ValueError, match="not JSON compliant"):
                    write_document(str(tmp_path / "file.json"), document)
    assert not list(tmp_path.iterdir())


def test_records_are_read_back(tmp_path):
    dropped = [
        DroppedDocument("eval", b"a", b"web", TEXTS[-1], 9, "min_words", 1 / 3, 2.0, b""),
        DroppedDocument(
            "train",
            b"b",
            b"",
            TEXTS[-2],
            2**40,
            "exact_duplicate",
            1,
            0,
            b"a",
            "de",
            "shared",
            b'{"title":"\xc3\xa4","url":"https://e.org"}',
            "word",
        ),
    ]
    lines = [record.to_line() for record in dropped]
    write_dropped_shard(str(tmp_path), 0, 2, lines[:1])
    write_dropped_shard(str(tmp_path), 1, 2, lines[1:])
    assert list(read_dropped(str(tmp_path))) == dropped
    bad = [BadRecord("ä.jsonl", i, "invalid_json", TEXTS[-1], 5) for i in (2, 1)]
    write_quarantine(str(tmp_path), bad)
    assert list(read_quarantine(str(tmp_path))) == bad[::-1]


@pytest.mark.parametrize(
    ("text", "words"), [('{"a": 1,', "no JSON"), ("", "no JSON"), ("[]", "the document")]
)
def test_a_file_that_is_no_document_is_named(tmp_path, text, words):
    path = tmp_path / "counts.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TokenmillError, match=words) as caught:
        read_document(str(path), MODELS[0])
    assert str(path) in caught.value.message
