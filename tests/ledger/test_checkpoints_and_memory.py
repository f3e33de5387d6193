import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.ledger.checkpoint_section import checkpoint_plan
from components.ledger.footprint import memory_of, memory_section
from components.ledger.memory import RESERVED_SHARE
from components.ledger.settings import CHIP_MTBF_HOURS, Hosting
from components.model_shape import ModelShape

# 7e9 parameters.
LARGE = ModelShape(
    n_layers=32, d_model=4096, n_heads=32, d_ff=16384, vocab_size=32000, sequence_length=2048,
    positions="rope", norm="rms", use_bias=False, mlp="gelu", tie_embeddings=False,
)  # fmt: skip
SMALL = dataclasses.replace(LARGE, n_layers=12, d_model=768, n_heads=12, d_ff=3072)
GIB = 2**30


def section(shape, devices, capacity, batch=64):
    return memory_section(
        shape, global_batch_size=batch, devices=devices, precision="mixed_bfloat16",
        strategy="mirrored", capacity_bytes=capacity,
    )  # fmt: skip


def test_a_model_too_large_for_any_number_of_copies_fits_when_split():
    memory = section(LARGE, 8, 80 * GIB)
    assert memory["fits"] is False
    assert memory["smallest_device_count"] is None  # 18 bytes x 7e9 on every chip
    assert memory["fully_sharded"]["smallest_device_count"] > 1


def test_a_batch_too_large_for_one_chip_fits_on_several():
    memory = section(SMALL, 1, 40 * GIB)
    assert memory["fits"] is False
    count = memory["smallest_device_count"]
    usable = 40 * GIB * (1 - RESERVED_SHARE)
    assert memory_of(SMALL, 64, count, "mixed_bfloat16").total <= usable
    assert memory_of(SMALL, 64, count - 1, "mixed_bfloat16").total > usable
    assert section(SMALL, count, 40 * GIB)["fits"] is True


def test_an_unknown_capacity_is_unknown():
    memory = section(SMALL, 1, None)
    assert memory["fits"] is None
    assert memory["smallest_device_count"] is None
    assert sum(memory["bytes_by_part"].values()) == memory["bytes_per_device"]


@given(st.integers(1, 512), st.integers(1, 64))
def test_more_devices_never_need_more_memory_each(batch, devices):
    one = memory_of(SMALL, batch, devices, "float32").total
    more = memory_of(SMALL, batch, devices + 1, "float32").total
    assert more <= one


def test_the_failure_rate_is_that_of_llama_3():
    assert pytest.approx(16_384 * 54 * 24 / 419, rel=1e-4) == CHIP_MTBF_HOURS


def test_a_long_run_on_many_chips_saves_often_and_loses_little():
    memory = memory_of(LARGE, 1024, 1024, "mixed_bfloat16")
    plan = checkpoint_plan(memory, 30 * 86400.0, 1024, Hosting())
    assert plan["checkpoint_bytes"] == 12 * LARGE.params_total
    assert plan["mtbf_seconds"] == pytest.approx(CHIP_MTBF_HOURS * 3600 / 1024)
    assert plan["interval_seconds"] == plan["daly_interval_seconds"]
    assert plan["checkpoints"] == round(30 * 86400 / plan["interval_seconds"])
    assert plan["expected_failures"] == pytest.approx(14.5, abs=0.1)
    assert 0.9 < plan["goodput"] < 0.99
    assert plan["disk_bytes"] == 2 * plan["checkpoint_bytes"]


def test_a_short_run_saves_once():
    memory = memory_of(SMALL, 8, 1, "float32")
    plan = checkpoint_plan(memory, 60.0, 1, Hosting())
    assert plan["checkpoints"] == 1
    assert plan["interval_seconds"] == 60.0
