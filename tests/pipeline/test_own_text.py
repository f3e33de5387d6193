"""What `tokenmill run --input` chooses for a text of the user's own."""

import pytest

from pipeline.loader import ConfigError, load_run_config
from pipeline.own_text import own_text_values, run_name


def sized(tmp_path, size, name="texts"):
    directory = tmp_path / name
    directory.mkdir(exist_ok=True)
    (directory / "a.txt").write_bytes(b"a" * size)
    return str(directory)


@pytest.mark.parametrize("size", [1, 90_000, 900_000, 3_000_000, 10_000_000, 50_000_000])
def test_every_size_gives_a_whole_configuration_and_bounded_work(tmp_path, size):
    config, chosen = load_run_config(None, None, [], [sized(tmp_path, size)])
    assert "of text" in chosen
    assert config.run.name == "texts"
    assert config.curate.rules == "technical-prose"
    assert config.evaluate.max_bits_per_byte == 8.0  # not the demo's
    trained = size * config.train.epochs * config.shape().params_total
    assert trained <= 12.1e6 * 4.3e6
    assert config.train.epochs >= 1 or "train.epochs=1" in chosen


def test_the_same_sizes_give_the_same_choice_and_more_text_a_larger_model(tmp_path):
    path = sized(tmp_path, 200_000)
    assert own_text_values([path]) == own_text_values([path])
    models = [
        load_run_config(None, None, [], [sized(tmp_path, size, f"of-{size}")])[0]
        for size in (50_000, 500_000, 2_000_000, 10_000_000)
    ]
    params = [config.shape().params_total for config in models]
    assert params == sorted(params)
    assert len(set(params)) == 4


def test_what_the_user_says_wins(tmp_path):
    path = sized(tmp_path, 1000)
    overrides = ["train.epochs=3", "run.name=mine", "model.d_model=96"]
    config, _ = load_run_config(None, None, overrides, [path])
    assert (config.train.epochs, config.run.name, config.model.d_model) == (3.0, "mine", 96)
    assert load_run_config("demo", None, [], [path])[1] == ""
    assert load_run_config("demo", None, [], [path])[0].run.name == "demo"
    assert load_run_config(None, None, [], [])[0].run.name == "demo"
    of_key = load_run_config(None, None, [f'corpus.input=["{path}"]'], [])
    assert of_key[0].run.name == "texts"


def test_a_wrong_key_is_told_with_where_it_comes_from(tmp_path):
    with pytest.raises(ConfigError, match=r"--set model\.heads=7"):
        load_run_config(None, None, ["model.layers=3", "model.heads=7"], [sized(tmp_path, 9)])


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/My Texts/", "my-texts"),
        ("a.jsonl.gz", "a"),
        ("/x/文章", "own"),
        ("-_-", "own"),
        ("x" * 90, "x" * 40),
        ("dir/*.txt", "own"),
    ],
)
def test_the_run_is_named_by_its_input(path, name):
    assert run_name(path) == name
