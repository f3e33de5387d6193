"""What the Trainer samples of held-out texts, and that a training is the same with it."""

import numpy as np
import pytest
import tensorflow as tf
from made_documents import TokenizedDocument, in_columns

from components.pack.job import PackJob
from components.pack.transforms import pack_shard, write_manifest
from components.train.config import TrainConfig
from components.train.distributed.strategy import Workers
from components.train.execution import Execution
from components.train.loop import Trainer
from components.train.session import Session
from components.train.state import TrainingRecord
from components.train.telemetry.attention_maps import text_attention
from components.train.telemetry.samples import (
    choose_prompts,
    held_out_texts,
    make_generator,
    make_sampler,
)
from tokenmill.model.build import build_model
from tokenmill.model.shape import ModelShape
from tokenmill.rows.mixture import plan_steps
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.text.tokenizers.load import read_tokenizer

SEED, STEPS = 7, 40
OPTIONS = {"log_steps": 1, "detail_steps": None, "checkpoint_steps": 5}


@pytest.fixture(scope="module")
def tokenizer(small_tokenizer):
    return read_tokenizer(small_tokenizer)


@pytest.fixture(scope="module")
def fit(counting_rows, small_shape, tokenizer):
    """A function that trains in this process, with samples or without; gives trainer and record."""

    def run(samples, directory=None):
        config = TrainConfig(learning_rate=1e-2, warmup_fraction=0.1, jit_compile=False)
        train, held_out = PackedSplit(counting_rows, "train"), PackedSplit(counting_rows, "eval")
        strategy, model = tf.distribute.get_strategy(), build_model(small_shape, SEED)
        plan = plan_steps(train.rows, 8, 1000, STEPS)
        trainer = Trainer(strategy, model, config, plan, SEED)
        session = Session(
            Workers(strategy), {}, Execution(**OPTIONS), directory, train.manifest.loss_tokens
        )
        sampler = make_sampler(model, held_out, tokenizer, samples) if samples else None
        try:
            return trainer, trainer.fit(train, held_out, session, sampler=sampler)
        finally:
            session.close()

    return run


@pytest.fixture(scope="module")
def sampled(fit):
    return fit(4)


def weights_of(trainer):
    variables = [*trainer.model.variables, *trainer.optimizer.variables]
    return b"".join(v.numpy().tobytes() for v in variables)


def test_a_training_is_the_same_to_the_last_bit_with_samples(fit, sampled):
    (without, plain), (trainer, record) = fit(0), sampled
    assert plain.samples == []
    assert record.loss_curve == plain.loss_curve
    assert (record.eval_before, record.eval_after) == (plain.eval_before, plain.eval_after)
    assert weights_of(trainer) == weights_of(without)


def test_three_points_of_the_same_texts(fit, sampled):
    _, record = sampled
    assert [point.step for point in record.samples] == [0, 20, 40]
    prompts = [[sample.prompt for sample in point.samples] for point in record.samples]
    assert len(prompts[0]) == 4
    assert prompts[0] == prompts[1] == prompts[2]
    outputs = [[sample.output for sample in point.samples] for point in record.samples]
    assert outputs[0] != outputs[1]
    assert record.seconds["samples"] > 0
    again = fit(4)[1]
    assert again.samples == record.samples


def test_a_continuation_is_the_likeliest_token_each_time(sampled, counting_rows, small_shape):
    trainer, _ = sampled
    eval_rows = PackedSplit(counting_rows, "eval")
    prompts = choose_prompts(eval_rows, 4)
    outputs = make_generator(trainer.model, eval_rows, prompts, small_shape.vocab_size)()
    control = eval_rows.control_ids
    for prompt, output in zip(prompts, outputs, strict=True):
        assert 0 < len(prompt.given) <= small_shape.sequence_length // 4
        assert len(output) <= prompt.new_tokens
        ids, expected = [control.bos, *prompt.given], []
        while len(expected) < prompt.new_tokens:  # by the whole text each time, without a cache
            arrays = np.array([ids]), np.ones((1, len(ids)), np.int32), np.arange(len(ids))[None]
            logits = np.array(trainer.model(*map(tf.constant, arrays))[0, -1])
            logits[control.never_generated] = -np.inf
            token = int(np.argmax(logits))
            if token == control.eos:
                break
            expected.append(token)
            ids.append(token)
        assert output == expected
    # The texts count upwards: the trained model knows more of that than the untrained one.
    untrained = build_model(small_shape, SEED)
    before = make_generator(untrained, eval_rows, prompts, small_shape.vocab_size)()

    def hits(continuations):
        return sum(
            a == b
            for prompt, output in zip(prompts, continuations, strict=True)
            for a, b in zip(prompt.expected, output, strict=False)
        )

    assert hits(outputs) > 2 * hits(before)


def test_points_that_have_passed_stay_over_a_resume(launcher, small_tokenizer, tmp_path):
    options = {**OPTIONS, "tokenizer_path": small_tokenizer}
    whole = launcher.run(tmp_path / "whole", options=options).result
    launcher.run(tmp_path / "parts", options=options, max_steps=20)
    resumed = launcher.run(
        tmp_path / "parts",
        options=options,
        resume_from=str(next((tmp_path / "parts").glob("*/checkpoints"))),
    ).result
    assert [point["step"] for point in whole["samples"]] == [0, 20, 40]
    assert [point["step"] for point in resumed["samples"]] == [0, 10, 20, 40]
    assert resumed["samples"][0] == whole["samples"][0]
    assert resumed["resumes"][0]["from_step"] == 20


def test_two_devices_sample_as_one(launcher, small_tokenizer, tmp_path):
    options = {**OPTIONS, "tokenizer_path": small_tokenizer}
    one = launcher.run(tmp_path / "one", options=options, max_steps=2).result
    two = launcher.run(
        tmp_path / "two", options={**options, "cpu_devices": 2}, max_steps=2, strategy="mirrored"
    ).result
    assert two["replicas"] == 2
    assert [point["step"] for point in two["samples"]] == [0, 1, 2]
    assert two["samples"] == one["samples"]


def test_a_record_keeps_its_samples(sampled):
    _, record = sampled
    assert TrainingRecord.from_json(record.plan, record.to_json()).samples == record.samples
    old = {name: value for name, value in record.to_json().items() if name != "samples"}
    assert TrainingRecord.from_json(record.plan, old).samples == []


def test_of_a_conversation_the_first_answer_is_asked_for(small_shape, tokenizer, tmp_path):
    spans = ((4, 7), (8, 9))
    documents = [
        TokenizedDocument(b"%d" % i, b"s", 40, first + np.arange(10, dtype=np.int32), answers=spans)
        for i, first in enumerate((20, 21, 22))
    ]
    job = PackJob(sequence_length=16, vocab_size=300, shards=1, conversations=True)
    directory, flags = str(tmp_path / "Split-eval"), np.zeros(300, np.uint8)
    sizes = np.ones(300, np.int64)
    shard = pack_shard((0, [in_columns(documents)]), directory, job, flags, None, sizes)
    write_manifest([shard], directory, job, flags)
    eval_rows = PackedSplit(str(tmp_path), "eval")
    prompts = choose_prompts(eval_rows, 2)
    assert len(prompts) == 2
    for prompt in prompts:
        first = prompt.given[0]
        assert prompt.given == list(range(first, first + 4))
        assert prompt.expected == list(range(first + 4, first + 7))
        assert prompt.new_tokens == 12  # the context is 16
    model = build_model(small_shape, SEED)
    generate = make_generator(model, eval_rows, prompts, 300, [])
    (whole, _) = generate()
    assert len(whole) == 12  # begin is not put before it, or there would be no room for 12
    # Whatever ends an answer ends it.
    stopping = make_generator(model, eval_rows, prompts, 300, [whole[0]])
    assert stopping()[0] == []
    assert len(make_sampler(model, eval_rows, tokenizer, 2, [])()) == 2


def test_a_masked_model_fills_in_hidden_tokens(make_split, small_shape, tokenizer, tmp_path):
    make_split(str(tmp_path), "eval", 11, seed=2, task="masked-lm")
    eval_rows = PackedSplit(str(tmp_path), "eval")
    shape = ModelShape(**{**small_shape.__dict__, "causal": False, "head": "mlm"})
    model = build_model(shape, SEED)
    samples = make_sampler(model, eval_rows, tokenizer, 3)()
    assert len(samples) == 3
    text = next(held_out_texts(eval_rows))
    assert samples[0].prompt.count("[MASK]") == len(text.inputs[4:24:5])
    # Weights that always guess the byte A.
    model.output_bias.assign(1e4 * np.eye(shape.vocab_size)[tokenizer.token_bytes.index(b"A")])
    (filled,) = make_sampler(model, eval_rows, tokenizer, 1)()
    assert filled.output == " ".join("A" * filled.prompt.count("[MASK]"))
    assert (filled.prompt, filled.expected) == (samples[0].prompt, samples[0].expected)


def test_kept_attention_is_that_of_the_layers(counting_rows, small_shape, tokenizer):
    options = {"layers": 2, "kv_heads": 1, "qk_norm": True, "norm": "rms", "use_bias": False}
    model = build_model(ModelShape(**{**small_shape.__dict__, **options}), SEED)
    for weight in model.trainable_variables:
        weight.assign(10 * weight)
    eval_rows = PackedSplit(counting_rows, "eval")
    kept = text_attention(model, eval_rows, tokenizer)
    ids = next(held_out_texts(eval_rows)).inputs
    assert len(kept.tokens) == len(ids)
    assert [layer.layer for layer in kept.layers] == [0, 1]
    for layer in kept.layers:
        weights = np.array(layer.heads)
        assert weights.shape == (2, len(ids), len(ids))
        np.testing.assert_allclose(weights.sum(-1), 1, atol=len(ids) * 5e-5)
        assert not np.triu(weights, 1).any()
    # The first layer, computed here from its weights: norms, rotation, one key head for two.
    block, width = model.blocks[0], 8
    x = model.token_embedding.embeddings.numpy()[ids]

    def normed(x, scale):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + model.shape_config.epsilon) * scale

    x = normed(x, block.attention_norm.scale.numpy()) @ block.attention.qkv.kernel.numpy()
    angles = np.arange(len(ids))[:, None] * 10_000.0 ** (-np.arange(4) / 4)

    def rotated(x, norm):
        x = normed(x, norm.scale.numpy())
        pairs = (x[:, :4] + 1j * x[:, 4:]) * np.exp(1j * angles)
        return np.concatenate([pairs.real, pairs.imag], -1)

    key = rotated(x[:, 16:24], block.attention.k_norm)
    for head in range(2):
        query = rotated(x[:, head * width :][:, :width], block.attention.q_norm)
        scores = np.where(np.tri(len(ids)) > 0, query @ key.T / width**0.5, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        np.testing.assert_allclose(kept.layers[0].heads[head], weights, atol=1e-4)


def test_of_a_large_model_the_mean_over_the_heads_is_kept(
    counting_rows, small_shape, tokenizer, monkeypatch
):
    model, eval_rows = build_model(small_shape, SEED), PackedSplit(counting_rows, "eval")
    heads = text_attention(model, eval_rows, tokenizer)
    monkeypatch.setattr("components.train.telemetry.attention_maps._MOST_WEIGHTS", 10)
    mean = text_attention(model, eval_rows, tokenizer)
    assert (heads.is_mean, mean.is_mean) == (False, True)
    expected = np.mean(heads.layers[0].heads, axis=0)
    np.testing.assert_allclose(mean.layers[0].heads[0], expected, atol=1.1e-4)
