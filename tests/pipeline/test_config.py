import pytest
import tomli
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.cli import cli
from pipeline.config import Config
from pipeline.loader import ConfigError, dump_config, load_config, preset_names
from tokenmill.contracts.served_model import ServedModel, write_served_model
from tokenmill.model.lora import trained_params_by_part


@pytest.mark.parametrize(
    ("preset", "params"),
    # GPT-2 small is exact (Radford et al. 2019). BERT-large's published 340M (335M by its shape)
    # has segment embeddings and a pooler, which this encoder has not.
    [("demo", None), ("gpt2-small", 124_439_808), ("bert-large", 334_000_000)],
)
def test_presets_are_whole_configurations(preset, params):
    config = load_config(preset)
    assert config.run.name == preset
    if params is not None:
        assert config.shape().params_total == pytest.approx(params, rel=0.005)


def test_these_are_the_presets():
    assert preset_names() == [
        "adapt-bert", "adapt-llama", "bert-base", "bert-large", "demo", "gpt2-small",
    ]  # fmt: skip


@pytest.mark.parametrize("preset", ["adapt-bert", "adapt-llama"])
def test_a_preset_to_adapt_a_model_needs_one(preset):
    with pytest.raises(ConfigError, match=rf"{preset}: model\.base_model is not set") as caught:
        load_config(preset)
    assert caught.value.hint == "--set model.base_model=DIR"
    result = CliRunner().invoke(cli, ["plan", "--preset", preset, "--tokens", "1e9"])
    assert result.exit_code == 2
    assert "model.base_model is not set" in result.output
    unreadable = ["--set", "model.base_model=/nowhere"]
    result = CliRunner().invoke(cli, ["plan", "--preset", preset, "--tokens", "1e9", *unreadable])
    assert "model.base_model = /nowhere: there is no model" in result.output


def test_adapt_llama_trains_adapters_of_the_model_that_it_is_given(tmp_path):
    shape = load_config("demo", overrides=["model.d_model=128", "model.d_ff=384"]).shape()
    (tmp_path / "assets.extra").mkdir()
    model = ServedModel(model_shape=shape, parameters=shape.params_total, quantization="float32")
    write_served_model(str(tmp_path), model)
    config = load_config("adapt-llama", overrides=[f"model.base_model={tmp_path}"])
    assert config.shape() == shape
    assert config.tokenizer.path == f"{tmp_path}/assets.extra/tokenizer.model"
    lora = config.train.lora
    assert (lora.rank, lora.alpha, lora.targets) == (16, 32.0, None)
    # q, k, v and o of 128 x 128, up and down of 128 x 384, in 4 layers.
    trained = trained_params_by_part(shape, lora)
    assert sum(trained.values()) == 4 * 16 * (4 * 256 + 2 * 512)


def test_config_is_frozen():
    with pytest.raises(ValidationError):
        load_config().train.epochs = 2.0


def number_keys():
    for section, field in Config.model_fields.items():
        for key, inner in field.annotation.model_fields.items():
            if "float" in str(inner.annotation) and "[str, " not in str(inner.annotation):
                yield f"{field.alias or section}.{key}"


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e999"])
def test_no_number_is_infinite_or_none_at_all(value):
    keys = [*number_keys(), "pack.source_weights.a", "engine.resources.Trainer.cpu"]
    assert len(keys) > 60
    for key in keys:
        with pytest.raises(ConfigError, match=key):
            load_config(overrides=[f"{key}={value}"])


BASE = "model.base_model=/nowhere"


def test_adapters_are_configured():
    assert load_config().train.lora is None
    lora = load_config(overrides=[BASE, "train.lora_rank=8"]).train.lora
    assert (lora.scale, lora.targets) == (2.0, None)
    given = [BASE, "train.lora_rank=8", "train.lora_alpha=4", 'train.lora_targets=["q", "v"]']
    config = load_config(overrides=given)
    assert (config.train.lora.scale, config.train.lora.targets) == (0.5, ("q", "v"))
    assert list(config.train.lora.adapted(config.shape())) == ["q", "v"]
    assert config.training_job().from_json(config.training_job().to_json()) == config.training_job()
    assert config.ledger_job().lora == config.train.lora


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.lora_rank=8"], "train.lora_rank = 8.*set model.base_model"),
        (["train.lora_alpha=8"], "train.lora_alpha = 8.0.*train.lora_rank"),
        ([BASE, "train.lora_rank=8", 'train.lora_targets=["gate"]'], "no 'gate' with model.mlp"),
        ([BASE, "train.lora_rank=8", "train.lora_targets=[]"], "train.lora_targets"),
        ([BASE, "train.lora_rank=8", 'train.lora_targets=["query"]'], "train.lora_targets"),
        ([BASE, "train.lora_rank=-1"], "train.lora_rank"),
        ([BASE, "train.lora_rank=1000"], "train.lora_rank = 1000.*at most 256"),
    ],
)
def test_adapters_of_nothing_are_refused(overrides, words):
    with pytest.raises(ConfigError, match=words):
        load_config(overrides=overrides)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.prune_sparsity=1"], "train.prune_sparsity"),
        ([BASE, "train.lora_rank=8", "train.prune_sparsity=0.5"], "prune_sparsity = 0.5.*lora"),
        (['train.prune_pattern="2:4"'], "train.prune_sparsity = 0.0: expected 0.5"),
        (["train.prune_sparsity=0.6", 'train.prune_pattern="2:4"'], "= 0.6: expected 0.5"),
        (
            ["train.prune_sparsity=0.5", 'train.prune_pattern="2:4"', "model.d_ff=1022"],
            "model.d_ff = 1022: expected a multiple of 4",
        ),
    ],
)
def test_pruning_that_does_not_fit_is_refused(overrides, words):
    with pytest.raises(ConfigError, match=words):
        load_config(overrides=overrides)


def test_dump_reads_back_as_the_same_config(tmp_path):
    config = load_config("gpt2-small", overrides=["curate.min_words=off", "run.seed=7"])
    path = tmp_path / "config.toml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(config_path=str(path)) == config


def test_overrides_later_wins_and_bare_words_are_strings():
    config = load_config(
        overrides=["train.epochs=2", "train.epochs=3", "tokenizer.model_type=unigram"]
    )
    assert config.train.epochs == 3.0
    assert config.tokenizer.model_type == "unigram"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trian.epochs=1", ["unknown section trian", "did you mean train?", "tokenizer"]),
        ("push.weights=int8", ["push.weights is called push.quantization now"]),
        ("train.epoch=1", ["unknown key train.epoch", "did you mean epochs?", "global_batch_size"]),
        ("train.epochs=many", ["train.epochs = 'many'", "number"]),
        ("train.epochs=-1", ["train.epochs = -1", "greater than 0"]),
        ("train.task=causal_lm", ["train.task", "causal-lm, masked-lm", "did you mean causal-lm?"]),
        ("model.heads=3", ["heads = 3", "256"]),
        ("curate.min_words=-5", ["curate.min_words = -5", "greater than or equal to 0"]),
        ("curate.min_words=of", ["curate.min_words = 'of'", "off"]),
        ("run.name=No Spaces", ["run.name", "no-spaces"]),
        ("tokenizer.sampling_alpha=0.1", ["sampling_alpha is for unigram models", "bpe_dropout"]),
        ("tokenizer.bpe_dropout=1.5", ["tokenizer.bpe_dropout = 1.5", "less than"]),
        ("tokenizer.source_weights={a=-1}", ["tokenizer.source_weights = -1", "greater than"]),
        ("pack.shards=0", ["pack.shards = 0", "greater than 0", "auto"]),
        ("pack.shards=many", ["pack.shards = 'many'", "auto"]),
        ("pack.mask_rate=1", ["pack.mask_rate = 1", "less than 1"]),
        ("cost.mfu=fast", ["cost.mfu = 'fast'", "auto"]),
        ("cost.mfu=1.5", ["cost.mfu = 1.5", "less than or equal to 1"]),
        ("cost.budget_usd=5", ["unknown key cost.budget_usd"]),
        ("budget.max_usd=-1", ["budget.max_usd = -1", "greater than or equal to 0"]),
        ("budget.max_epochs=0", ["budget.max_epochs = 0", "greater than 0"]),
        ("budget.on_overrun=halt", ["budget.on_overrun = 'halt'", "warn, stop"]),
        ("budget.max_dollars=1", ["unknown key budget.max_dollars", "max_usd"]),
        ("cost.hidden_cost_multiplier_low=9", ["hidden_cost_multiplier_low = 9", "5"]),
        ("epochs=1", ["section.key=value"]),
        ("train.epochs", ["section.key=value"]),
    ],
)
def test_wrong_key_or_value_names_itself(override, words):
    with pytest.raises(ConfigError) as error:
        load_config(overrides=[override])
    for word in words:
        assert word in str(error.value)


def test_error_in_a_file_names_the_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[train]\nepocs = 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"unknown key train\.epocs.*epochs.*mine\.toml"):
        load_config(config_path=str(path))


def test_broken_toml_and_missing_files_are_named(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[train\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.toml is not valid TOML.*line 1"):
        load_config(config_path=str(path))
    with pytest.raises(ConfigError, match=r"absent\.toml: No such file"):
        load_config(config_path=str(tmp_path / "absent.toml"))


def test_unknown_preset_suggests_one():
    with pytest.raises(ConfigError, match=r"did you mean gpt2-small\?"):
        load_config("gpt2small")


@given(st.text(max_size=30))
def test_any_override_is_taken_or_explained(text):
    override = f"run.output_dir={text}"
    try:
        config = load_config(overrides=[override])
    except ConfigError:
        return
    assert isinstance(config.run.output_dir, str)


def test_the_message_says_where_a_wrong_value_was_set():
    with pytest.raises(ConfigError, match=r"\(--set train\.epochs=-1\)"):
        load_config(overrides=["train.epochs=-1"])
    with pytest.raises(ConfigError, match=r"\(--set trian\.epochs=1\)"):
        load_config(overrides=["trian.epochs=1"])


def test_a_dump_shows_every_section():
    sections = set(tomli.loads(dump_config(Config())))
    assert sections >= {"run", "corpus", "curate", "tokenizer", "pack", "model", "train", "cost"}


def test_a_table_of_tables_is_set_key_by_key_and_checked_in_depth():
    config = load_config("demo", None, ["engine.resources.Trainer.cpu=4"])
    assert config.engine.resources["Trainer"].cpu == 4
    with pytest.raises(ConfigError, match=r"engine\.resources\.Trainer\.cpus .*mean cpu\?"):
        load_config("demo", None, ["engine.resources.Trainer.cpus=4"])
    with pytest.raises(ConfigError, match=r"engine\.resources\.Trainer\.cpu = 'x'"):
        load_config("demo", None, ["engine.resources.Trainer.cpu=x"])
    with pytest.raises(ConfigError, match=r"run\.seed is not a section"):
        load_config("demo", None, ["run.seed=1", "run.seed.more=2"])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["tokenizer.model_type=unigram", "tokenizer.bpe_dropout=0.1"], "bpe_dropout is for bpe"),
        (["tokenizer.path=m.model", "tokenizer.source_weights={a=2}"], "nothing is trained"),
        (["tokenizer.path=m.model", 'tokenizer.user_symbols=["x"]'], "nothing is trained"),
    ],
)
def test_tokenizer_keys_that_exclude_each_other_are_told(overrides, words):
    with pytest.raises(ConfigError, match=words):
        load_config(overrides=overrides)


def test_packing_shards_are_a_number_or_follow_the_size():
    assert load_config().pack.shards == "auto"
    assert load_config(overrides=["pack.shards=3"]).pack.shards == 3


CLASSIFY = ["train.task=classification", "model.classes=3"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([*CLASSIFY, "model.classes=0"], ["classes = 0", "at least 2"]),
        ([*CLASSIFY, "evaluate.max_perplexity=9"], ["evaluate.max_perplexity", "min_accuracy"]),
        ([*CLASSIFY, "evaluate.min_token_accuracy=0.5"], ["min_token_accuracy", "min_accuracy"]),
        ([*CLASSIFY, "evaluate.max_bits_per_byte_increase=1"], ["has no bits per byte"]),
        ([*CLASSIFY, "pack.overlap_tokens=4"], ["pack.overlap_tokens", "classifier"]),
        (["evaluate.min_accuracy=0.5"], ["causal-lm has no classes", "max_perplexity"]),
        (["train.task=masked-lm", "evaluate.max_accuracy_decrease=0.1"], ["has no classes"]),
    ],
)
def test_keys_of_another_task_are_refused(overrides, words):
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=overrides)
    for word in words:
        assert word in str(caught.value)


def test_a_classifier_is_configured_by_its_classes_and_label_field():
    config = load_config(overrides=[*CLASSIFY, "corpus.label_field=kind"])
    assert config.shape().classes == 3
    assert config.shape().head == "classifier"
    assert config.corpus.label_field == "kind"
    assert load_config().corpus.label_field is None


@pytest.mark.parametrize("given", ["/data/pages.jsonl", '"/data/pages.jsonl"'])
def test_one_value_in_a_lists_place_is_shown_as_a_list(given):
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[f"corpus.input={given}"])
    assert 'expected a list; write ["/data/pages.jsonl"]' in str(caught.value)
    assert "tuple" not in str(caught.value)
