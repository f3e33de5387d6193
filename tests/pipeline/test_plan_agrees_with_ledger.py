"""`tokenmill plan --preset` and the ledger of a run of that preset, on the same tokens."""

import json

import pytest
from click.testing import CliRunner
from complete_model import complete
from made_manifest import packed_manifest

from components.ledger.config import LedgerJob
from components.ledger.ledger import Machine, build_ledger
from pipeline.cli import cli
from pipeline.dag import create_components
from pipeline.loader import adapts, load_config, preset_names
from tokenmill.contracts.curation import Curation
from tokenmill.contracts.ingest import IngestCounts
from tokenmill.contracts.served_model import ServedModel, write_served_model
from tokenmill.cost.devices import CPU_CHIP
from tokenmill.machine import memory_bytes

PEAK = 5e10
STEPS = 40


def both(preset, *overrides):
    """The plan and the ledger of one epoch of `STEPS` steps."""
    config = load_config(preset, overrides=["train.epochs=1", *overrides])
    settings = config.ledger_job()
    length, rows = config.model.sequence_length, STEPS * settings.global_batch_size
    account = {
        "documents": rows,
        "bytes": rows,
        "tokens": rows * (length - 1),
        "loss_tokens": rows * length,
    }
    account |= {"dropped_empty": 0}
    manifest = packed_manifest(
        **account, rows=rows, slots=rows * length, padding_slots=0, segments=rows,
        stored_bytes=rows, by_source={"a": account},
        mask_rate=config.pack.mask_rate if config.train.task == "masked-lm" else 1.0,
    )  # fmt: skip
    unit = {"documents": rows, "bytes": rows}
    ingest = {
        "read": {name: 2 * number for name, number in unit.items()},
        "quarantined": {"documents": 0, "bytes": 0, "by_reason": {}},
        "splits": {s: {**unit, "by_source": {"a": unit}} for s in ("train", "eval")},
    }
    kept = {"in": unit, "kept": {**unit, "raw_bytes": rows}, "dropped": {}}
    curation = {"splits": {s: {"by_source": {"a": kept}} for s in ("train", "eval")}}
    on_cpu = settings.chip == CPU_CHIP
    machine = Machine(
        peak_flops_per_second_per_chip=settings.peak_flops_per_second_per_chip or PEAK,
        memory_bytes_per_device=memory_bytes() if on_cpu else settings.memory_bytes_per_chip,
    )
    packed = {"train": manifest, "eval": manifest}
    ledger = build_ledger(
        complete(IngestCounts, ingest), complete(Curation, curation), packed, settings, machine
    ).to_json()
    arguments = ["plan", "--preset", preset, "--tokens", str(rows * length), "--json"]
    for override in overrides:
        arguments += ["--set", override]
    if on_cpu:
        arguments += ["--set", f"cost.peak_flops_per_second_per_chip={PEAK}"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), ledger


CHANGES = {
    "as it is": (),
    "adapters": (
        "train.lora_rank=8", "model.base_model=/nowhere", "train.precision=bfloat16",
    ),
    "adapters of some": (
        "train.lora_rank=4", 'train.lora_targets=["q", "v"]', "model.base_model=/nowhere",
    ),
    "another run": (
        "cost.chip=h100", "cost.chips=16", "train.precision=mixed_bfloat16",
        "train.rematerialize=true", "train.accumulation_steps=2", "train.dropout=0.1",
        "execution.keep_checkpoints=4", "cost.restart_seconds=120", "cost.chip_mtbf_hours=900",
        "cost.checkpoint_bytes_per_second=3e8",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def needed(tmp_path_factory):
    """What a preset has to be given: those that adapt a model, one of the demo's shape."""
    shape = load_config("demo").shape()
    base = tmp_path_factory.mktemp("base")
    described = ServedModel(
        model_shape=shape, parameters=shape.params_total, quantization="float32"
    )
    (base / "assets.extra").mkdir()
    write_served_model(str(base), described)
    return lambda preset: [f"model.base_model={base}"] if adapts(preset) else []


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("preset", preset_names())
def test_they_say_the_same(preset, change, needed):
    plan, ledger = both(preset, *CHANGES[change], *needed(preset))
    flops, cost, memory = ledger["flops"], ledger["cost"], ledger["memory"]
    hardware, checkpoints = ledger["hardware"], ledger["checkpoints"]
    assert plan["total_flops_exact"] == pytest.approx(flops["total_exact"])
    assert plan["total_flops_6n"] == pytest.approx(flops["total_6n"])
    assert plan["flops_per_token_forward_by_part"] == flops["forward_per_token_by_part"]
    assert plan["flops_per_token_hardware"] == flops["per_token_hardware"]
    assert plan["params_trained"] == ledger["model"]["params_trained"]
    for name in ("mfu", "mfu_low", "mfu_high", "mfu_runs", "hfu"):
        assert plan[name] == pytest.approx(hardware[name]), name
    for name in ("chip_hours", "wall_hours", "compute_usd"):
        for end in ("", "_low", "_high"):
            assert plan[name + end] == pytest.approx(cost[name + end]), name + end
    assert plan["total_usd_low"] == pytest.approx(cost["total_usd_low"])
    assert plan["total_usd_high"] == pytest.approx(cost["total_usd_high"])
    spelled = {"optimizer": "optimiser"}  # as the plan's document always has
    assert plan["memory_gib_by_part"] == {
        spelled.get(name, name): size / 2**30 for name, size in memory["bytes_by_part"].items()
    }
    assert [(line["fits"], line["smallest_chips"]) for line in plan["memory_by_strategy"]] == [
        (line["fits"], line["smallest_chips"]) for line in memory["by_strategy"]
    ]
    for ours, theirs in (
        ("bytes", "checkpoint_bytes"),
        ("write_seconds", "write_seconds"),
        ("interval_seconds", "interval_seconds"),
        ("interval_seconds_young", "young_seconds"),
        ("expected_failures", "expected_failures"),
        ("disk_bytes", "disk_bytes"),
    ):
        assert plan["checkpoints"][ours] == pytest.approx(checkpoints[theirs]), ours
    assert plan["price_usd_per_chip_hour"] == ledger["price"]["usd_per_chip_hour"]
    assert plan["effective_tokens"] == pytest.approx(ledger["training"]["effective_tokens"])
    assert plan["guidance"].keys() == ledger["guidance"].keys()


def test_the_chips_of_the_presets_have_a_published_range():
    for preset in ("gpt2-small", "bert-large"):
        _, ledger = both(preset, "cost.mfu=auto")
        assert ledger["hardware"]["mfu_source"] == "published"
        assert len(ledger["hardware"]["mfu_runs"]) >= 2


@pytest.mark.parametrize("preset", preset_names())
def test_the_settings_reach_the_ledger_step_as_they_are(preset, needed):
    # The step gets them as a JSON string.
    settings = load_config(preset, overrides=needed(preset)).ledger_job()
    assert LedgerJob.from_json(settings.to_json()) == settings


@pytest.mark.parametrize(
    ("overrides", "measures"),
    [
        (("cost.chip=a100", "cost.chips=8"), False),  # not this machine's: the published median
        (("cost.chip=tpu-v4", "cost.chips=64", "train.strategy=multi_worker"), False),
        (("cost.chip=a100", "cost.chips=8", "cost.mfu=measured"), True),
        (("cost.chip=a100", "cost.chips=8", "cost.mfu=0.4"), False),
        ((), True),
        (("cost.mfu=0.4",), False),
    ],
)
def test_a_chip_is_timed_only_where_nothing_is_published_or_it_is_asked_for(
    tmp_path, overrides, measures
):
    steps = create_components(load_config("demo", overrides=list(overrides)), str(tmp_path))
    assert ("Calibrator" in {step.id for step in steps}) is measures
