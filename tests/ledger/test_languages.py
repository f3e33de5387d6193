"""Text, tokens and money by language: the parts are the whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_manifest import packed_manifest

from components.ledger.languages import language_texts

CODES = ("de", "en", "th", "und", "zh")
SOURCES = ("a", "b", "c")
UNITS = ("documents", "bytes", "tokens", "loss_tokens", "dropped_empty")

# {(source, language): counts}
splits = st.dictionaries(
    st.tuples(st.sampled_from(SOURCES), st.sampled_from(CODES)),
    st.fixed_dictionaries({unit: st.integers(0, 10**9) for unit in UNITS}),
)


def added(parts):
    parts = list(parts)
    return {unit: sum(part[unit] for part in parts) for unit in UNITS}


def manifest(cells, weighted=False):
    """The manifest of a split with these counts of each source and language."""

    def by(place):
        names = sorted({key[place] for key in cells})
        return {n: added(c for key, c in cells.items() if key[place] == n) for n in names}

    pairs = {}
    for (source, language), counts in cells.items() if weighted else ():
        pairs.setdefault(source, {})[language] = counts["loss_tokens"]
    return packed_manifest(
        **added(cells.values()),
        by_source=by(0),
        by_language=by(1),
        loss_tokens_by_source_and_language=pairs,
    )


@given(splits, splits, st.floats(0, 1e9))
def test_the_languages_add_up_to_the_split_and_to_the_estimate(train, held_out, usd):
    packed = {"train": manifest(train), "eval": manifest(held_out)}
    texts = language_texts(packed, usd, {})
    assert list(texts) == sorted({code for _, code in (*train, *held_out)})
    for split, whole in packed.items():
        for unit in UNITS:
            parts = [getattr(getattr(text, split), unit) for text in texts.values()]
            assert sum(parts) == getattr(whole, unit)
    for share, unit in (("token_share", "tokens"), ("cost_share", "loss_tokens")):
        total = sum(getattr(text, share) for text in texts.values())
        assert total == pytest.approx(1.0 if getattr(packed["train"], unit) else 0.0)
    if packed["train"].loss_tokens:
        assert sum(text.compute_usd for text in texts.values()) == pytest.approx(usd)


@given(splits, st.dictionaries(st.sampled_from(SOURCES), st.floats(0, 100)))
def test_with_weights_a_language_bears_what_training_reads_of_its_sources(train, epochs):
    packed = {"train": manifest(train, weighted=True), "eval": manifest({})}
    texts = language_texts(packed, 1.0, epochs)
    if not epochs:
        return
    read = {
        code: sum(
            counts["loss_tokens"] * epochs.get(source, 0.0)
            for (source, language), counts in train.items()
            if language == code
        )
        for code in texts
    }
    for code, text in texts.items():
        share = read[code] / sum(read.values()) if sum(read.values()) else 0.0
        assert text.cost_share == pytest.approx(share)


def test_a_language_of_few_bytes_a_token_bears_more_of_the_cost_than_of_the_bytes():
    counts = {"documents": 1, "dropped_empty": 0}
    train = {
        ("a", "en"): {**counts, "bytes": 4000, "tokens": 1000, "loss_tokens": 1001},
        ("a", "th"): {**counts, "bytes": 4000, "tokens": 3000, "loss_tokens": 3001},
    }
    packed = {"train": manifest(train), "eval": manifest({("a", "de"): train["a", "en"]})}
    texts = language_texts(packed, 8.0, {})
    assert texts["en"].bytes_per_token == 4.0
    assert texts["th"].bytes_per_token == pytest.approx(4 / 3)
    assert texts["th"].token_share == 0.75
    assert texts["th"].compute_usd == pytest.approx(8 * 3001 / 4002)
    # Held out only: it is measured, and costs no training.
    assert texts["de"].train.documents == texts["de"].compute_usd == 0
    assert texts["de"].bytes_per_token == 4.0
