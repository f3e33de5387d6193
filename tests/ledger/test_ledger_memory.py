import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.ledger.config import LedgerJob
from components.ledger.memory import memory_per_device, run_memory
from data.catalog.chips import Price
from tokenmill.cost.memory import RESERVED_SHARE
from tokenmill.model.shape import ModelShape

# 7e9 parameters.
LARGE = ModelShape(
    layers=32, d_model=4096, heads=32, d_ff=16384, vocab_size=32000, sequence_length=2048,
    positions="rope", norm="rms", use_bias=False, mlp="gelu", tie_embeddings=False,
)  # fmt: skip
SMALL = dataclasses.replace(LARGE, layers=12, d_model=768, heads=12, d_ff=3072)
GIB = 2**30


def settings(devices=1, batch=64, **change):
    values = dict(
        shape=LARGE, strategy="mirrored", precision="mixed_bfloat16", global_batch_size=batch,
        epochs=1.0, max_steps=None, chip="a100", chips=devices, given_mfu=0.4, goodput=1.0,
        peak_flops_per_second_per_chip=None, memory_bytes_per_chip=None,
        price=Price(usd_per_chip_hour=1.0, provider="p", date="", source="s"),
        vcpu_price_usd_per_hour=0.0, hidden_cost_multiplier_low=2.0,
        hidden_cost_multiplier_high=5.0,
    )  # fmt: skip
    return LedgerJob(**{**values, **change})


def section(shape, devices, capacity, batch=64):
    return run_memory(shape, settings(devices, batch), capacity).to_json()


def by_strategy(memory):
    return {line["strategy"]: line["smallest_chips"] for line in memory["by_strategy"]}


def test_a_model_too_large_for_any_number_of_copies_fits_when_split():
    memory = section(LARGE, 8, 80 * GIB)
    assert memory["fits"] is False
    assert memory["smallest_device_count"] is None  # 18 bytes x 7e9 on every chip
    assert by_strategy(memory)["zero3"] > 1


def test_a_batch_too_large_for_one_chip_fits_on_several():
    memory = section(SMALL, 1, 40 * GIB)
    assert memory["fits"] is False
    count = memory["smallest_device_count"]
    usable = 40 * GIB * (1 - RESERVED_SHARE)
    assert memory_per_device(SMALL, settings(), count).total <= usable
    assert memory_per_device(SMALL, settings(), count - 1).total > usable
    assert section(SMALL, count, 40 * GIB)["fits"] is True


def test_an_unknown_capacity_is_unknown():
    memory = section(SMALL, 1, None)
    assert memory["fits"] is None
    assert memory["smallest_device_count"] is None
    assert sum(memory["bytes_by_part"].values()) == memory["bytes_per_device"]


@given(st.integers(1, 512), st.integers(1, 64))
def test_more_devices_never_need_more_memory_each(batch, devices):
    one = memory_per_device(SMALL, settings(batch=batch), devices).total
    more = memory_per_device(SMALL, settings(batch=batch), devices + 1).total
    assert more <= one


def test_what_the_trainer_is_told_changes_the_memory():
    plain = memory_per_device(SMALL, settings(), 1)
    again = memory_per_device(SMALL, settings(rematerialize=True), 1)
    assert again.activations < plain.activations / 10
    assert again.recompute_workspace > 0
    # Four parts of 16 rows, one after the other.
    parts = memory_per_device(SMALL, settings(accumulation_steps=4), 1)
    assert parts == memory_per_device(SMALL, settings(batch=16), 1)
    assert memory_per_device(SMALL, settings(dropout=0.1), 1).activations > plain.activations
    assert section(SMALL, 2, None)["sequences_per_device"] == 32


def test_a_cpu_has_one_copy_whatever_its_cores():
    assert run_memory(SMALL, settings(8, chip="cpu-vcpu"), None).devices == 1


def test_each_worker_on_cpus_has_a_copy_and_its_share():
    cluster = settings(8, chip="cpu-vcpu", strategy="multi_worker", workers=4, machines=4)
    memory = run_memory(SMALL, cluster, None)
    assert memory.devices == 4
    assert memory.sequences_per_device == 16
    alone = run_memory(SMALL, settings(2, batch=16, chip="cpu-vcpu"), None)
    assert memory.bytes_by_part == alone.bytes_by_part
    data = memory.by_strategy[0]
    assert data.sent_bytes_per_step == round(2 * 4 * SMALL.params_total * 3 / 4)
    assert data.between_machines_bytes_per_step == data.sent_bytes_per_step
    assert alone.by_strategy[0].sent_bytes_per_step == 0


def test_the_copy_of_a_checkpoint_has_to_fit_beside_a_cpus_process():
    on_cpu = settings(1, chip="cpu-vcpu", precision="float32")
    needed = run_memory(SMALL, on_cpu, None)
    copied = needed.checkpoint_copy_bytes
    assert copied == 12 * SMALL.params_total

    def fits(capacity, **measured):
        return run_memory(SMALL, on_cpu, capacity / (1 - RESERVED_SHARE), **measured).fits

    assert fits(needed.bytes_per_device + copied + 1)
    assert not fits(needed.bytes_per_device + copied - GIB // 64)
    assert fits(2 * GIB + copied + 1, process_bytes=2 * GIB)
    assert not fits(2 * GIB + copied - GIB // 64, process_bytes=2 * GIB)
    on_gpu = section(SMALL, 1, None)["bytes_per_device"]  # whose memory has no copy
    assert section(SMALL, 1, (on_gpu + 1) / (1 - RESERVED_SHARE))["fits"] is True


def test_a_sparse_model_is_told_how_its_experts_spread():
    sparse = dataclasses.replace(SMALL, experts=8, experts_per_token=2)
    memory = section(sparse, 8, 80 * GIB)
    (spread,) = [line for line in memory["by_strategy"] if line["strategy"] == "expert"]
    assert spread["runnable"]
    (uneven,) = [
        line for line in section(sparse, 6, 80 * GIB)["by_strategy"] if line["strategy"] == "expert"
    ]
    assert not uneven["runnable"]  # 8 experts do not divide over 6
    assert spread["between_machines_bytes_per_step"] == 0
    saved = memory["bytes_per_device"] - spread["bytes_per_chip"]
    of_experts = 12 * 8 * sparse.expert_params
    # Seven eighths of what experts take but their moments (4 + 2 + 4 bytes), and of all moments.
    expected = 7 / 8 * (10 * of_experts + 8 * sparse.params_total)
    assert saved == pytest.approx(expected, rel=1e-6)
    assert "expert" not in by_strategy(section(SMALL, 8, 80 * GIB))
