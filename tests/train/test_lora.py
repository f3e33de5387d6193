"""LoRA: adapters beside frozen weights, from the layers to killed trainings."""

import dataclasses
import math
import os
import pathlib
import shutil
import signal

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from components.train import fingerprint
from components.train.config import TrainConfig, TrainingJob
from components.train.loop import Trainer
from components.train.run import check_frozen
from pipeline.dag import with_base_weights
from tokenmill.checkpoints.base_model import load_start_weights, weights_fingerprint
from tokenmill.checkpoints.checkpoint import read_checkpoint
from tokenmill.cost.flops import flops_per_token
from tokenmill.errors import TokenmillError
from tokenmill.model.adapter import Adapter
from tokenmill.model.build import build_model, dropout_seed, loss_sums, merge_adapters
from tokenmill.model.lora import LORA_TARGETS, LoraConfig, linear_layers, trained_params_by_part
from tokenmill.model.shape import ModelShape
from tokenmill.rows.mixture import plan_steps
from tokenmill.rows.packed_split import Batch, PackedSplit

LENGTH, VOCAB = 16, 60
COMMON = {"layers": 2, "d_model": 32, "heads": 4, "d_ff": 48, "vocab_size": VOCAB,
          "sequence_length": LENGTH}  # fmt: skip
LLAMA = {"positions": "rope", "norm": "rms", "use_bias": False, "mlp": "swiglu", "kv_heads": 2,
         "tie_embeddings": False}  # fmt: skip
GPT2 = {"positions": "learned", "norm": "layer", "use_bias": True, "mlp": "gelu",
        "tie_embeddings": True}  # fmt: skip
BERT = {**GPT2, "causal": False, "norm_position": "post", "type_vocab_size": 2}
SHAPES = {
    "llama": ModelShape(**COMMON, **LLAMA),
    "qwen 3": ModelShape(**COMMON, **LLAMA, head_dim=12, qk_norm=True),
    "gpt2": ModelShape(**COMMON, **GPT2),
    "bert mlm": ModelShape(**COMMON, **BERT, head="mlm"),
    "bert classifier": ModelShape(**COMMON, **BERT, head="classifier", classes=3),
}
LORA = LoraConfig(rank=4, alpha=8.0)


def batch_for(shape, rows=4, seed=0):
    """Two documents a row and some padding."""
    chance = np.random.default_rng(seed)
    segments = np.tile(np.repeat([1, 2, 0], [7, 6, 3]).astype(np.int32), (rows, 1))
    ids = (chance.integers(5, VOCAB, (rows, LENGTH)) * (segments > 0)).astype(np.int32)
    positions = np.tile(np.r_[0:7, 0:6, 0:3].astype(np.int32), (rows, 1))
    targets = chance.integers(0, shape.logit_width, (rows, LENGTH)).astype(np.int32)
    return Batch(ids, targets, segments, positions, (segments > 0).astype(np.float32))


def move(model, seed=3):
    """Give all trained weights random values, as training might."""
    chance = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(chance.normal(0, 0.2, variable.shape))


def logits(model, batch):
    return model(batch.inputs, batch.segment_ids, batch.positions).numpy()


@pytest.mark.parametrize("name", SHAPES)
def test_before_training_the_adapted_model_is_the_base_bit_for_bit(name):
    base, adapted = build_model(SHAPES[name], 3), build_model(SHAPES[name], 3, lora=LORA)
    np.testing.assert_array_equal(*(logits(m, batch_for(SHAPES[name])) for m in (base, adapted)))
    for ours, theirs in zip(base.variables, adapted.base_variables, strict=True):
        assert ours.path == theirs.path
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("targets", [None, ("q", "v"), ("k", "o", "down")])
def test_the_merged_model_computes_the_same(name, targets):
    lora = LoraConfig(rank=3, alpha=5.0, targets=targets)
    adapted = build_model(SHAPES[name], 3, lora=lora)
    untrained = logits(adapted, batch_for(SHAPES[name]))
    move(adapted)
    moved = logits(adapted, batch_for(SHAPES[name]))
    merged = merge_adapters(adapted)
    assert np.abs(moved - untrained).max() > 1e-2
    np.testing.assert_allclose(logits(merged, batch_for(SHAPES[name])), moved, atol=1e-5)
    assert merged.count_params() == SHAPES[name].params_total
    assert merge_adapters(merged) is merged


def test_merged_weights_are_not_rounded_to_the_16_bits_of_frozen_ones():
    adapted = build_model(SHAPES["llama"], 3, "bfloat16", lora=LORA)
    move(adapted)
    frozen = {v.path: v.dtype for v in adapted.base_variables}
    assert frozen["decoder/layer0/mlp/up/kernel"] == "bfloat16"
    assert {v.dtype for v in adapted.trainable_variables} == {"float32"}
    merged = merge_adapters(adapted)
    block, adapter = merged.blocks[1], adapted.adapters()["layer1/up"]
    expected = tf.cast(adapted.blocks[1].mlp.up.kernel, tf.float32).numpy() + adapter.matrix()
    assert block.mlp.up.kernel.dtype == "float32"
    np.testing.assert_array_equal(block.mlp.up.kernel.numpy(), expected)


@pytest.mark.parametrize("name", SHAPES)
def test_only_inputs_of_adapters_are_dropped_by_seed_and_step(name, monkeypatch):
    batch, rate = batch_for(SHAPES[name]), 0.25
    plain, dropping = (
        build_model(SHAPES[name], 3, dropout=0.1, lora=dataclasses.replace(LORA, dropout=dropped))
        for dropped in (0.0, rate)
    )

    def hidden(model, step=None):
        seed = None if step is None else dropout_seed(3, step)
        return model.encode(batch.inputs, batch.segment_ids, batch.positions, seed).numpy()

    # B is 0: what adapters get does not matter, and the other masks are the same.
    np.testing.assert_array_equal(hidden(plain, 1), hidden(dropping, 1))
    move(plain)
    move(dropping)
    np.testing.assert_array_equal(hidden(plain), hidden(dropping))  # outside of training
    np.testing.assert_array_equal(hidden(dropping, 1), hidden(dropping, 1))
    assert np.abs(hidden(dropping, 1) - hidden(dropping, 2)).max() > 1e-2
    assert np.abs(hidden(dropping, 1) - hidden(plain, 1)).max() > 1e-2
    seen, call = [], Adapter.call

    def recording(self, x_NM):
        seen.append(x_NM.numpy())
        return call(self, x_NM)

    monkeypatch.setattr(Adapter, "call", recording)
    hidden(dropping, 1)
    layers, targets = SHAPES[name].layers, len(LORA.adapted(SHAPES[name]))
    assert len(seen) == layers * targets
    qkv = seen[targets : targets + 3]  # of the second layer, whose inputs are hardly ever 0
    zeros = np.concatenate([(x == 0).ravel() for x in qkv])
    assert abs(zeros.mean() - rate) < 4 * math.sqrt(rate * (1 - rate) / len(zeros))
    # q, k and v of a layer read the same vectors, each by a mask of its own.
    q, k, _ = qkv
    both = (q != 0) & (k != 0)
    np.testing.assert_array_equal(q[both], k[both])
    assert ((q == 0) != (k == 0)).mean() > 0.2


def test_seeds_differ_and_repeat():
    first, again, other = (
        [v.numpy() for v in build_model(SHAPES["llama"], seed, lora=LORA).trainable_variables]
        for seed in (1, 1, 2)
    )
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))
    # Kaiming uniform with a = sqrt(5) lies within 1 / sqrt(features in); no two A are alike.
    starts = [a for a in first if a.any()]
    assert len(starts) == 2 * len(LORA_TARGETS)
    assert all(0.5 < np.abs(a).max() * math.sqrt(len(a)) <= 1 for a in starts)
    assert len({a.tobytes() for a in starts}) == len(starts)


shapes = st.sampled_from(sorted(SHAPES))


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(1, 16), st.sets(st.sampled_from(LORA_TARGETS), min_size=1))
def test_what_is_trained_is_what_the_ledger_counts(name, rank, targets):
    shape = SHAPES[name]
    lora = LoraConfig(rank=rank, alpha=1.0, targets=tuple(sorted(targets)))
    if not targets <= linear_layers(shape).keys():
        with pytest.raises(ValueError, match=r"there is no 'gate' with model.mlp = 'gelu'"):
            build_model(shape, 0, lora=lora)
        return
    model = build_model(shape, 0, lora=lora)
    found = {"attention": 0, "mlp": 0, "head": 0}
    for variable in model.trainable_variables:
        parts = variable.path.split("/")
        found[parts[2] if parts[1].startswith("layer") else "head"] += math.prod(variable.shape)
    assert found == trained_params_by_part(shape, lora)
    frozen = sum(math.prod(v.shape) for v in model.variables if not v.trainable)
    assert frozen + found["head"] == shape.params_total


def test_a_rank_that_no_matrix_can_have_is_refused():
    with pytest.raises(ValueError, match=r"train.lora_rank = 17: expected at most 16.*'k'"):
        build_model(SHAPES["llama"], 0, lora=LoraConfig(rank=17, alpha=1.0))


def step_products(shape, lora):
    """Multiply-adds of all matrix products that one step's gradients depend on."""
    model, batch = build_model(shape, 0, lora=lora), batch_for(shape, rows=1)

    @tf.function
    def gradients(*arrays):
        with tf.GradientTape() as tape:
            objective = loss_sums(model, Batch(*arrays)).objective
        return tape.gradient(objective, model.trainable_variables)

    outputs = gradients.get_concrete_function(*map(tf.convert_to_tensor, batch)).outputs
    waiting, needed = [tensor.op for tensor in outputs], {}
    while waiting:
        op = waiting.pop()
        if op.name not in needed:
            needed[op.name] = op
            waiting += [*(tensor.op for tensor in op.inputs), *op.control_inputs]
    total = 0
    for op in needed.values():
        if op.type in ("MatMul", "BatchMatMulV2"):
            transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
            total += math.prod(op.outputs[0].shape) * op.inputs[0].shape[-2 if transposed else -1]
    return total


@pytest.mark.parametrize("name", SHAPES)
def test_the_step_multiplies_as_counted(name):
    shape = SHAPES[name]
    counted = flops_per_token(shape, lora=LORA)
    whole = 2 * step_products(shape, None) / LENGTH
    assert whole == flops_per_token(shape).training
    d, rank = shape.d_model, LORA.rank
    # What the lowest layer's inputs would need: they come from frozen embeddings.
    lowest = 2 * (d * (shape.attention_width + 2 * shape.kv_dim) + 3 * d * rank)
    assert 2 * step_products(shape, LORA) / LENGTH == counted.training - lowest
    assert counted.training < whole


@pytest.mark.parametrize("rematerialize", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "mixed_float16"])
def test_steps_lower_the_loss_and_move_nothing_frozen(
    counting_rows, small_shape, rematerialize, precision
):
    lora = {"lora_rank": 4, "lora_dropout": 0.1}
    lora |= {"precision": precision, "rematerialize": rematerialize}
    config = TrainConfig(
        **lora, learning_rate=0.05, max_steps=20, epochs=100, global_batch_size=8, jit_compile=False
    )
    train, held_out = PackedSplit(counting_rows, "train"), PackedSplit(counting_rows, "eval")
    plan = plan_steps(train.rows, 8, 100, 20, None)
    model = build_model(small_shape, 3, precision, 0.0, rematerialize, config.lora)
    before = [v.numpy() for v in model.base_variables]
    trainer = Trainer(tf.distribute.get_strategy(), model, config, plan, 3)
    record = trainer.fit(train, held_out)
    assert record.eval_after.loss < 0.99 * record.eval_before.loss
    for old, variable in zip(before, model.base_variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())
    assert len(trainer.optimizer.variables) <= 2 * len(model.trainable_variables) + 5


OPTIONS = {"checkpoint_steps": 3, "log_steps": 1, "detail_steps": None}
JOB = {"lora_rank": 4, "max_steps": 24, "learning_rate": 0.05}


def checkpoints_of(directory):
    return sorted(pathlib.Path(directory).glob("*/checkpoints/step-*/manifest.json"))


def test_killed_the_weights_are_those_of_the_undisturbed_run(launcher, tmp_path, poll):
    undisturbed = launcher.run(tmp_path / "whole", options=OPTIONS, **JOB)
    assert undisturbed.exit_code == 0, undisturbed.said
    process = launcher.start(tmp_path / "killed", options=OPTIONS, **JOB)
    poll(lambda: len(checkpoints_of(tmp_path / "killed")) >= 2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    continued = launcher.run(tmp_path / "killed", options=OPTIONS, **JOB)
    assert continued.exit_code == 0, continued.said
    assert continued.result["resumes"]
    for name in ("weights", "loss_curve", "eval_before", "eval_after", "params_trained"):
        assert continued.result[name] == undisturbed.result[name]
    last = [checkpoints_of(tmp_path / d)[-1].parent for d in ("whole", "killed")]
    stored = [(d / "variables-00000.safetensors").read_bytes() for d in last]
    assert stored[0] == stored[1]


def test_a_checkpoint_holds_adapters_and_their_moments_alone(launcher, tmp_path, small_shape):
    outcome = launcher.run(tmp_path, options=OPTIONS, **JOB)
    assert outcome.exit_code == 0, outcome.said
    lora = TrainConfig(lora_rank=4).lora
    trained = sum(trained_params_by_part(small_shape, lora).values())
    assert outcome.result["params_trained"] == trained
    assert outcome.result["params_total"] == small_shape.params_total
    newest = checkpoints_of(tmp_path)[-1].parent
    held = safetensors.numpy.load((newest / "variables-00000.safetensors").read_bytes())
    adapters = {name: a for name, a in held.items() if name.startswith("model/")}
    assert {name.rsplit("/", 1)[1] for name in adapters} == {"lora_a", "lora_b"}
    assert sum(a.size for a in adapters.values()) == trained
    scalars = sum(a.size for a in held.values()) - 3 * trained
    assert 0 <= scalars <= 5  # the step, the learning rate


def test_another_rank_is_refused_by_name(launcher, tmp_path):
    first = launcher.run(tmp_path / "first", options=OPTIONS, **JOB)
    checkpoints = checkpoints_of(tmp_path / "first")[0].parents[1]
    for change, words in (
        ({"lora_rank": 8}, "train.lora_rank from 4 to 8"),
        ({"lora_targets": ["q"]}, "train.lora_targets from 'all-linear' to ['q']"),
        ({"lora_rank": 0}, "train.lora_rank from 4 to 0"),
    ):
        job = {**JOB, **change, "resume_from": str(checkpoints)}
        outcome = launcher.run(tmp_path / "second", options=OPTIONS, **job)
        assert outcome.exit_code == 1
        assert words in outcome.said
    assert first.exit_code == 0


def test_two_devices_follow_the_losses_of_one(launcher, tmp_path):
    job = {**JOB, "clip_norm": 1e-6}
    one = launcher.run(tmp_path / "one", options=OPTIONS, **job)
    two = launcher.run(
        tmp_path / "two", options={**OPTIONS, "cpu_devices": 2}, strategy="mirrored", **job
    )
    assert two.exit_code == 0, two.said
    assert two.result["replicas"] == 2
    np.testing.assert_allclose(two.result["loss_curve"], one.result["loss_curve"], rtol=1e-5)


def base_directory(path, weights):
    (path / "variables").mkdir(parents=True, exist_ok=True)
    for name, content in weights.items():
        (path / "variables" / name).write_bytes(content)
    return str(path)


def test_adapters_do_not_go_on_beside_another_base(tmp_path, small_shape):
    weights = {"variables.index": b"names", "variables.data-00000-of-00001": b"numbers"}
    here = base_directory(tmp_path / "here", weights)
    moved = base_directory(tmp_path / "moved", weights)
    other = base_directory(
        tmp_path / "other", {**weights, "variables.data-00000-of-00001": b"numberz"}
    )

    def settings_with(base, **train):
        job = TrainingJob(shape=small_shape, train=TrainConfig(**train), seed=1, base_model=base)
        return fingerprint.settings_of(job)

    before = settings_with(here, lora_rank=4)
    fingerprint.check_changes(fingerprint.changes(before, settings_with(moved, lora_rank=4)), "x")
    changed = fingerprint.changes(before, settings_with(other, lora_rank=4))
    with pytest.raises(TokenmillError, match="cannot be continued with base_weights from '"):
        fingerprint.check_changes(changed, "x")
    # A training of all weights goes on wherever they came from, but is another one.
    assert not [name for name in settings_with(here) if "lora" in name or "base_weights" in name]
    changed = fingerprint.changes(settings_with(here), settings_with(other))
    fingerprint.check_changes(changed, "x")
    assert "start_weights" in changed


def test_tfx_trains_anew_when_the_weights_at_a_path_are_others(tmp_path, small_shape):
    weights = {"variables.index": b"names", "variables.data-00000-of-00001": b"numbers"}
    here = base_directory(tmp_path / "here", weights)
    job = TrainingJob(shape=small_shape, train=TrainConfig(), seed=1, base_model=here)
    before = with_base_weights(job).to_json()
    assert before == with_base_weights(job).to_json()
    base_directory(tmp_path / "here", {**weights, "variables.data-00000-of-00001": b"numberz"})
    assert before != with_base_weights(job).to_json()
    elsewhere = job.model_copy(update={"base_model": "gs://bucket/model"})
    assert with_base_weights(elsewhere) == elsewhere


def test_a_head_that_would_be_frozen_at_random_is_refused(small_shape):
    job = TrainingJob(
        shape=small_shape, train=TrainConfig(lora_rank=4), seed=1, base_model="the/base"
    )
    with pytest.raises(TokenmillError, match="the/base: it has no decoder/output_layer/kernel"):
        check_frozen(job, ["decoder/output_layer/kernel"])
    classifier = job.model_copy(update={"shape": SHAPES["bert classifier"]})
    check_frozen(classifier, ["encoder/pooler/kernel"])


def test_an_open_models_weights_can_be_the_frozen_ones(tmp_path):
    """The weights of a Hugging Face checkpoint, under the adapters; their hash is the files'."""
    golden = pathlib.Path(__file__).parents[1] / "checkpoints" / "golden"
    shape = read_checkpoint(str(golden / "llama")).shape
    plain, adapted = build_model(shape, 1), build_model(shape, 2, lora=LoraConfig(rank=2, alpha=4))
    for model in (plain, adapted):
        assert load_start_weights(model, str(golden / "llama"), "") == []
    for ours, theirs in zip(plain.variables, adapted.base_variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    shutil.copytree(golden / "llama", tmp_path / "moved")
    digest = weights_fingerprint(str(golden / "llama"))
    assert digest == weights_fingerprint(str(tmp_path / "moved"))
    part = next((tmp_path / "moved").glob("*.safetensors"))
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    assert digest != weights_fingerprint(str(tmp_path / "moved"))
