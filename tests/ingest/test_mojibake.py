"""Mojibake: a planted set of 18 languages. No sound text changes; most broken text is mended."""

import itertools

import pytest

from components.ingest.encoding import repair

LANGUAGES = {
    "de": "„Die Straße ist schön“, sagte Jürgen Größe; Äpfel, Öl und Übermut für 20 € – ähnlich.",
    "fr": "« Voilà », dit-il — l’été dernier, à Noël : « ça va ? » Le cœur du garçon bat fort.",
    "es": "¿Qué pasó, señor Núñez? ¡Nada! El niño comió jamón en Málaga, según dijo María.",
    "pt": "Não há razão para a situação: “Manhã”, disse João, e a maçã da irmã caiu. É você?",
    "it": "Perché no? È così: la città è più bella, però l’università non c’è più.",
    "nl": "Coördinatie en reünie: ’s morgens één café, zei zoë — geïnd, naïef, crème.",
    "sv": "På fjället är det kallt, sade Åsa; älgar och björnar går över ån.",
    "da": "Rødgrød med fløde, sagde Ægir på Ærø; æbler, Østersø og små åer.",
    "fi": "Ei päätä, että hän meni yöllä ääneen nauraen kotiin. Äiti näki Åbon.",
    "is": "Það er gott veður í dag, sagði þýski maðurinn Ægir Þór á Ísafirði.",
    "pl": "Zażółć gęślą jaźń, powiedział król; „Łódź” leży w środku Polski.",
    "cs": "Příliš žluťoučký kůň úpěl ďábelské ódy. Češi píší ŠÍŘKA a NEJVYŠŠÍ.",
    "ro": "Câmpulung și România: „Hâla” fără țărani, însă în ÎNCEPUT e apă.",
    "tr": "İstanbul'da yaşıyorum, çok güzel bir şehir; “Hâlâ” öğretmen Çağrı'nın ığdırı.",
    "ru": "Привет, мир! «Как дела?» — спросил Юрий. Ещё не готово, объявил он.",
    "el": "Γεια σου κόσμε, είπε η Ελένη· «καλημέρα» σε όλους.",
    "zh": "训练一个语言模型需要大量的文本数据，而文本的质量决定了模型的上限。",
    "ja": "「昨日は天気が良かった」ので、川沿いを長く散歩しました。",
}
# What may close a word, so that it follows an accented capital at a word's end.
CLOSING = "»”’›“‘–—…®™©°ºª²³¹†‡•·´\xa0\xad.,!?"
UNDEFINED = b"\x81\x8d\x8f\x90\x9d"


def broken(text: str, through: str) -> str:
    """Text whose UTF-8 was read as a code page, byte by byte; undefined bytes are Latin-1's."""
    return "".join(
        bytes([b]).decode("latin-1" if b in UNDEFINED and through == "cp1252" else through)
        for b in text.encode()
    )


def unchanged(text: str) -> bool:
    return repair(text.encode(), True) == (text.encode(), ())


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_sound_text_changes(language):
    """Texts, their capitals, and every single word before whatever may close it."""
    text = LANGUAGES[language]
    words = set(text.split())
    words |= {word.upper() for word in words} | {word.strip("„“”«»’‘.,;:!?") for word in words}
    # What a word ends in at a hyphen, in any language: its capitals' last letter may be any.
    words |= {word[:i].upper() for word in set(words) for i in range(1, len(word))}
    texts = [text, text.upper(), f"{text}\n{text.upper()}", text.replace(" ", "\xa0")]
    for word, mark in itertools.product(sorted(words), ["", *CLOSING]):
        texts += [word + mark, f"{word}{mark} 2024", f"the {word}{mark} disse ela"]
    assert [text for text in texts if not unchanged(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "«MAÇÃ».",
        "“HÂLÂ”",
        "CIDADÃ® 2024",
        "MANHÃ— disse ela",
        "é is encoded as Ã© in such files",
        "In UTF-8 read as Latin-1 you see cafÃ© and MÃ¼ller, or Ð¿Ñ€Ð¸Ð²ÐµÑ‚.",
        "文字化け: MÃ¼ller",
        "What does Ã© mean? And Ã¨?",
        "I see cafÃ© instead of café",
        "λ = 1.54 Å±0.02, 10×µm, 5×½ in, 3×¼",
        "voilà\xa0» allé…» Spaß“",
        "Ні. Ні. Її. СССР, РСФСР; Њ Ћ",
        "PÍŠE NEJVYŠŠÍ ŽIŽKA",
    ],
)
def test_what_only_looks_like_mojibake(text):
    assert unchanged(text)
    assert unchanged(f"A line before.\n{text}\nAnd é after it.")


@pytest.mark.parametrize("through", ["cp1252", "latin-1"])
def test_broken_text_is_mended(through):
    """All of it, of all languages; a whole document, and a broken line among sound ones."""
    for text in LANGUAGES.values():
        mojibake = broken(text, through)
        assert repair(mojibake.encode(), True) == (text.encode(), ("mojibake",))
        mixed = "sound: “é”, « né »\n{}\nÖl"
        assert repair(mixed.format(mojibake).encode(), True) == (
            mixed.format(text).encode(),
            ("mojibake",),
        )


def test_broken_twice_and_through_other_code_pages():
    text = LANGUAGES["fr"]
    assert repair(broken(broken(text, "cp1252"), "cp1252").encode(), True) == (
        text.encode(),
        ("mojibake",),
    )
    russian = broken(LANGUAGES["ru"], "cp1251")
    assert repair(russian.encode(), True) == (LANGUAGES["ru"].encode(), ("mojibake",))
    for through in ("cp1251", "mac-roman", "cp437"):
        quoted = "it’s “quoted” — so"
        assert repair(broken(quoted, through).encode(), True)[0].decode() == quoted


def test_recall_of_single_words():
    """Words alone are little evidence; what is left broken is not harmed."""
    words = {word for text in LANGUAGES.values() for word in text.split() if not word.isascii()}
    mended = sum(repair(broken(w, "cp1252").encode(), True)[0].decode() == w for w in words)
    assert mended / len(words) > 0.8
