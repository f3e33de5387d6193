"""`tokenmill plan` from outside: what it prints, its JSON, its errors, what it imports."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from data.catalog.chips import find_chip, load_chips
from pipeline.cli import cli
from pipeline.loader import load_config
from tokenmill.cost.flops import flops_per_token

PAGE = Path(__file__).parents[2] / "docs" / "cost.md"
DOCUMENTED = {
    "params_total",
    "flops_per_token_6n",
    "flops_per_token_exact",
    "total_flops_6n",
    "total_flops_exact",
    "chip_hours",
    "wall_hours",
    "compute_usd",
    "total_usd_low",
    "total_usd_high",
    "mfu",
    "memory_gib_per_chip",
}


def run(arguments):
    return CliRunner().invoke(cli, ["plan", *arguments.split()])


def planned(arguments):
    result = run(f"{arguments} --json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def refused(arguments):
    result = run(arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.output.splitlines()
    assert line.startswith("error: ")
    return line


def shape(keys):
    """--set for keys of [model] and, of a vocabulary, [tokenizer]."""
    sections = {"vocab_size": "tokenizer"}
    return " ".join(
        f"--set {sections.get(key.partition('=')[0], 'model')}.{key}" for key in keys.split()
    )


GPT3 = shape("layers=96 d_model=12288 heads=96 d_ff=49152 vocab_size=50257 sequence_length=2048")
LLAMA7B = shape("layers=32 d_model=4096 heads=32 d_ff=11008 vocab_size=32000 sequence_length=2048")


# ---- speed and imports


def test_it_imports_nothing_heavy():
    code = (
        "import sys; from pipeline.cli import cli\n"
        "try: cli(['plan', '--preset', 'gpt2-small', '--tokens', '2.5B'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'tensorflow', 'tfx', 'apache_beam', 'numpy', 'pandas', 'matplotlib', 'keras'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stderr.strip() == "[]"
    assert "A100 SXM4 80GB" in result.stdout


def test_cpu_seconds_of_a_whole_process_are_below_one():
    before = os.times()
    subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "plan", "--params", "1B", "--tokens", "20B"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    after = os.times()
    used = after.children_user + after.children_system
    assert used - before.children_user - before.children_system < 1


# ---- the design's examples


def test_bert_like_on_an_rtx_3090_takes_9_2_days():
    got = planned(
        "--params 340M --tokens 12.8B --hardware rtx-3090 --mfu 1 "
        "--set cost.peak_flops_per_second_per_chip=33e12"
    )
    assert got["total_flops_6n"] == pytest.approx(2.61e19, rel=1e-3)
    assert got["wall_hours"] / 24 == pytest.approx(9.2, abs=0.05)


def test_palm_at_an_exaflop_takes_702_hours():
    got = planned(
        "--params 540e9 --tokens 780e9 --hardware tpu-v4 --mfu 1 "
        "--set cost.peak_flops_per_second_per_chip=1e18"
    )
    assert got["total_flops_6n"] == pytest.approx(2.53e24, rel=2e-3)
    assert got["wall_hours"] == pytest.approx(702, abs=0.5)


def test_the_price_is_of_a_chip_hour():
    got = planned("--params 540e9 --tokens 780e9 --hardware tpu-v4 --chips 6144 --mfu 0.304")
    assert got["compute_usd"] == pytest.approx(3.22 * got["chip_hours"])
    assert got["chip_hours"] == pytest.approx(6144 * got["wall_hours"])
    assert got["chip_hours"] == pytest.approx(8_404_992, rel=0.005)


# ---- models by shape


@pytest.mark.parametrize(
    ("keys", "params"),
    [
        (
            "layers=96 d_model=12288 heads=96 d_ff=49152 vocab_size=50257 sequence_length=2048",
            175e9,
        ),
        ("layers=32 d_model=4096 heads=32 d_ff=11008 vocab_size=32000", 6.74e9),
        # Touvron et al. 2023, table 2: 65.2e9
        ("layers=80 d_model=8192 heads=64 d_ff=22016 vocab_size=32000", 65.2e9),
        # Jiang et al. 2023 ("Mistral 7B"): 7.24e9
        (
            "layers=32 d_model=4096 heads=32 kv_heads=8 d_ff=14336 vocab_size=32000",
            7.24e9,
        ),
        # Devlin et al. 2019, BERT-base: "110M", 109.5e6 in the released weights
        (
            "layers=12 d_model=768 heads=12 d_ff=3072 vocab_size=30522 sequence_length=512 "
            "causal=false",
            109.5e6,
        ),
        # Gemma team 2024, Gemma 7B: 8.54e9, heads wider than d_model / heads
        (
            "layers=28 d_model=3072 heads=16 head_dim=256 d_ff=24576 vocab_size=256000 "
            "mlp=geglu style=llama tie_embeddings=true",
            8.54e9,
        ),
        # Rae et al. 2021, Gopher 280B with relative positions
        (
            "layers=80 d_model=16384 heads=128 d_ff=65536 vocab_size=32000 "
            "positions=relative norm=rms",
            280e9,
        ),
        # Workshop et al. 2022, BLOOM: 176.2e9, ALiBi
        (
            "layers=70 d_model=14336 heads=112 d_ff=57344 vocab_size=250880 positions=alibi",
            176.2e9,
        ),
        # Almazrouei et al. 2023, Falcon-40B: 41.8e9 with 8 key heads, no biases
        (
            "layers=60 d_model=8192 heads=128 kv_heads=8 vocab_size=65024 use_bias=false "
            "positions=rope tie_embeddings=false",
            41.8e9,
        ),
        # Muennighoff et al. 2024, OLMoE: 6.9e9
        (
            "layers=16 d_model=2048 heads=16 d_ff=1024 vocab_size=50304 experts=64 "
            "experts_per_token=8",
            6.9e9,
        ),
        # Jiang et al. 2024, Mixtral 8x7B: 46.7e9
        (
            "layers=32 d_model=4096 heads=32 kv_heads=8 d_ff=14336 vocab_size=32000 experts=8 "
            "experts_per_token=2",
            46.7e9,
        ),
        # Qwen1.5-MoE-A2.7B: 14.3e9, four shared experts
        (
            "layers=24 d_model=2048 heads=16 d_ff=5632 vocab_size=151936 experts=60 "
            "experts_per_token=4 shared_experts=4 expert_d_ff=1408",
            14.3e9,
        ),
        # Dai et al. 2024, DeepSeekMoE: 16.4e9, the first layer dense
        (
            "layers=28 d_model=2048 heads=16 d_ff=10944 vocab_size=102400 experts=64 "
            "experts_per_token=6 shared_experts=2 expert_d_ff=1408 first_dense_layers=1",
            16.4e9,
        ),
        # Raffel et al. 2020, T5-11B
        (
            "layers=24 encoder_layers=24 d_model=1024 heads=128 head_dim=128 "
            "d_ff=65536 vocab_size=32128 style=gpt use_bias=false norm=rms positions=none",
            11.3e9,
        ),
    ],
)
def test_published_shapes_have_their_parameters(keys, params):
    got = planned(f"{shape(keys)} --tokens 1e12 --mfu 0.4")
    assert got["params_total"] == pytest.approx(params, rel=0.01)
    assert not got["exact_is_approximate"]


def test_published_bills_kept_out_of_the_catalog():
    """LLaMA 65B: 380 tokens/s a GPU on 2,048 GPUs; about 21 days for 1.4e12 tokens."""
    llama65b = shape(
        "layers=80 d_model=8192 heads=64 d_ff=22016 vocab_size=32000 sequence_length=2048"
    )
    got = planned(
        f"{llama65b} --tokens 1.4T --hardware a100-80gb --chips 2048 "
        f"--observed-tokens-per-second {380 * 2048}"
    )
    assert got["chip_hours"] == pytest.approx(1_022_362, rel=0.03)
    assert got["wall_hours"] / 24 == pytest.approx(21, rel=0.03)
    assert 0.4 < got["mfu"] < 0.56
    default = planned(f"{llama65b} --tokens 1.4T --hardware a100-80gb --chips 2048")
    assert default["chip_hours"] == pytest.approx(1_022_362, rel=0.4)


def test_hfu_and_tflops_per_chip():
    # Narayanan et al. 2021, eq. 4 and table 2: GPT-3 175B at 140 TFLOP/s a GPU (recomputation
    # counted), 1,024 A100, 300e9 tokens: 34 days.
    got = planned(f"{GPT3} --tokens 300B --chips 1024 --recompute full --hfu {140 / 312}")
    assert got["wall_hours"] / 24 == pytest.approx(34, rel=0.03)
    assert got["hfu"] == pytest.approx(140 / 312)
    model_rate = planned(f"{GPT3} --tokens 300B --chips 1024 --tflops-per-chip 100")
    assert model_rate["mfu"] == pytest.approx(100 / 312)


# ---- presets, and agreement with the ledger


@pytest.mark.parametrize("preset", ["demo", "gpt2-small", "bert-large"])
def test_a_preset_is_counted_as_the_ledger_counts_it(preset):
    config = load_config(preset)
    shape = config.shape()
    got = planned(f"--preset {preset} --tokens 1e9")
    assert got["params_total"] == shape.params_total
    assert got["flops_per_token_exact"] == flops_per_token(shape).training
    if isinstance(config.cost.mfu, float):
        assert got["mfu"] == config.cost.mfu
    assert got["goodput"] == config.cost.goodput
    assert got["hardware"] == config.cost.chip


def test_a_toml_file_and_set(tmp_path):
    config = tmp_path / "mine.toml"
    config.write_text('[model]\nlayers = 2\n[cost]\nchip = "t4"\nchips = 4\n')
    got = planned(f"--config {config} --tokens 1e9")
    assert (got["shape"]["layers"], got["hardware"], got["chips"]) == (2, "t4", 4)
    more = planned(f"--config {config} --set model.layers=3 --tokens 1e9 --chips 8")
    assert (more["shape"]["layers"], more["chips"]) == (3, 8)


def test_other_hardware_leaves_the_presets_mfu_and_price_behind():
    got = planned("--preset gpt2-small --tokens 1e9 --hardware h100")
    assert got["mfu_runs"]
    assert got["price_usd_per_chip_hour"] == find_chip("h100").price_usd_per_chip_hour
    assert got["goodput"] == 1


# ---- the answer


def test_documented_keys_are_there_and_are_numbers():
    for model in ("--params 1B", LLAMA7B, "--preset gpt2-small"):
        got = planned(f"{model} --tokens 20B")
        assert set(got) >= DOCUMENTED
        for key in DOCUMENTED:
            assert isinstance(got[key], int | float), key
        assert got["total_usd_low"] == pytest.approx(2 * got["compute_usd"])
        assert got["total_usd_high"] == pytest.approx(5 * got["compute_usd"])


def test_every_key_of_the_json_is_documented():
    words = PAGE.read_text(encoding="utf-8")
    got = planned("--params 1B --tokens 20B --budget-usd 100 --compare --set cost.goal=fine_tune")
    for key in got:
        assert f"`{key}`" in words, key


def test_every_flag_is_documented():
    words = PAGE.read_text(encoding="utf-8")
    for parameter in cli.commands["plan"].params:
        for option in (*parameter.opts, *parameter.secondary_opts):
            assert f"`{option}" in words, option


def test_text_bytes_are_divided_by_bytes_per_token():
    got = planned("--params 1B --text-bytes 50GB --bytes-per-token 4")
    assert got["tokens"] == 12.5e9
    assert planned("--params 1B --text-bytes 50GB")["tokens"] == 12.5e9
    assert planned("--params 1B --text-bytes 1GiB")["tokens"] == 2**28


def test_a_range_shows_its_n():
    got = planned("--params 7B --tokens 1T --hardware a100")
    assert got["mfu_low"] < got["mfu"] < got["mfu_high"]
    assert f"{len(got['mfu_runs'])} published bills" in got["mfu_source"]
    output = run("--params 7B --tokens 1T --hardware a100").output
    assert f"median of {len(got['mfu_runs'])} published bills (ampere chips" in output
    assert "likely" in output


def test_the_table_stays_within_100_columns_and_names_what_counts():
    for extra in (
        "",
        " --compare",
        " --budget-usd 500",
        " --set cost.goal=domain_adaptive --epochs 6",
    ):
        output = run(f"--params 1.5B --tokens 30B --chips 8 --recompute full{extra}").output
        assert max(map(len, output.splitlines())) <= 100
        for words in ("FLOPs in all", "chip-hours", "with hidden costs x 2", "HFU", "save every"):
            assert words in output


def test_compare_ranks_every_chip_with_a_peak():
    got = planned("--params 1B --tokens 20B --compare")["comparison"]
    assert len(got) == sum(chip.peak_flops_per_second is not None for chip in load_chips())
    costs = [line["compute_usd"] for line in got if line["compute_usd"] is not None]
    assert costs == sorted(costs)


def test_a_budget_alone_is_inverted():
    got = planned("--budget-usd 1000 --hardware rtx-4090")
    assert got["compute_usd"] == pytest.approx(1000)
    (best,) = got["affordable"]
    assert best["params"] == got["params_total"]
    assert 10 < best["tokens_per_param"] < 40


def test_a_budget_with_a_model_or_tokens_or_both():
    model = planned("--budget-usd 1000 --params 1B")
    assert model["compute_usd"] == pytest.approx(1000)
    tokens = planned("--budget-usd 1000 --tokens 10B")
    assert tokens["compute_usd"] == pytest.approx(1000)
    assert tokens["tokens"] == 10e9
    both = planned("--budget-usd 1000 --params 1B --tokens 100B")
    assert both["within_budget"] is False
    assert len(both["affordable"]) == 3
    assert planned("--budget-usd 1e6 --params 1B --tokens 1B")["within_budget"] is True


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_plot(tmp_path, kind):
    file = tmp_path / f"cost.{kind}"
    output = run(f"--params 1B --tokens 20B --plot {file}").output
    assert f"Wrote {file}".replace("\n", "") in output.replace("\n", "")
    assert file.read_bytes()[:4] in (b"\x89PNG", b"<?xm", b"%PDF")
    assert file.stat().st_size < 150_000
    assert list(tmp_path.iterdir()) == [file]


# ---- warnings and errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--price-per-chip-hour 2", "the price has no date"),
        ("--hardware mi250x", "has no date"),
        ("--hardware gaudi2", "no price for gaudi2"),
        ("--mfu 0.9", "more than any published run"),
        ("--price-per-chip-hour 98.32", "price of a whole machine"),
        ("--hardware v100 --set train.precision=mixed_bfloat16", "has no bfloat16"),
        ("--epochs 5", "beyond about 4"),
        ("--goodput 0.9", "comes on top"),
        ("", "only --params is known"),
        ("", "--hardware a100-sxm4-80gb assumed"),
    ],
)
def test_what_is_odd_is_allowed_and_flagged(arguments, words):
    got = planned(f"--params 1B --tokens 20B {arguments}")
    assert any(words in note for note in got["warnings"])


def test_a_dated_price_is_not_flagged():
    got = planned("--params 1B --tokens 20B --price-per-chip-hour 2 --price-date 2026-01")
    assert not any("date" in note for note in got["warnings"])
    assert got["price_source"] == "given, 2026-01"


def test_a_price_can_be_chosen_by_its_provider():
    got = planned("--params 1B --tokens 20B --hardware h100 --price-from lambda")
    assert got["price_usd_per_chip_hour"] == 3.99
    assert got["price_source"].startswith("Lambda")


ONE = "--params 1B --tokens 20B"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "no model is given"),
        ("--params 1B", "--tokens is missing"),
        (f"{ONE} --hardware rtx-3091", "--hardware = 'rtx-3091'"),
        (f"{ONE} --hardware rtx-3091", "rtx-3090"),
        ("--params 0 --tokens 1e9", "--params = '0'"),
        ("--params 12 --tokens 1e9", "--params = 12"),
        ("--params 1e30 --tokens 1e9", "--params = '1e30'"),
        ("--params 1B --tokens -5", "--tokens = '-5'"),
        ("--params 1B --tokens 1e30", "--tokens = '1e30'"),
        ("--params 1B --tokens many", "--tokens = 'many'"),
        ("--params 1B --tokens 5Q", "--tokens = '5Q'"),
        ("--params 1B --tokens 100", "--tokens: 100 tokens are fewer than one batch"),
        (f"{ONE} --chips 0", "--chips = '0'"),
        (f"{ONE} --chips 1.5", "--chips = '1.5'"),
        (f"{ONE} --chips 1e9", "--chips = '1e9'"),
        (f"{ONE} --mfu 40", "write 40 % as 0.4"),
        (f"{ONE} --mfu 0", "--mfu = '0'"),
        (f"{ONE} --mfu nan", "--mfu = 'nan'"),
        (f"{ONE} --goodput 1.2", "--goodput = '1.2'"),
        (f"{ONE} --epochs 0", "--epochs = '0'"),
        (f"{ONE} --price-per-chip-hour -1", "--price-per-chip-hour = '-1'"),
        (f"{ONE} --price-per-chip-hour 1e6", "--price-per-chip-hour = '1e6'"),
        (f"{ONE} --price-date 2026", "--price-date needs"),
        (f"{ONE} --price-from nobody", "--price-from = 'nobody'"),
        (f"{ONE} --price-from aws --price-per-chip-hour 1", "--price-from contradicts"),
        (f"{ONE} --text-bytes 4GB", "--tokens contradicts --text-bytes"),
        (f"{ONE} --mfu 0.3 --hfu 0.4", "--mfu contradicts --hfu"),
        (f"{ONE} --tflops-per-chip 400", "--tflops-per-chip = 400"),
        (f"{ONE} --observed-tokens-per-second 1e9", "--observed-tokens-per-second"),
        (f"{ONE} --set model.layers=3", "model.layers contradicts --params"),
        (f"{ONE} --active-params 2B", "--active-params = 2e+09"),
        (
            f"{ONE} --set cost.hidden_cost_multiplier_low=0.5",
            "cost.hidden_cost_multiplier_low = 0.5",
        ),
        (
            f"{ONE} --set cost.hidden_cost_multiplier_high=1.5",
            "cost.hidden_cost_multiplier_high = 1.5",
        ),
        (f"{ONE} --budget-usd 0", "--budget-usd = '0'"),
        (f"{ONE} --budget-usd 5 --price-per-chip-hour 0", "--budget-usd needs a price"),
        ("--budget-usd 1e-9", "too few for any model"),
        (f"{ONE} --plot cost.gif", "--plot = 'cost.gif'"),
        (f"{ONE} --plot /nowhere/cost.png", "--plot = '/nowhere/cost.png'"),
        ("--tokens 1e9 --set model.layers", "--set model.layers: expected section.key=value"),
        ("--preset demo --tokens 1e9 --params 1B", "--params contradicts --preset"),
        ("--preset demos --tokens 1e9", "--preset"),
        ("--preset demo --config x.toml --tokens 1e9", "--preset contradicts --config"),
        ("--config /nowhere.toml --tokens 1e9", "--config"),
        ("--preset demo --set model.layers=0 --tokens 1e9", "model.layers"),
        ("--set model.layers=3 --tokens 1e9", "model.d_model is missing"),
        (
            "--set model.layers=2 --set model.d_model=100 --set model.heads=3 --tokens 1e9",
            "model.heads = 3",
        ),
        (f"{LLAMA7B} --set model.kv_heads=5 --tokens 1e9", "model.kv_heads = 5"),
        (
            f"{LLAMA7B} --set model.causal=false --set model.encoder_layers=3 --tokens 1e9",
            "model.causal = false contradicts",
        ),
        (
            f"{LLAMA7B} --set model.encoder_token_share=0.5 --tokens 1e9",
            "model.encoder_token_share needs",
        ),
        (f"{ONE} --lora-rank 0", "--lora-rank = '0'"),
        (f"{ONE} --lora-rank 2.5", "--lora-rank = '2.5'"),
        (f"{ONE} --lora-rank 8 --set train.lora_rank=4", "--lora-rank contradicts --set train"),
        ("--tokens 1e9 --lora-rank 8", "adapters need a model"),
        ("--preset gpt2-small --tokens 1e9 --lora-rank 900", "expected at most 768"),
        ("--tokens 1e9 --set model.base_model=/nowhere", "model.base_model = /nowhere"),
    ],
)
def test_bad_input_is_one_line_that_names_the_flag(arguments, words):
    assert words in refused(arguments)


def test_help_shows_the_flags_in_groups():
    lines = run("--help").output.splitlines()
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Model:", "Work:", "Machine:", "Money:", "Output:", "Help:"]
    flags = [line.split()[0] for line in lines if line.startswith("  --")]
    assert len(flags) == len(set(flags)) == 28


# ---- former flags

SMALL = "--tokens 1e9 --hardware a100 --set model.layers=12 --set model.d_model=768"
TWO_STACKS, EXPERTS = shape("encoder_layers=6"), shape("experts=4 experts_per_token=1")


@pytest.mark.parametrize(
    ("former", "key", "value", "more"),
    [
        ("--layers 24", "shape.layers", 24, ""),
        ("--d-model 512", "shape.d_model", 512, ""),
        ("--heads 6", "shape.heads", 6, ""),
        ("--kv-heads 4", "shape.kv_heads", 4, ""),
        ("--head-dim 32", "shape.head_dim", 32, ""),
        ("--d-ff=2048", "shape.d_ff", 2048, ""),
        ("--vocab 50,000", "shape.vocab", 50_000, ""),
        ("--seq-len 1M", "shape.seq_len", 1_000_000, ""),
        ("--style llama", "shape.norm", "rms", ""),
        ("--mlp geglu", "shape.mlp", "swiglu", ""),
        ("--norm rms", "shape.norm", "rms", ""),
        ("--positions alibi", "shape.positions", "rope", ""),
        ("--bias", "shape.use_bias", True, "--set model.style=llama"),
        ("--no-bias", "shape.use_bias", False, ""),
        ("--tied", "shape.tied", True, "--set model.style=llama"),
        ("--untied", "shape.tied", False, ""),
        ("--encoder", "shape.causal", False, ""),
        ("--encoder-layers 12", "params_by_part.mlp", 2 * 56_669_184, TWO_STACKS),
        ("--encoder-token-share 80%", "flops_per_token_forward_by_part.mlp", None, TWO_STACKS),
        ("--experts 8", "params_total", None, EXPERTS),
        ("--experts-per-token 2", "params_active", None, EXPERTS),
        ("--peak-tflops 33", "peak_flops_per_second_per_chip", 33e12, ""),
        ("--precision float32", "precision", "float32", ""),
        ("--batch-size 64", "sequences_per_copy", 64, ""),
        (
            "--goal domain-adapt",
            "guidance.goal.goal",
            "domain_adaptive",
            "--set cost.goal=fine_tune",
        ),
        ("--hidden-cost-low 1.5", "hidden_cost_multiplier_low", 1.5, ""),
        ("--hidden-cost-high 9", "hidden_cost_multiplier_high", 9, ""),
        ("--storage-usd-per-gb-month 0.05", "storage_usd", None, ""),
        ("--network-usd-per-gb 0", "network_usd", 0, ""),
        ("--checkpoint-write-gb-per-second 2", "checkpoints.write_seconds", None, ""),
        ("--chip-mtbf-hours 900", "checkpoints.mtbf_hours", 900, ""),
        ("--checkpoints-kept 5", "checkpoints.disk_bytes", None, ""),
    ],
)
def test_a_former_flag_names_the_key_that_does_the_same(former, key, value, more):
    """What the error says to write reaches the plan; where no value is given, it changes one."""

    def at(document):
        for name in key.split("."):
            document = document[name]
        return document

    flag, _, override = refused(f"{SMALL} {former}").removeprefix("error: ").partition(": now ")
    assert former.startswith(flag)
    after = at(planned(f"{SMALL} {more} {override}"))
    assert after != at(planned(f"{SMALL} {more}"))
    assert value is None or after == value


def test_an_unknown_flag_is_clicks_to_refuse():
    assert "No such option '--leyers'" in run(f"{SMALL} --leyers 3").output


def test_keys_of_a_plan_go_on_top_of_a_preset():
    got = planned("--preset gpt2-small --tokens 1e9 --set model.mlp=swiglu --set model.head_dim=32")
    assert (got["shape"]["mlp"], got["shape"]["head_dim"]) == ("swiglu", 32)
    sparse = planned("--preset gpt2-small --tokens 1e9 " + EXPERTS)
    assert sparse["params_active"] < sparse["params_total"]


def test_published_laws_are_applied_to_what_a_token_passes_and_said_so():
    arguments = "--params 100M --active-params 30M --tokens 1e9"
    said = " ".join(run(arguments).output.split())
    assert "unknown: the published fits begin at 40M active parameters" in said
    arguments = "--params 8e9 --active-params 1e9 --tokens 20e9"
    said = " ".join(run(arguments).output.split())
    assert "effective tokens an active parameter 20" in said
    assert "a mixture of experts with as many comes out below them" in said
    of_sparse, of_dense = (
        planned(given)["guidance"]["expected_loss"]["nats_per_token"]
        for given in (arguments, "--params 1e9 --tokens 20e9")
    )
    assert of_sparse == of_dense
    assert "active" not in run("--params 1e9 --tokens 20e9").output


def test_what_set_says_holds_on_other_hardware():
    got = planned(
        "--preset gpt2-small --tokens 1e9 --hardware h100 "
        "--set cost.peak_flops_per_second_per_chip=500T"
    )
    assert (got["peak_flops_per_second_per_chip"], got["chips"]) == (500e12, 1)


def shown_commands():
    """Each `$ tokenmill plan ...` of docs/cost.md with the lines shown beneath it."""
    blocks = PAGE.read_text(encoding="utf-8").split("```\n")[1::2]
    for block in blocks:
        first, *lines = block.replace(" \\\n", "").rstrip("\n").split("\n")
        assert first.startswith("$ tokenmill plan ")
        yield first.removeprefix("$ tokenmill plan "), lines


@pytest.mark.parametrize(("arguments", "lines"), shown_commands())
def test_the_page_shows_what_the_command_prints(arguments, lines):
    printed = run(arguments).output.split("\n")
    start = printed.index(lines[0])
    assert printed[start : start + len(lines)] == lines


def test_the_page_shows_many_commands():
    assert len(list(shown_commands())) == 6


def test_spending_a_whole_budget_is_within_it():
    for dollars in (1, 7, 33, 100, 123.45, 1e6):
        got = planned(f"--preset gpt2-small --budget-usd {dollars}")
        assert got["within_budget"] is True
        assert got["compute_usd"] == pytest.approx(dollars)
        over = run(f"--preset gpt2-small --tokens 1T --budget-usd {dollars}")
        assert ("over the budget" in over.output) is (dollars < 1e6)
    assert planned("--preset gpt2-small --tokens 1T --budget-usd 100")["within_budget"] is False


def test_a_goal_that_starts_from_weights_has_no_loss_of_training_from_scratch():
    for goal in ("fine_tune", "domain_adaptive"):
        output = run(f"--params 1B --tokens 1B --set cost.goal={goal}").output
        assert "nats a token" not in output
        assert "compute-optimal" not in output
        assert "unknown: the published fits are of training from scratch" in output
    assert "nats a token" in run("--params 1B --tokens 1B --set cost.goal=from_scratch").output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--params 8x7B --tokens 1T", ["mixture of experts", "--active-params", "experts=8"]),
        ("--params 8x22b --tokens 1T", ["mixture of experts", "model.experts=8"]),
        ("--params 1B --tokens 1B --hardware tpu-v3-8", ["slice of 4 chips of tpu-v3"]),
        ("--params 1B --tokens 1B --hardware v4-512", ["slice of 256 chips of tpu-v4"]),
        ("--params 1B --tokens 1B --hardware tpu-v5e-16", ["slice of 16 chips of tpu-v5e"]),
        ("--tokens 1B --set model.layers=0 --set model.d_model=64", ["layers = 0", "greater than"]),
        ("--preset gpt3 --tokens 1B", ["no preset 'gpt3'. Presets: adapt-bert, "]),
        (
            "--preset gpt2-small --tokens 1B --set model.heads=7",
            ["error: the configuration", "model.heads = 7", "choose --set model.heads=6 or"],
        ),
    ],
)
def test_a_slip_is_answered_with_what_to_type(arguments, words):
    line = refused(arguments)
    for each in words:
        assert each in line, line


def test_what_a_plan_assumes_or_leaves_out_is_said():
    def notes(arguments):
        return planned(f"--preset gpt2-small --tokens 1B {arguments}")["warnings"]

    idle = "--set curate.min_words=5 --set train.learning_rate=1 --set train.dropout=0.1"
    assert "no effect on a plan: curate.min_words, train.learning_rate" in notes(idle)
    assert not [note for note in notes("--set cost.goodput=0.9") if "no effect" in note]
    dearest = [note for note in notes("--hardware h100") if "dearest" in note]
    assert "to $12.29" in dearest[0]
    assert "--price-from" in dearest[0]
    assert not [note for note in notes("--hardware h100 --price-from lambda") if "dearest" in note]


def test_masked_lm_is_planned_by_its_hidden_tokens():
    got = planned("--preset bert-base --tokens 1B --hardware a100")
    assert got["effective_tokens"] == pytest.approx(0.15e9)
    assert planned("--preset gpt2-small --tokens 1B")["effective_tokens"] == 1e9


# ---- adapters beside frozen weights

GOLDEN = Path(__file__).parents[1] / "checkpoints" / "golden"


def test_lora_rank_is_the_key_of_a_run():
    of_gpt2 = "--preset gpt2-small --tokens 1B --hardware h100 --set train.precision=bfloat16"
    whole, adapted = planned(of_gpt2), planned(f"{of_gpt2} --lora-rank 8")
    assert planned(f"{of_gpt2} --set train.lora_rank=8") == adapted
    # A and B of each of q, k, v, o (768 x 768), up and down (768 x 3,072), in 12 layers.
    trained = 12 * 8 * (4 * (768 + 768) + 2 * (768 + 3072))
    assert adapted["params_trained"] == trained
    assert whole["params_trained"] == whole["params_total"] == adapted["params_total"]
    # A frozen weight is multiplied by twice, forward and for the inputs' gradient; not for its own.
    total = adapted["params_total"]
    assert adapted["flops_per_token_6n"] == pytest.approx(4 * total + 6 * trained)
    parts = adapted["memory_gib_by_part"]
    assert parts["frozen_weights"] * 2**30 == pytest.approx(2 * total, rel=0.01)
    assert parts["gradients"] * 2**30 == pytest.approx(4 * trained, rel=0.01)
    assert parts["optimiser"] * 2**30 == pytest.approx(8 * trained, rel=0.01)
    assert adapted["compute_usd"] < 0.8 * whole["compute_usd"]
    assert adapted["checkpoints"]["bytes"] == 12 * trained
    fewer = planned(f"{of_gpt2} --lora-rank 8 --set train.lora_targets=['q','v']")
    assert fewer["params_trained"] == 12 * 8 * 2 * (768 + 768)


@pytest.mark.parametrize("family", ["llama", "qwen3", "bert-mlm"])
def test_an_open_model_is_planned_by_its_own_shape(family):
    directory = GOLDEN / family
    config = json.loads((directory / "config.json").read_text())
    task = " --set train.task=masked-lm" if family == "bert-mlm" else ""
    got = planned(
        f"--tokens 1M --hardware h100 --set model.base_model={directory} --lora-rank 2"
        f" --set model.sequence_length=16{task}"
    )
    shape = got["shape"]
    assert shape["layers"] == config["num_hidden_layers"]
    assert shape["d_model"] == config["hidden_size"]
    assert shape["vocab"] == config["vocab_size"]
    assert 0 < got["params_trained"] < got["params_total"]
    assert not [note for note in got["warnings"] if "no effect" in note or "assumed" in note]


# ---- limits of [budget], and what a signer asks

BILL = "--params 7B --tokens 300B --hardware h100 --chips 256 --price-from lambda"


@pytest.mark.parametrize(
    ("limits", "code", "words"),
    [
        ({"max_usd": 1e6}, 0, "the worst, is within it."),
        ({"max_usd": 8e4}, 0, "is within it; the worst, $101,564, is not."),
        ({"max_usd": 5e4}, 1, "budget.max_usd = $50,000: $66,925, which is likely, is over it."),
        ({"max_usd": 1e6, "max_hours": 48}, 1, "budget.max_hours = 48.0 h: 65.5 h, which is"),
    ],
)
def test_a_plan_over_a_limit_of_the_configuration_says_so_and_fails(limits, code, words, tmp_path):
    keys = " ".join(f"--set budget.{key}={value}" for key, value in limits.items())
    result = run(f"{BILL} {keys}")
    assert result.exit_code == code
    assert words in result.output
    assert "no effect on a plan" not in result.output
    (tmp_path / "limits.toml").write_text(
        "[budget]\n" + "".join(f"{key} = {value}\n" for key, value in limits.items())
    )
    file = f"--config {tmp_path / 'limits.toml'} --set model.layers=2 --set model.d_model=64"
    assert "budget.max_usd" in run(f"{file} --tokens 1B --hardware h100").output
    document = run(f"{BILL} {keys} --json")
    assert document.exit_code == code
    found = {limit["key"]: limit for limit in json.loads(document.output)["limits"]}
    assert [found[f"budget.{key}"]["limit"] for key in limits] == list(limits.values())
    assert all(limit["within"] for limit in found.values()) is (code == 0)


def test_a_limit_of_money_needs_a_price():
    assert "budget.max_usd = 5 needs a price" in refused(
        "--params 1B --tokens 20B --hardware gaudi2 --set budget.max_usd=5"
    )


@pytest.mark.parametrize(
    ("dollars", "words"),
    [(6e4, "over the budget"), (8e4, "as likely, and at the worst $21,564 over it"),
     (2e5, "within the budget, at the worst too")],
)  # fmt: skip
def test_whether_a_plan_is_within_budget_usd_is_said(dollars, words):
    assert words in run(f"{BILL} --budget-usd {dollars}").output


def test_the_published_bills_are_named():
    output = " ".join(run(BILL).output.split())
    for name in planned(BILL)["mfu_runs"]:
        assert name in output


def test_a_price_can_be_chosen_by_its_date():
    got = planned("--params 1B --tokens 20B --hardware h100 --price-from 2026-05-18")
    assert got["price_usd_per_chip_hour"] == 2.99
    assert not any("--price-from" in note for note in got["warnings"])
    first = planned("--params 1B --tokens 20B --hardware h100 --price-from lambda")
    assert any("is also" in n and "$2.99 (Lambda, 2026-05-18)" in n for n in first["warnings"])


def test_notes_on_slow_or_idle_chips_say_what_to_set():
    slow = f"{LLAMA7B} --tokens 1e9 --hardware h100 --set train.precision=float32"
    (note,) = [n for n in planned(slow)["warnings"] if "TFLOP/s peak" in n]
    assert note.endswith("--set train.precision=mixed_bfloat16 runs at 989")
    idle = f"{LLAMA7B} --tokens 1e9 --chips 64 --set train.global_batch_size=16"
    assert any("global_batch_size=64" in note for note in planned(idle)["warnings"])
