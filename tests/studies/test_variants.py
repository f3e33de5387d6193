import pytest

from pipeline.loader import load_config
from pipeline.studies.variants import read_variants, without_each
from tokenmill.errors import TokenmillError

URLS = 'curate.deny_urls=["a.org","b.org"]'
ROWS = {"books": 30, "news": 60, "wiki": 10}


@pytest.fixture(scope="module")
def base():
    return load_config("demo", overrides=["curate.min_words=5"])


def test_one_variant_is_compared_with_the_base(base):
    names = [v.name for v in read_variants(base, ["curate.rules=none"])]
    assert names == ["base", "curate.rules=none"]
    assert [v.name for v in read_variants(base, ["base"])] == ["base"]
    assert [v.name for v in read_variants(base, ["curate.rules=c4", "base"])] == [
        "curate.rules=c4", "base",
    ]  # fmt: skip


def test_changes_of_keys(base):
    (reference, raw) = read_variants(
        base,
        ["base", f"raw: curate.rules=none,{URLS},tokenizer.vocab_size=999"],
    )
    assert reference.config == base
    assert raw.name == "raw"
    assert raw.config.curate.rules == "none"
    assert raw.config.curate.deny_urls == ("a.org", "b.org")
    assert raw.config.curate.min_words == 5
    assert raw.config.model == base.model
    assert raw.changes == (
        "curate.rules=none", URLS, "tokenizer.vocab_size=999",
    )  # fmt: skip
    assert (raw.has_own_tokenizer, raw.has_own_input, raw.shares_rows) == (True, False, False)


def test_a_file_of_changes(base, tmp_path):
    file = tmp_path / "strict.toml"
    file.write_text(
        '[curate]\nmin_words = 50\nlanguages = ["en"]\n[pack.source_weights]\n"a b" = 0.5\n'
    )
    (_, found) = read_variants(base, [str(file)])
    assert found.name == "strict.toml"
    assert found.config.curate.min_words == 50
    assert found.config.curate.languages == ("en",)
    assert found.config.pack.source_weights == {"a b": 0.5}
    assert found.config.curate.rules == base.curate.rules
    file.write_text("min_words = 50\n")
    with pytest.raises(TokenmillError, match="expected a section"):
        read_variants(base, [str(file)])


def test_a_path_of_other_text(base, tmp_path):
    (tmp_path / "it's, [new]").mkdir()
    (tmp_path / "it's, [new]" / "a.txt").write_text("text")
    path = str(tmp_path / "it's, [new]")
    (_, found) = read_variants(base, [path])
    assert found.config.corpus.input == (path,)
    assert found.has_own_input
    (_, named) = read_variants(base, [f"new:{path}"])
    assert (named.name, named.config) == ("new", found.config)


def test_rows_are_shared_where_only_the_mixture_differs(base):
    variants = read_variants(
        base, ["base", "without:news", "only:wiki", "half:pack.source_weights={books=1.0,news=0.5}"]
    )
    assert all(v.shares_rows for v in variants)
    weights = [v.source_weights(ROWS) for v in variants]
    assert weights == [
        {"books": 30, "news": 60, "wiki": 10},
        {"books": 30, "news": 0, "wiki": 10},
        {"books": 0, "news": 0, "wiki": 10},
        {"books": 1.0, "news": 0.5, "wiki": 0},
    ]
    assert not read_variants(base, ["curate.rules=none"])[1].shares_rows


def test_a_source_is_left_out_of_the_base_s_own_weights():
    base = load_config("demo", overrides=["pack.source_weights={books=3,news=1}"])
    assert without_each(base, ["books"])[1].source_weights(ROWS) == {
        "books": 0, "news": 1, "wiki": 0,
    }  # fmt: skip


def test_a_source_that_is_not_there(base):
    (_, variant) = read_variants(base, ["without:sport"])
    with pytest.raises(TokenmillError, match="no source sport") as error:
        variant.source_weights(ROWS)
    assert "books, news, wiki" in error.value.hint
    (_, last) = read_variants(base, ["without:books"])
    with pytest.raises(TokenmillError, match="nothing is left"):
        last.source_weights({"books": 3})


@pytest.mark.parametrize(
    ("described", "words"),
    [
        (["no_such_file"], "nothing is there by this name"),
        (["model.layers=2"], "a variant differs in what is trained on"),
        (["curate.no_key=1"], "unknown key curate.no_key"),
        (["a:curate.rules=c4", "a:curate.rules=web"], "two variants are called a"),
        (["base", "base"], "two variants are called base"),
        (["missing.toml"], "cannot read the config"),
        (["nothing/*.txt"], "nothing/"),
    ],
)
def test_what_is_no_variant_is_told(base, described, words):
    with pytest.raises(TokenmillError, match=words) as error:
        read_variants(base, described)
    assert error.value.hint or "allowed here" in error.value.message
