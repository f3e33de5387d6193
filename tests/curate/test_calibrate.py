"""Thresholds by language: who is before whom, and how they are derived."""

import random

import numpy as np
import pytest
import tomli

from components.curate import fineweb2
from components.curate.calibrate import METHODS, as_toml, calibrate, with_thresholds
from components.curate.config import CurateConfig
from components.curate.decision import judge_texts
from components.curate.preview import SampledDocument
from components.curate.rules import RULES, language_thresholds_of, limits_of
from tokenmill.errors import TokenmillError

WORDS = {
    "en": "the weather of a river was calm and quiet today with that which we have to be here",
    "de": "der Wagen steht vor dem Haus und die Leute warten auf den Regen nicht weil Wind weht",
    "th": "ประเทศไทย เป็น ประเทศ ใน ทวีป เอเชีย และ มี การ ที่ ของ ได้ คน น้ำ ฝน บ้าน เมือง ถนน",
}
RULE = {rule.setting: rule for rule in RULES}


def documents(seed=0, **counts):
    """Documents of random words of each language, of 30 to 90 of them."""
    rng = random.Random(seed)
    made = []
    for code, count in counts.items():
        words = WORDS[code].split()
        blank = "" if code == "th" else " "
        for i in range(count):
            sentences = [
                blank.join(rng.choices(words, k=rng.randint(6, 12)))
                for _ in range(rng.randint(4, 8))
            ]
            made.append(SampledDocument(f"{code}-{i}", code, ".\n".join(sentences) + ".", "", ""))
    return made


def test_a_language_is_before_all_languages_and_these_are_before_the_set():
    rule = RULE["max_mean_word_length"]
    of_set = fineweb2.thresholds_by_language()
    codes = ["de", "fr", "en", "und"]

    def limits(**given):
        return limits_of(rule, CurateConfig(rules="fineweb-2", **given), codes).tolist()

    plain = [of_set["de"][rule.setting], of_set["fr"][rule.setting], 10.0, 10.0]
    assert limits() == plain
    assert limits(max_mean_word_length=20) == [20.0] * 4
    of_german = {"de": {rule.setting: 7}}
    assert limits(language_thresholds=of_german) == [7.0, *plain[1:]]
    assert limits(language_thresholds=of_german, max_mean_word_length=20) == [7.0] + [20.0] * 3
    off = limits(language_thresholds={"de": {rule.setting: "off"}})
    assert np.isnan(off[0])
    assert off[1:] == plain[1:]
    only = CurateConfig(rules="none", language_thresholds=of_german)
    assert language_thresholds_of(only) == {"de": {rule.setting: 7.0}}
    np.testing.assert_array_equal(limits_of(rule, only, codes), [7.0] + [np.nan] * 3)


def test_a_threshold_of_a_language_drops_in_that_language_alone():
    texts = [document.text for document in documents(de=20, en=20)]
    config = CurateConfig(rules="none", language_thresholds={"de": {"min_words": 1000}})
    judged = judge_texts(texts, config)
    assert judged.languages == ["de"] * 20 + ["en"] * 20
    assert {i: reason[0] for i, reason in judged.dropped.items()} == {
        i: "too_few_words" for i in range(20)
    }
    assert all(threshold == 1000.0 for _, _, threshold in judged.dropped.values())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"german": {"min_words": 1}}, "none of the ISO 639 codes"),
        ({"de": {"min_wordz": 1}}, r"de\.min_wordz .*did you mean min_words\?"),
        ({"de": {"min_line_words": 1}}, "no threshold of a rule for documents"),
        ({"de": {"near_duplicate_bands": 1}}, "no threshold of a rule for documents"),
        ({"de": {"min_words": -1}}, "greater than or equal to 0"),
        ({"de": {"min_words": None}}, "valid"),
    ],
)
def test_what_is_no_threshold_of_a_language_is_said(given, message):
    with pytest.raises(ValueError, match=message):
        CurateConfig(language_thresholds=given)


@pytest.mark.parametrize("rule_set", ["web", "fineweb-2"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.1])
def test_tail_drops_no_more_than_its_share_by_each_rule(rule_set, share):
    sample = documents(de=150, en=120, th=130)
    found, left_out = calibrate(sample, CurateConfig(rules=rule_set), "tail", share)
    assert left_out == {}
    assert list(found) == ["de", "en", "th"]
    for code, language in found.items():
        assert language.documents == {"de": 150, "en": 120, "th": 130}[code]
        assert language.rules
        for rule in language.rules:
            assert rule.dropped_after <= share * language.documents
        if not share:
            other = {"too_few_words", "few_stop_words", "few_sentences"}
            assert set(language.examples) <= other
    settings = {rule.setting for rule in found["th"].rules}
    assert "max_mean_word_length" not in settings  # words without blanks have no length
    assert "max_top_2gram_character_fraction" in settings


def test_derived_thresholds_are_close_to_the_tail():
    """The next stricter number of three digits would drop more than the share."""
    sample = documents(de=400)
    german = calibrate(sample, CurateConfig(rules="web"), "tail", 0.05)[0]["de"]
    dropped = {rule.setting: rule.dropped_after for rule in german.rules}
    assert 15 <= dropped["max_mean_word_length"] <= 20
    assert 15 <= dropped["min_mean_word_length"] <= 20


def test_quantile_drops_of_each_language_what_the_set_drops_of_the_reference():
    sample = documents(de=200, en=200)
    config = CurateConfig(rules="none", max_mean_word_length=4.0)
    found, left_out = calibrate(sample, config, "quantile", reference="en")
    assert left_out == {"en": 200}
    (german,) = found.values()
    (rule,) = german.rules
    lengths = [np.mean([len(w) for w in d.text.split()]) for d in sample if d.source == "en"]
    dropped = sum(length > 4.0 for length in lengths)
    assert 0 < dropped < 200
    assert dropped - 10 <= rule.dropped_after <= dropped


def test_mean_std_moves_a_threshold_with_the_mean_and_spread():
    sample = documents(de=200, en=200)
    config = CurateConfig(rules="none", max_mean_word_length=5.0)
    found, left_out = calibrate(sample, config, "mean-std", reference="en")
    assert left_out == {"en": 200}
    (german,) = found.values()
    lengths = {
        code: [np.mean([len(w) for w in d.text.split()]) for d in sample if d.source == code]
        for code in ("de", "en")
    }
    deviations = (5.0 - np.mean(lengths["en"])) / np.std(lengths["en"])
    expected = np.mean(lengths["de"]) + deviations * np.std(lengths["de"])
    (rule,) = german.rules
    assert rule.after == pytest.approx(expected, rel=0.01)
    assert rule.after >= expected


@pytest.mark.parametrize("method", METHODS)
def test_thresholds_are_written_as_the_configuration_reads_them(method, tmp_path):
    sample = documents(de=120, en=120)
    config = CurateConfig(rules="web", language_thresholds={"de": {"min_words": 3}})
    found, _ = calibrate(sample, config, method)
    path = tmp_path / "thresholds.toml"
    path.write_text(as_toml(found))
    read = tomli.loads(path.read_text())["curate"]["language_thresholds"]
    derived = {code: language.rules for code, language in found.items()}
    expected = with_thresholds(config, derived).language_thresholds
    assert expected["de"].pop("min_words") == 3
    assert read == expected
    assert CurateConfig(rules="web", language_thresholds=read).language_thresholds == read


def test_too_few_documents():
    sample = documents(de=150, en=20)
    with pytest.raises(TokenmillError, match=r"20 documents are in en.*de 150, en 20"):
        calibrate(sample, CurateConfig(rules="web"), "quantile")
    found, left_out = calibrate(sample, CurateConfig(rules="web"), "tail")
    assert (list(found), left_out) == (["de"], {"en": 20})
    none = calibrate(sample, CurateConfig(rules="web"), "tail", min_documents=500)
    assert none == ({}, {"de": 150, "en": 20})
