"""The quality rules: their values, and what they make of a value at the threshold."""

import importlib.util
import pathlib
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.curate.config import CurateConfig, Threshold
from components.curate.rules import LINE_RULES, RULE_SETS, RULES, judge, thresholds_of
from tokenmill.text.text_columns import TextColumns

# A module beside this one; pytest's importlib mode puts no directory on the path.
_PATH = pathlib.Path(__file__).with_name("naive_rules.py")
_SPEC = importlib.util.spec_from_file_location("naive_rules", _PATH)
naive_rules = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(naive_rules)

BOTH = (*LINE_RULES, *RULES)
BY_SETTING = {rule.setting: rule for rule in RULES}

# Few words, so that n-grams, lines and paragraphs repeat; all marks that a rule looks for.
WORD = st.sampled_from(
    ["a", "the", "The", "of", "café", "漢字", "12", "3.", "#", "...", "…", "..", ".", "{", "-",
     "*", "•x", "end.", 'said."',
     "好。", "本a，b", "ประเทศไทย", "ไ", "（", "你好」",
     "why?)", "lorem", "Lorem", "ipsum", "IPSUM", "x" * 31, "'"]
)  # fmt: skip
TEXT = st.lists(
    st.tuples(WORD, st.sampled_from([" ", " ", " ", "  ", "\n", "\n\n", "\n \n", ""])), max_size=40
).map(lambda pairs: "".join(w + blank for w, blank in pairs))


def measured(setting, texts):
    columns = TextColumns(texts)
    columns.identified = [("en", 1.0)] * len(texts)  # other languages: test_losses.py
    return BY_SETTING[setting].measure(columns).tolist()


@pytest.mark.parametrize("setting", sorted(BY_SETTING))
def test_every_rule_agrees_with_plain_python(setting):
    naive = naive_rules.MEASURES[setting]

    @settings(max_examples=60, deadline=None)
    @given(st.lists(TEXT, max_size=5))
    def check(texts):
        assert measured(setting, texts) == pytest.approx(
            [naive(t) for t in texts], abs=1e-12, nan_ok=True
        )

    check()


def test_repetition_agrees_on_long_texts_of_few_words():
    rng = np.random.default_rng(5)
    texts = [" ".join(rng.choice(list("abcd"), 300)) for _ in range(4)]
    texts.append("one two three four five six seven eight nine ten " * 20)
    for setting, naive in naive_rules.MEASURES.items():
        assert measured(setting, texts) == pytest.approx(
            [naive(t) for t in texts], abs=1e-12, nan_ok=True
        )


CRAFTED = [
    ("max_symbols_per_word", "# # a b", 0.5),
    ("max_symbols_per_word", "so... well.... …", 1.0),  # three ellipses, three words
    ("max_symbols_per_word", "a.. b", 0.0),
    ("max_bullet_line_fraction", "- a\n  * b\n\nc\n• d", 0.75),
    ("max_ellipsis_line_fraction", "a...\nb…\nc..\n...", 0.75),
    ("min_alphabetic_word_fraction", "a1 22 -- é", 0.5),
    ("min_stop_words", "The the THE of Of theory", 2.0),
    ("min_letter_fraction", "ab 12", 0.5),
    ("min_letter_fraction", "漢字", 1.0),
    ("max_digit_fraction", "1 2 ab", 0.5),
    ("min_sentences", 'One. Two! "Three?" four (five.) 3.5', 4.0),
    ("min_sentences", "It can do the following:\nOne:", 1.0),  # a short line is a heading
    ("min_sentences", "क ख ग घ ङ:\n- च", 1.0),
    ("max_menu_character_fraction", "Home | About us | Log in", 1.0),
    ("max_menu_character_fraction", "One sentence. | and a phrase of five words", 0.0),
    (
        "max_menu_character_fraction",
        "首页\n关于我们的公司和服务\n这是一个很长的句子没有标点符号",
        12 / 27,
    ),
    ("max_replacement_character_fraction", "ab\ufffd d", 0.25),
    ("max_lorem_ipsum", "Lorem ipsum lorem dolor ipsum", 1.0),
    ("min_punctuated_line_fraction", 'a.\nb\n"c"\nd:', 0.5),
    ("max_short_line_fraction", f"{'x' * 30}\n{'x' * 29}", 0.5),
    ("max_short_line_fraction", f"{'本' * 10}\n{'本' * 9}あ\n{'本' * 9} 1", 1 / 3),
    ("max_line_feeds_per_word", "a\n\nb", 1.0),
    ("max_duplicate_line_fraction", "a\n a \nb\nA", 0.25),
    ("max_duplicate_line_character_fraction", "aa\naa\n", 1 / 3),
    ("max_duplicate_paragraph_fraction", "a\nb\n\na\nb\n\na", 1 / 3),
    ("max_duplicate_paragraph_character_fraction", "ab\n\nab", 1 / 3),
    ("max_top_2gram_character_fraction", "a b c a b", 6 / 9),
    ("max_top_2gram_character_fraction", "a b c d e", 0.0),
    ("max_top_2gram_character_fraction", "a a a a", 1.0),  # overlaps, never above 1
    ("max_duplicate_5gram_character_fraction", "a b c d e a b c d e", 0.5),
    ("max_duplicate_6gram_character_fraction", "a b c d e a b c d e", 0.0),
]


@pytest.mark.parametrize(("setting", "text", "value"), CRAFTED)
def test_crafted_values(setting, text, value):
    assert measured(setting, [text]) == pytest.approx([value])
    assert naive_rules.MEASURES[setting](text) == pytest.approx(value)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.reason)
def test_a_documents_neighbors_do_not_change_its_value(rule):
    """Dots, lines and n-grams at the edge of a document must not run on into the next."""
    texts = ["a..", "...b", ".", "..", "", "the\nthe", "the", "lorem", "ipsum", "{", "a b a b"]
    batch = rule.measure(TextColumns(texts)).tolist()
    assert batch == [rule.measure(TextColumns([text]))[0] for text in texts]
    assert rule.measure(TextColumns([])).tolist() == []


# ---- thresholds


@settings(max_examples=300, deadline=None)
@given(TEXT, st.sampled_from(RULES), st.sampled_from([-1, 0, 1]))
def test_a_value_equal_to_the_threshold_stays(text, rule, side):
    columns = TextColumns([text])
    value = rule.measure(columns)[0]
    threshold = value if side == 0 else np.nextafter(value, np.inf * side)
    dropped = {"below": threshold > value, "above": threshold < value}[rule.drop_if]
    decision = judge(columns, {rule.setting: float(threshold)})
    assert (decision.rule[0] >= 0) == dropped
    if dropped:
        assert RULES[decision.rule[0]] is rule
        assert decision.value[0] == value
        assert decision.threshold[0] == threshold
    else:
        assert np.isnan([decision.value[0], decision.threshold[0]]).all()


def test_zero_is_a_threshold_and_off_is_off():
    zero = thresholds_of(CurateConfig(rules="none", max_curly_brackets=0.0))
    assert zero == {"max_curly_brackets": 0.0}
    assert judge(TextColumns(["{", "x"]), zero).rule.tolist()[1] == -1
    assert RULES[judge(TextColumns(["{", "x"]), zero).rule[0]].reason == "curly_brackets"
    off = thresholds_of(CurateConfig(rules="web", max_curly_brackets="off"))
    assert "max_curly_brackets" not in off
    assert judge(TextColumns(["{"]), {}).rule.tolist() == [-1]


@pytest.mark.parametrize("rule_set", RULE_SETS)
def test_thresholds_are_those_of_the_set_with_overrides_on_top(rule_set):
    plain = thresholds_of(CurateConfig(rules=rule_set))
    assert plain == {r.setting: r.thresholds[rule_set] for r in BOTH if rule_set in r.thresholds}
    assert thresholds_of(CurateConfig(rules=rule_set, min_words=None)) == plain  # changes nothing
    changed = thresholds_of(
        CurateConfig(rules=rule_set, min_words=7, max_words="off", min_sentences=None)
    )
    expected = {k: v for k, v in plain.items() if k != "max_words"} | {"min_words": 7.0}
    assert changed == expected


def test_rule_sets():
    assert thresholds_of(CurateConfig(rules="none")) == {}
    papers = thresholds_of(CurateConfig(rules="web"))
    # Rae et al. 2021, A1.1 and table A1; Raffel et al. 2020, 2.2; Penedo et al. 2024, 3.6.
    assert (papers["min_words"], papers["max_words"]) == (50, 100_000)
    assert papers["max_duplicate_5gram_character_fraction"] == 0.15
    assert papers["max_top_4gram_character_fraction"] == 0.16
    assert papers["max_curly_brackets"] == 0
    assert papers["min_punctuated_line_fraction"] == 0.12
    for milder, stricter in (("technical-prose", "web"), ("code-docs", "technical-prose")):
        for rule in RULES:
            mild, strict = rule.thresholds.get(milder), rule.thresholds.get(stricter)
            if mild is not None and strict is not None:
                assert mild >= strict if rule.drop_if == "above" else mild <= strict


def test_settings_of_rules_and_of_the_configuration_are_the_same():
    configurable = {
        name
        for name, field in CurateConfig.model_fields.items()
        if set(get_args(Threshold)) <= set(get_args(field.annotation))
    }
    assert configurable == {rule.setting for rule in BOTH}
    assert len({r.reason for r in BOTH}) == len(configurable) == len(BOTH)
    assert get_args(CurateConfig.model_fields["rules"].annotation) == RULE_SETS
    for rule in BOTH:
        assert rule.setting.startswith({"below": "min_", "above": "max_"}[rule.drop_if])
        assert set(rule.thresholds) <= set(RULE_SETS)


def test_the_first_rule_gives_the_only_reason():
    decisions = judge(
        TextColumns(["1", "{ { {", "fine"]), {"max_curly_brackets": 0, "min_words": 2}
    )
    reasons = [RULES[i].reason if i >= 0 else "" for i in decisions.rule]
    assert reasons == ["too_few_words", "curly_brackets", "too_few_words"]
    assert decisions.value.tolist() == [1, 3, 1]
    assert decisions.threshold.tolist() == [2, 0, 2]


def test_korean_words_are_not_judged_by_their_few_characters():
    text = "옛날 어느 산골에 한 소년이 살고 있었다. 그 소년은 매일 산에 올라 나무를 했다. " * 3
    columns = TextColumns([text])
    rule = next(rule for rule in RULES if rule.reason == "short_words")
    assert np.isnan(rule.measure(columns)[0])
