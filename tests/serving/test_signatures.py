"""The exported SavedModel, called by its signatures."""

import json

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from tokenmill.text.vocabulary import BOS_ID, EOS_ID, PAD_ID, UNK_ID

CONTEXT = 48
PROMPTS = ["Returns the", "", "A layer that adds its inputs and", "日本語"]
OPTIONS = {
    "max_new_tokens": tf.int32,
    "temperature": tf.float32,
    "top_k": tf.int32,
    "top_p": tf.float32,
    "seed": tf.int32,
    "truncate_prompt": tf.bool,
}
DEFAULTS = {"max_new_tokens": 12, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0,
            "truncate_prompt": False}  # fmt: skip


@pytest.fixture(scope="session")
def call(exported):
    def call_signature(signature, first, model=None, **options):
        inputs = {"token_ids" if signature.endswith("_ids") else "text": tf.constant(first)}
        if signature.startswith("generate"):
            for name, value in (DEFAULTS | options).items():
                value = value if isinstance(value, list) else [value]
                inputs[name] = tf.constant(value, OPTIONS[name])
        outputs = (model or exported.loaded).signatures[signature](**inputs)
        return {name: value.numpy() for name, value in outputs.items()}

    return call_signature


@pytest.fixture(scope="session")
def encode(exported):
    processor = sentencepiece.SentencePieceProcessor(model_file=exported.tokenizer)
    return lambda text: processor.encode(text)


def full_logits(decoder, ids):
    """Of the uncached model, on a row of its own: int [n] -> float32 [n, V]."""
    row = tf.constant([ids], tf.int32)
    return decoder(row, tf.ones_like(row), tf.range(len(ids))[None]).numpy()[0]


def greedy(decoder, prompt, new):
    """Recomputes everything for each token."""
    ids, out = [BOS_ID, *prompt], []
    while len(out) < new:
        logits = full_logits(decoder, ids)[-1]
        logits[[PAD_ID, UNK_ID, BOS_ID]] = -np.inf
        token = int(logits.argmax())
        if token == EOS_ID:
            break
        ids.append(token)
        out.append(token)
    return out


def test_cached_greedy_text_is_the_uncached_models(exported, call, encode):
    prompts = [encode(text) for text in PROMPTS]
    width = max(map(len, prompts))
    padded = [ids + [PAD_ID] * (width - len(ids)) for ids in prompts]
    answer = call("generate_ids", padded, max_new_tokens=20)
    for ids, generated, count in zip(
        prompts, answer["token_ids"], answer["completion_tokens"], strict=True
    ):
        assert generated[:count].tolist() == greedy(exported.decoders[1], ids, 20)
    assert answer["prompt_tokens"].tolist() == [len(ids) for ids in prompts]
    assert len({tuple(row) for row in answer["token_ids"].tolist()}) > 1


def test_every_text_is_answered_as_if_it_were_alone(call):
    options = {
        "max_new_tokens": [5, 9, 12, 1],
        "temperature": [0.0, 1.0, 0.7, 2.0],
        "top_k": [0, 0, 5, 0],
        "top_p": [1.0, 1.0, 1.0, 0.6],
        "seed": [1, 2, 3, 4],
    }
    together = call("generate", PROMPTS, **options)
    for i, prompt in enumerate(PROMPTS):
        alone = call("generate", [prompt], **{name: [v[i]] for name, v in options.items()})
        for name, value in alone.items():
            assert value[0] == together[name][i], (prompt, name)


def test_seeds_choose_the_sample(call):
    def sample(seed):
        return call("generate", ["Returns"], temperature=1.5, seed=seed)["text"][0]

    assert sample(7) == sample(7)
    assert len({sample(seed) for seed in range(6)}) > 1


def test_narrow_filters_leave_the_likeliest_token(call):
    expected = call("generate", PROMPTS)["text"].tolist()
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}):
        assert call("generate", PROMPTS, temperature=1.0, **narrow)["text"].tolist() == expected


def test_generation_stops_at_the_texts_end_or_the_limit(exported, call):
    answer = call("generate", PROMPTS * 8, temperature=3.0, seed=list(range(32)), max_new_tokens=20)
    for reason, count in zip(answer["finish_reason"], answer["completion_tokens"], strict=True):
        assert count == 20 if reason == b"length" else 0 <= count < 20
    assert set(answer["finish_reason"]) == {b"length", b"stop"}


def test_a_long_prompt_is_an_error_or_loses_its_beginning(exported, call, encode):
    prompt = "The quick brown fox jumps over the lazy dog. " * 8
    ids, length = encode(prompt), exported.decoders[1].shape_config.sequence_length
    assert len(ids) > length
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"context of 48 tokens.*truncate_p"):
        call("generate", [prompt], max_new_tokens=10)
    answer = call("generate", [prompt], max_new_tokens=10, truncate_prompt=True)
    room = length - 1 - 10
    assert answer["prompt_tokens"] == [room]
    assert answer["truncated_tokens"] == [len(ids) - room]
    kept = call("generate_ids", [ids[-room:]], max_new_tokens=10)
    assert kept["completion_tokens"] == answer["completion_tokens"]
    assert kept["truncated_tokens"] == [0]
    exact = call("generate", [prompt], max_new_tokens=length - 1, truncate_prompt=True)
    assert exact["prompt_tokens"] == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be from 1 to 47"),
        ({"max_new_tokens": 48}, "max_new_tokens must be from 1 to 47"),
        ({"temperature": -1.0}, "temperature must be"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"temperature": float("inf")}, "temperature must be"),
        ({"top_k": -1}, "top_k must be"),
        ({"top_p": 0.0}, "top_p must be"),
        ({"top_p": 1.1}, "top_p must be"),
        ({"seed": [1, 2]}, "seed must have one value"),
    ],
)
def test_settings_out_of_range_are_named(call, options, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        call("generate", PROMPTS, **options)


@pytest.mark.parametrize("signature", ["score", "generate", "embed"])
def test_bytes_that_are_no_text_are_refused(call, signature):
    with pytest.raises(tf.errors.InvalidArgumentError, match="not valid UTF-8"):
        call(signature, [b"fine", b"\xff\xfe"])


@pytest.mark.parametrize("ids", [[[340]], [[-1]], [[5, 0, 5]]])
def test_ids_that_are_no_tokens_are_refused(call, ids):
    for signature in ("score_ids", "embed_ids", "generate_ids"):
        with pytest.raises(tf.errors.InvalidArgumentError, match="token_ids m"):
            call(signature, ids)


def test_scores_are_the_sums_of_the_models_own_log_probabilities(exported, call, encode):
    texts = [*PROMPTS, "x" * 300, "The dog and the fox. " * 12]
    answer = call("score", texts)
    length = exported.decoders[1].shape_config.sequence_length
    for i, text in enumerate(texts):
        inputs, targets = [BOS_ID, *encode(text)], [*encode(text), EOS_ID]
        nll = correct = 0.0
        for start in range(0, len(inputs), length):  # rows as packing cuts them
            row = targets[start : start + length]
            logits = full_logits(exported.decoders[1], inputs[start : start + length])
            logits = logits.astype(np.float64)
            peak = logits.max(-1)
            normal = peak + np.log(np.exp(logits - peak[:, None]).sum(-1))
            nll += (normal - logits[np.arange(len(row)), row]).sum()
            correct += (logits.argmax(-1) == row).sum()
        assert answer["nll_sum"][i] == pytest.approx(nll, rel=1e-5)
        assert answer["log_likelihood"][i] == -answer["nll_sum"][i]
        assert answer["correct_count"][i] == correct
        assert answer["token_count"][i] == len(targets)
        size = len(text.encode())
        assert answer["byte_count"][i] == size
        expected = nll / np.log(2) / size if size else np.nan
        assert answer["bits_per_byte"][i] == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_twins_on_ids_agree_with_raw_text(call, encode):
    for text in PROMPTS:
        ids = np.array([encode(text)], np.int32)
        padded = np.pad(ids, [[0, 0], [0, 3]])
        for given in (ids, padded):
            for name, value in call("score_ids", given).items():
                np.testing.assert_allclose(value, call("score", [text])[name], rtol=1e-5)
            for name, value in call("embed_ids", given).items():
                expected = call("embed", [text])[name]
                np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


def test_an_embedding_does_not_depend_on_its_neighbors(call):
    texts = [*PROMPTS, "The dog and the fox. " * 12]
    together = call("embed", texts)["embedding"]
    assert together.shape == (5, 32)
    for i, text in enumerate(texts):
        alone = call("embed", [text])["embedding"][0]
        np.testing.assert_allclose(together[i], alone, rtol=1e-4, atol=1e-5)
    assert np.abs(together[0] - together[2]).max() > 0.01


def test_an_empty_batch_is_answered_by_an_empty_batch(call):
    for signature in ("score", "embed", "generate"):
        empty = np.array([], dtype=object)
        for value in call(signature, tf.constant(empty, tf.string)).values():
            assert value.shape[0] == 0


def signature_defs(directory):
    saved = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    return saved.meta_graphs[0].signature_def


def test_what_may_be_left_out_stands_in_the_signature(exported):
    for name in ("generate", "generate_ids"):
        defaults = signature_defs(exported.base / "1")[name].defaults
        values = {key: tf.make_ndarray(value).tolist() for key, value in defaults.items()}
        top_p = values.pop("top_p")
        assert top_p == [1.0]
        assert values == {"max_new_tokens": [16], "temperature": [0.0], "top_k": [0],
                          "seed": [0], "truncate_prompt": [False]}  # fmt: skip


def test_warmup_requests_are_answered(exported, call):
    path = exported.base / "1" / "assets.extra" / "tf_serving_warmup_requests"
    called = set()
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        signature = request.model_spec.signature_name
        inputs = {name: tf.constant(tf.make_ndarray(x)) for name, x in request.inputs.items()}
        assert exported.loaded.signatures[signature](**inputs)
        # TensorFlow Serving's batching refuses other inputs (batching_util.h).
        assert len({x.shape[0] for x in inputs.values()}) == 1
        assert set(inputs) == set(signature_defs(exported.base / "1")[signature].inputs)
        called.add(signature)
    assert called == set(signature_defs(exported.base / "1")) - {
        "evaluate",
        "logits_ids",
        "__saved_model_init_op",
    }


@pytest.mark.parametrize(
    ("weights", "most_bytes", "most_nats"),
    [
        pytest.param("float16", 0.55, 0.01, marks=pytest.mark.slow),
        pytest.param("bfloat16", 0.55, 0.05, marks=pytest.mark.slow),
        ("int8", 0.36, 0.05),
    ],
)
def test_small_weights_are_small_and_score_nearly_as_well(
    exported, call, tmp_path, weights, most_bytes, most_nats
):
    exported.export(tmp_path / "small", quantization=weights)
    model = tf.saved_model.load(str(tmp_path / "small"))

    def weight_bytes(directory):
        return (directory / "variables" / "variables.data-00000-of-00001").stat().st_size

    ratio = weight_bytes(tmp_path / "small") / weight_bytes(exported.base / "1")
    assert ratio < most_bytes
    exact, small = (call("score", PROMPTS, model=m) for m in (None, model))
    difference = np.abs(exact["nll_sum"] - small["nll_sum"]) / exact["token_count"]
    assert 0 < difference.max() < most_nats
    assert call("generate", PROMPTS, model=model)["completion_tokens"].shape == (4,)
    described = json.loads((tmp_path / "small" / "assets.extra" / "model.json").read_text())
    assert described["quantization"] == weights
