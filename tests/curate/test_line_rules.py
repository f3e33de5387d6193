"""C4's rules for lines: what goes is what plain Python says, and every byte of it is counted."""

import importlib.util
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.curate import preview as previews
from components.curate.config import CurateConfig
from components.curate.rules import LINE_RULES, thresholds_of
from components.curate.rules.lines import remove_lines
from tokenmill.text.normalize import normalize

# A module beside this one; pytest's importlib mode puts no directory on the path.
_SPEC = importlib.util.spec_from_file_location(
    "naive_rules", pathlib.Path(__file__).with_name("naive_rules.py")
)
naive_rules = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(naive_rules)
split_words = naive_rules.split_words

POLICY = ("terms of use", "privacy policy", "cookie policy",
          "uses cookies", "use of cookies", "use cookies")  # fmt: skip

NAIVE = {
    "max_line_word_characters": lambda line: max(map(len, split_words(line))),
    "min_line_end_marks": lambda line: (
        line[-1] in naive_rules.ENDS + '"”»」』' and not line.endswith("...")
    ),
    "min_line_words": lambda line: len(split_words(line)),
    "max_line_javascript": lambda line: line.lower().count("javascript"),
    "max_line_policy_phrases": lambda line: sum(line.lower().count(p) for p in POLICY),
}

WORD = st.sampled_from(
    ["a", "the", "café", "漢字", "end.", "what?", 'said."', "said.”", "so...", "so..", "....", "…",
     "JavaScript", "javascript,", "terms", "of", "Use", "use", "cookies", "Privacy", "policy.",
     "x" * 12, "𝄞𝄞"]
)  # fmt: skip
TEXT = st.lists(
    st.tuples(WORD, st.sampled_from([" ", " ", "  ", "\n", "\n\n", "\n  "])), max_size=30
).map(lambda pairs: normalize("".join(w + blank for w, blank in pairs)))


def naive(text, thresholds):
    """(lines that stay, {reason: (lines, bytes)})."""
    stay, gone = [], {}
    for line in filter(None, (line.strip() for line in text.split("\n"))):
        for rule in LINE_RULES:
            value, threshold = NAIVE[rule.setting](line), thresholds.get(rule.setting)
            if threshold is not None and (
                value < threshold if rule.drop_if == "below" else value > threshold
            ):
                lines, size = gone.get(rule.reason, (0, 0))
                gone[rule.reason] = lines + 1, size + len(line.encode())
                break
        else:
            stay.append(line)
    return stay, gone


THRESHOLDS = st.fixed_dictionaries(
    {},
    optional={
        "max_line_word_characters": st.sampled_from([0.0, 5.0, 11.0, 12.0]),
        "min_line_end_marks": st.just(1.0),
        "min_line_words": st.sampled_from([0.0, 2.0, 5.0]),
        "max_line_javascript": st.sampled_from([0.0, 1.0]),
        "max_line_policy_phrases": st.sampled_from([0.0, 1.0]),
    },
)


@given(st.lists(TEXT, max_size=5), THRESHOLDS)
def test_lines_go_as_plain_python_says_and_are_counted(texts, thresholds):
    removed = remove_lines(texts, thresholds)
    total = {}
    for text, left, size in zip(texts, removed.texts, removed.sizes.tolist(), strict=True):
        stay, gone = naive(text, thresholds)
        assert [line.strip() for line in left.split("\n") if line.strip()] == stay
        assert normalize(left) == left
        assert size == sum(count[1] for count in gone.values())
        for reason, (lines, bytes_gone) in gone.items():
            before = total.get(reason, (0, 0))
            total[reason] = before[0] + lines, before[1] + bytes_gone
        if not gone:
            assert left == text
    assert removed.by_reason == total


@pytest.mark.parametrize("setting", sorted(NAIVE))
def test_each_rule_can_be_switched_off(setting):
    text = f"{'x' * 1001} has one word too long to be text in here.\nNo mark here at its very end\n"
    text += "Too few.\nYou need to switch on JavaScript here.\nThis site here uses cookies, so."
    every = thresholds_of(CurateConfig(rules="c4"))
    without = thresholds_of(CurateConfig(rules="c4", **{setting: "off"}))
    assert set(every) - set(without) == {setting}
    reasons = {rule.setting: rule.reason for rule in LINE_RULES}
    assert remove_lines([text], every).by_reason.keys() == set(reasons.values())
    found = remove_lines([text], without)
    assert found.by_reason.keys() == set(reasons.values()) - {reasons[setting]}
    assert len(found.texts[0].split("\n")) == 1


def test_an_indented_line_that_stays_keeps_its_indentation():
    text = "def f():\n    go\n    return the sum of all of it\n\n    x\n\n  and then it goes on"
    removed = remove_lines([text], {"min_line_words": 3.0})
    assert removed.texts == ["    return the sum of all of it\n\n  and then it goes on"]


def test_sets():
    """Raffel et al. 2020, 2.2; FineWeb (Penedo et al. 2024, 3.6) keeps lines without end marks."""
    lines = {rule.setting for rule in LINE_RULES}
    c4 = thresholds_of(CurateConfig(rules="c4"))
    assert (c4["min_line_words"], c4["min_line_end_marks"], c4["min_sentences"]) == (5, 1, 3)
    assert lines <= set(c4)
    assert lines - set(thresholds_of(CurateConfig(rules="web"))) == {"min_line_end_marks"}
    for rule_set in ("technical-prose", "code-docs", "none"):
        assert not lines & set(thresholds_of(CurateConfig(rules=rule_set)))


# ---- in the whole


def test_bytes_of_removed_lines_are_part_of_the_account(curate):
    body = "This is a sentence of some words, number {}, with a mark at its end."
    texts = [f"Menu\n\n  {body.format(i)}  \nWe use cookies é.\nHome > News" for i in range(6)]
    texts.append("Menu\nHome")  # nothing is left
    texts.append(texts[0])  # a copy: goes with its removed lines
    documents = [
        ("eval" if i == 3 else "train", b"%d" % i, b"web" if i % 2 else b"books", t.encode())
        for i, t in enumerate(texts)
    ]
    settings = curate.settings(rules="c4", min_sentences="off")
    result = curate(documents, settings, size=3)
    assert {k[3].decode() for k in result.kept} == {f"  {body.format(i)}" for i in range(6)}
    assert result.reasons() == {b"6": "empty", b"7": "exact_duplicate"}
    cookies = len("We use cookies é.".encode())
    assert result.removed_lines == {
        "line_without_end_mark": (16, 8 * 4 + 7 * 11 + 4),
        "line_few_words": (7, 7 * cookies),
    }
    report, removed = result.report, 0
    for split, accounts in report["splits"].items():
        for source, account in accounts["by_source"].items():
            kept = sum(k[0] == split and k[2].decode() == source for k in result.kept)
            assert account["kept"]["documents"] == kept
            assert account["removed_line_bytes"] == kept * (4 + 11 + cookies)
            removed += account["removed_line_bytes"]
            # What is left is normalization: line feeds, trailing blanks.
            layout = account["kept"]["raw_bytes"] - account["kept"]["bytes"]
            assert layout - account["removed_line_bytes"] == kept * len("\n\n  \n\n")
    assert report["total"]["removed_line_bytes"] == removed == 6 * (15 + cookies)
    assert report["removed_lines"]["line_few_words"] == {"lines": 7, "bytes": 7 * cookies}


def test_preview_shows_which_lines_go_and_judges_what_is_left():
    text = "Menu\nHome\nThis is a whole sentence of the text itself."
    config = CurateConfig(rules="none", min_line_words=5.0, min_words=9.0)
    documents = [previews.SampledDocument("a", "s", text), previews.SampledDocument("b", "s", "é")]
    found = previews.as_json(previews.preview(documents, config, 2), config, None)
    assert found["removed_lines"] == {"line_few_words": {"lines": 3, "bytes": 10}}
    assert found["kept"]["documents"] == 1  # 9 words are left of 11
    assert found["dropped"] == {"empty": {"documents": 1, "bytes": 2}}
