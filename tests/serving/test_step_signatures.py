"""Signatures for servers that keep the cache: token by token what generate and score say."""

import numpy as np
import pytest
import tensorflow as tf

from tokenmill.export.step_signatures import cache_names

PROMPTS = ([2, 7, 9, 300, 12], [2, 45], [2], [2, *range(10, 40)])


def padded(texts):
    return tf.keras.utils.pad_sequences(texts, padding="post", dtype="int32")


def prefill(signatures, text):
    outputs = signatures["prefill_ids"](token_ids=tf.constant([text]))
    names = sorted(name for name in outputs if name != "logits")
    return outputs["logits"], {name: outputs[name].numpy() for name in names}


def continue_by_steps(signatures, text, new, **options):
    """Tokens, keeping the cache by hand."""
    options = {name: tf.constant([value]) for name, value in options.items()}
    logits, cache = prefill(signatures, text)
    tokens = []
    for step in range(new):
        chosen = signatures["sample"](logits=logits, step=tf.constant([step]), **options)
        token = int(chosen["token_ids"][0])
        tokens.append(token)
        position = len(text) + step
        if token == 3 or step == new - 1:
            break
        cache = {k: np.pad(v, [(0, 0), (0, 0), (0, 1), (0, 0)]) for k, v in cache.items()}
        outputs = signatures["decode_ids"](
            token_ids=tf.constant([token]),
            positions=tf.constant([position]),
            **{name: tf.constant(value) for name, value in cache.items()},
        )
        for name, value in cache.items():
            value[:, :, position] = outputs[name].numpy()
        logits = outputs["logits"]
    return tokens


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0},
        {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 7},
        {"temperature": 0.7, "top_k": 30, "top_p": 0.9, "seed": 11},
    ],
)
def test_steps_make_the_tokens_of_generate(exported, options):
    signatures, new = exported.loaded.signatures, 12
    for prompt in PROMPTS:
        whole = signatures["generate_ids"](
            token_ids=tf.constant([prompt[1:]], tf.int32),
            max_new_tokens=tf.constant([new]),
            truncate_prompt=tf.constant([False]),
            **{name: tf.constant([value]) for name, value in options.items()},
        )
        expected = whole["token_ids"].numpy()[0, : whole["completion_tokens"][0]].tolist()
        made = continue_by_steps(signatures, prompt, new, **options)
        assert [t for t in made if t != 3] == expected


def test_prefill_of_a_batch_is_that_of_each_text(exported):
    prefill_ids = exported.loaded.signatures["prefill_ids"]
    together = prefill_ids(token_ids=tf.constant(padded(PROMPTS)))
    for row, prompt in enumerate(PROMPTS):
        alone = prefill_ids(token_ids=tf.constant([prompt]))
        for name, value in alone.items():
            other = together[name][row]
            other = other if name == "logits" else other[:, : len(prompt)]
            np.testing.assert_allclose(other, value[0], atol=2e-5)


def test_log_probabilities_are_those_of_score(exported):
    signatures = exported.loaded.signatures
    texts = [[*prompt, 3] for prompt in PROMPTS]
    outputs = signatures["log_probabilities_ids"](token_ids=tf.constant(padded(texts)))
    summed = outputs["log_probabilities"].numpy()
    for row, text in enumerate(texts):
        score = signatures["score_ids"](token_ids=tf.constant([text[1:-1]], tf.int32))
        expected = float(score["log_likelihood"][0])
        assert summed[row, : len(text)].sum() == pytest.approx(expected, abs=1e-4)
        assert summed[row, 0] == 0
        for place in range(1, len(text)):
            logits = prefill(signatures, text[:place])[0].numpy()[0].astype(np.float64)
            total = np.log(np.exp(logits - logits.max()).sum()) + logits.max()
            assert summed[row, place] == pytest.approx(logits[text[place]] - total, abs=1e-5)
            best = np.argsort(-logits, kind="stable")[:20]
            assert outputs["likeliest_ids"][row, place, 0] == best[0]
            np.testing.assert_allclose(
                outputs["likeliest_log_probabilities"][row, place], logits[best] - total, atol=1e-5
            )


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("prefill_ids", {"token_ids": [[2, 340]]}, "must be from 0 to 339"),
        ("prefill_ids", {"token_ids": [[0, 0]]}, "at least one token"),
        ("prefill_ids", {"token_ids": [[2] * 49]}, "48 tokens at most"),
        ("log_probabilities_ids", {"token_ids": [[2] * 49]}, "48 tokens at most"),
    ],
)
def test_what_is_no_text_is_refused(exported, name, inputs, message):
    inputs = {key: tf.constant(value) for key, value in inputs.items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        exported.loaded.signatures[name](**inputs)


def test_a_position_beyond_the_cache_is_refused(exported):
    signatures = exported.loaded.signatures
    cache = {name: tf.zeros([1, 2, 4, 8]) for name in cache_names(2)}
    for position in (-1, 5, 48):
        with pytest.raises(tf.errors.InvalidArgumentError, match="positions must be from 0"):
            signatures["decode_ids"](
                token_ids=tf.constant([5]), positions=tf.constant([position]), **cache
            )
