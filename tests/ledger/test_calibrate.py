import pytest

from components.train import calibrate as module
from components.train.config import TrainConfig, TrainingJob
from tokenmill.cost.flops import flops_per_token
from tokenmill.errors import TokenmillError
from tokenmill.model.build import build_model
from tokenmill.model.shape import ModelShape

SHAPE = {
    "layers": 1, "d_model": 32, "heads": 2, "d_ff": 64, "vocab_size": 300,
    "sequence_length": 32, "positions": "rope", "norm": "layer", "use_bias": True, "mlp": "gelu",
    "tie_embeddings": True,
}  # fmt: skip
JOB = TrainingJob(shape=SHAPE, train=TrainConfig(global_batch_size=8, jit_compile=False), seed=3)


@pytest.fixture(scope="module")
def calibration(rows_uri):
    return module.calibrate(JOB, rows_uri, on_cpu=True)


def test_speed_is_tokens_of_the_steps_over_their_seconds(calibration):
    c = calibration
    assert c.tokens_per_second == pytest.approx(8 * 32 / c.step_seconds)
    flops = flops_per_token(ModelShape(**SHAPE)).training
    assert c.achieved_flops_per_second == pytest.approx(c.tokens_per_second * flops)
    assert c.peak_flops_per_second >= c.achieved_flops_per_second
    assert c.steps == module._MAX_STEPS  # a tiny model
    # Tiny steps, whose threads mostly wait: some of a core, and no more than all of them.
    assert 0 < c.step_cpu_seconds <= 1.1 * c.vcpus * c.step_seconds


def test_its_own_time_holds_its_parts(calibration):
    c = calibration
    parts = c.steps * c.step_seconds + c.compile_seconds + c.build_seconds
    assert parts < c.total_seconds
    assert c.compile_seconds > c.step_seconds
    assert c.memory_bytes > 2**28


def test_samples_are_timed_where_there_will_be_some(calibration, rows_uri):
    assert (calibration.first_samples_seconds, calibration.samples_seconds) == (0.0, 0.0)
    shape = ModelShape(**SHAPE)
    first, again = module._sampling_seconds(
        build_model(shape, 3), module.FirstRows(rows_uri, "eval", 8), 4
    )
    assert first > again > 0


def test_without_an_accelerator_none_can_be_measured(rows_uri):
    with pytest.raises(TokenmillError, match="no accelerator"):
        module.calibrate(JOB, rows_uri, on_cpu=False)


def test_a_large_model_takes_few_steps_and_a_small_one_many():
    large = ModelShape(**{**SHAPE, "layers": 24, "d_model": 2048, "d_ff": 8192})
    assert module._steps(large, 64, 1e11) == module._MIN_STEPS
    assert module._steps(ModelShape(**SHAPE), 8, 1e11) == module._MAX_STEPS
