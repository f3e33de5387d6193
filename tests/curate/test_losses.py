"""Rules that take most of a language, a source or the whole; and what a run says about it."""

import pytest

from components.curate import fineweb2
from components.curate.config import CurateConfig
from components.curate.counts import OutcomeCounts, summarize
from components.curate.languages import identified, stop_words
from components.curate.losses import check_losses, curation_remarks
from tokenmill.contracts.curation import DroppedDocument, write_dropped_shard
from tokenmill.errors import TokenmillError
from tokenmill.text.language import LANGUAGES, MIN_LANGUAGE_SCORE
from tokenmill.text.text_columns import TextColumns

GERMAN = (
    "Der Wagen steht vor dem Haus und die Leute warten auf den Regen, der nicht kommen will, "
    "weil der Wind aus dem Osten weht und der Himmel klar ist."
)
TEXTS = {
    "en": "The cat sat on the mat and looked at all of it, with a mouse that would not be had.",
    "de": GERMAN,
    "fr": "Le chat est sur le tapis et il regarde la souris qui ne veut pas venir avec nous.",
    "ru": "Кошка сидит на ковре и смотрит на мышь, которая не хочет идти с нами в этот дом.",
    "ko": "고양이가 매트 위에 앉아 있다. 그리고 우리는 이것을 보고 있지만 그러나 다른 것은 없다.",
    "ar": "القط يجلس على السجادة وينظر إلى الفأر الذي لا يريد أن يأتي معنا في هذا البيت.",
    "he": "החתול יושב על השטיח ומביט אל העכבר אשר לא רוצה לבוא איתנו אל הבית הזה כי הוא עייף.",
    "fi": "Kissa istuu matolla ja katsoo hiirtä, joka ei halua tulla mukaan, koska se on väsynyt.",
}


@pytest.mark.parametrize("code", sorted(TEXTS))
def test_a_text_has_stop_words_of_its_language(code):
    columns = TextColumns([TEXTS[code], "x1 x2 x3"])
    assert identified(columns)[0][0] == code
    assert stop_words(columns)[0] >= 2
    assert stop_words(columns)[1] == 0  # no language, no stop words


@pytest.mark.parametrize(
    ("code", "text", "at_least"),
    [
        ("zh", "训练一个语言模型需要大量的文本数据，他也是为了人和数据。", 5),
        ("ja", "これは日本語の文章です。この文章には助詞がたくさんあります。", 5),
        ("th", "ประเทศไทยเป็นประเทศในทวีปเอเชียตะวันออกเฉียงใต้ และมีชายแดน", 3),
        ("km", "ប្រទេសកម្ពុជាជាប្រទេសមួយនៅក្នុងតំបន់អាស៊ីអាគ្នេយ៍ និងមានប្រជាជនច្រើន", 4),
        ("ka", "საქართველო არის ქვეყანა კავკასიაში, რომელიც მდებარეობს და იყო", 2),
    ],
)
def test_stop_words_of_scripts_without_blanks_are_found_wherever_they_stand(code, text, at_least):
    columns = TextColumns([text, "x" + text])
    assert identified(columns)[0][0] == code
    assert all(stop_words(columns) >= at_least)


def test_text_without_blanks_in_no_certain_language_is_not_judged():
    """Characters that stand in a list of stop words by chance say nothing."""
    text = "甲乙丙丁戊己庚辛壬癸ไไไไ"
    columns = TextColumns([text])
    assert identified(columns)[0][1] < MIN_LANGUAGE_SCORE
    assert stop_words(columns).tolist() == pytest.approx([float("nan")], nan_ok=True)


def test_every_language_but_english_has_thresholds_and_stop_words():
    """All of lid.176 but Bihari, which is a group of languages."""
    assert {*LANGUAGES} - {*fineweb2.thresholds_by_language()} == {"en", "bh"}
    settings = {frozenset(of) for of in fineweb2.thresholds_by_language().values()}
    assert len(settings) == 1
    assert settings.pop() <= set(CurateConfig.model_fields)
    assert all(fineweb2.stop_words_of(code) for code in fineweb2.thresholds_by_language())


def curation(*groups, removed_lines=(), masked=()):
    """Groups of (split, source, language, outcome, documents)."""
    counts, tallies = [], {}
    for split, source, language, outcome, documents in groups:
        counts.append(((split, source, outcome), OutcomeCounts(documents, 100 * documents, 0, 0)))
        key = ("language", language)
        tallies[key] = tallies.get(key, 0) + documents
        if outcome != "kept":
            key = ("language_dropped", language, outcome)
            tallies[key] = tallies.get(key, 0) + documents
    merged = {}
    for key, numbers in counts:
        merged[key] = OutcomeCounts(*map(sum, zip(merged.get(key, (0,) * 4), numbers, strict=True)))
    return summarize(merged.items(), masked, removed_lines, tallies.items())


def write_records(uri, reason, source, language, count):
    lines = [
        DroppedDocument(
            "train", b"d%d\x1b[2J" % i, source, f"Text \x1b]0;x\x07 {i}", 9, reason, 0.0, 2.0, b"",
            language,
        ).to_line()
        for i in range(count)
    ]  # fmt: skip
    write_dropped_shard(str(uri), 0, 1, lines)


def test_a_rule_that_takes_a_language_stops_the_run_and_says_what_to_type(tmp_path):
    lost = curation(
        ("train", "a", "en", "kept", 500),
        ("train", "a", "de", "few_stop_words", 40),
        ("eval", "a", "de", "kept", 2),
    )
    write_records(tmp_path, "few_stop_words", b"a", "de", 40)
    with pytest.raises(TokenmillError) as error:
        check_losses(lost, CurateConfig(), str(tmp_path))
    message = str(error.value)
    assert "few_stop_words drops 95% of language de (40 of 42 documents)" in message
    assert "--set curate.min_stop_words=off" in message
    assert "--set curate.max_drop_fraction=0.96" in message
    assert message.count('"Text ') == 3
    assert "\x1b" not in message
    assert "source a" not in message
    check_losses(lost, CurateConfig(max_drop_fraction=0.96), str(tmp_path))
    # What is let pass is still said.
    (remark,) = curation_remarks(lost, 0.96)
    assert "95% of language de" in remark


def test_sources_the_whole_and_bytes_of_lines_count_too(tmp_path):
    source = curation(
        ("train", "a", "en", "kept", 500), ("train", "b", "und", "many_digits", 30)
    )  # fmt: skip
    write_records(tmp_path, "many_digits", b"b", "und", 30)
    with pytest.raises(TokenmillError, match=r"many_digits drops 100% of source b \(30 of 30 doc"):
        check_losses(source, CurateConfig(), str(tmp_path))
    lines = curation(
        ("train", "a", "en", "kept", 10), removed_lines=[("line_few_words", (7, 900))]
    )  # fmt: skip
    with pytest.raises(
        TokenmillError, match=r"90% of all \(900 of 1,000 bytes\)[^.]*\. .*min_line"
    ):
        check_losses(lines, CurateConfig(), str(tmp_path))
    whole = curation(("train", "a", "en", "empty", 11), ("train", "b", "en", "kept", 9))
    with pytest.raises(TokenmillError, match=r"55% of all .*corpus\.text_field"):
        check_losses(whole, CurateConfig(), str(tmp_path))


@pytest.mark.parametrize(
    "lost",
    [
        # Half is not more than half; few documents say nothing; what has no language is no group.
        curation(("train", "a", "en", "kept", 20), ("eval", "a", "en", "few_letters", 20)),
        curation(("train", "a", "en", "kept", 1), ("eval", "a", "en", "few_letters", 8)),
        curation(("train", "a", "en", "kept", 20), ("train", "a", "und", "few_letters", 15)),
        # Asked for, and copies: said, but no reason to stop.
        curation(("train", "a", "en", "kept", 20), ("train", "a", "de", "wrong_language", 80)),
        curation(("train", "a", "en", "kept", 20), ("train", "a", "en", "near_duplicate", 80)),
        # No single rule takes so much.
        curation(
            ("train", "a", "en", "kept", 20),
            ("train", "a", "en", "few_letters", 19),
            ("train", "a", "en", "many_digits", 19),
        ),
    ],
)
def test_what_does_not_stop_a_run(tmp_path, lost):
    check_losses(lost, CurateConfig(), str(tmp_path))


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (("de", "wrong_language", 80), "wrong_language drops 80% of all"),
        (("en", "near_duplicate", 80), "near_duplicate drops 80% of all"),
    ],
)
def test_what_is_said(lost, said):
    found = curation_remarks(
        curation(("train", "a", "en", "kept", 20), ("train", "a", *lost)), 0.5
    )  # fmt: skip
    assert any(said in remark for remark in found)


def test_rules_that_only_together_take_more_than_half_are_said():
    both = (("train", "a", "en", reason, 19) for reason in ("few_letters", "many_digits"))
    (remark,) = curation_remarks(curation(("train", "a", "en", "kept", 20), *both), 0.5)
    assert remark.startswith("all rules together drop 66% of all (38 of 58 documents)")


def test_a_shrunken_held_out_split_is_said_and_a_shrunken_train_split_stops(tmp_path):
    shrunk = curation(
        ("train", "a", "en", "kept", 500),
        ("eval", "a", "en", "kept", 25),
        ("eval", "a", "en", "contaminated", 531),
    )
    check_losses(shrunk, CurateConfig(), str(tmp_path))
    (remark,) = curation_remarks(shrunk, 0.5)
    assert "531 of 556 held-out documents are contaminated, 25 are left" in remark
    assert "--set curate.decontaminate=train" in remark
    write_records(tmp_path, "contaminated", b"a", "en", 3)
    train = curation(("train", "a", "en", "contaminated", 51), ("train", "a", "en", "kept", 49))
    with pytest.raises(TokenmillError, match=r"51 of the 100 train .*--set curate\.decontaminate="):
        check_losses(train, CurateConfig(), str(tmp_path))


def test_languages_are_codes_that_can_be_told():
    from components.curate.languages import identify  # the model's own labels
    from tokenmill.text.language import _detector

    assert identify(["Guten Tag, wie geht es Ihnen?"])[0][0] == "de"
    labels = _detector().detect("hello", model="lite", k=500, threshold=-1.0)
    assert {label["lang"] for label in labels} == LANGUAGES
    assert CurateConfig(languages="de").languages == ("de",)
    assert CurateConfig(languages=["de", "zh"]).languages == ("de", "zh")
    assert CurateConfig(languages=[]).languages == ()
    for wrong in ("german", ["deu"], "de,fr", ["DE"], ["en", ""], [["de"]]):
        with pytest.raises(ValueError, match="none of the ISO 639 codes"):
            CurateConfig(languages=wrong)
    with pytest.raises(ValueError, match=r"'deu' is none .*did you mean de\?"):
        CurateConfig(languages=["deu"])
