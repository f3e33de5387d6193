"""Encodings: what is repaired, what is refused, and what is left alone."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.ingest.config import CorpusConfig
from components.ingest.encoding import decode_cp1252, repair
from components.ingest.manifest import list_inputs
from components.ingest.readers import read_file
from components.ingest.records import Document
from tokenmill.contracts.ingest import BadRecord

WESTERN = [
    "“Voilà”, dit-il — l’été dernier, à Noël : « ça va ? »",
    "Die Straße ist groß, aber schön; 20 € für Öl und Übermut…",
    "El niño comió jamón en Málaga. ¿Qué más? ¡Nada! 1ª y 2º",
    "Não há razão para a situação da informação.",
    "På fjellet er det kjølig, sa Åse; æbler og rødgrød med fløde.",
    "Það er gott veður í dag, sagði þýski maðurinn.",
    "Ei päätä, että hän meni yöllä ääneen nauraen kotiin.",
    "25 °C ± 2, 3 m³, ½ l, §4, © 2020 Foo™ · naïve",
]
OTHER = [
    ("cp1251", "Привет, мир! Как дела? In English it is said so."),
    ("koi8-r", "Привет, мир! Как дела? In English it is said so."),
    ("cp866", "Привет, мир! Как дела? In English it is said so."),
    ("cp1253", "Γεια σου κόσμε, and a lot more of English text around it"),
    ("cp1250", "Příliš žluťoučký kůň úpěl ďábelské ódy"),
    ("cp1250", "Zażółć gęślą jaźń, powiedział król"),
    ("cp1254", "İstanbul'da yaşıyorum, çok güzel bir şehir"),
    ("cp437", "café déjà vu, a schöner Tag"),
    ("mac-roman", "café déjà vu, and English text around it"),
    ("shift_jis", "テストです。日本語のtext with much English in it to hide"),
    ("gbk", "中文 text with a lot of English words around it, really a lot"),
    ("euc-kr", "한국어 text with a lot of English words around it"),
    ("big5", "繁體中文 text with a lot of English words around it"),
]


def read(tmp_path, name, data, **keys):
    """Writes and reads a file: (documents, bad records)."""
    (tmp_path / name).write_bytes(data)
    read_settings = CorpusConfig(max_document_bytes=10**7, eval_fraction=0.05, **keys)
    items = list(read_file(list_inputs([str(tmp_path / name)])[0], read_settings))
    documents = [item for item in items if isinstance(item, Document)]
    return documents, [item for item in items if isinstance(item, BadRecord)]


@pytest.mark.parametrize("text", WESTERN)
def test_windows_1252_is_decoded(text):
    assert repair(text.encode("cp1252"), True) == (text.encode(), ("cp1252",))
    assert repair(text.encode("cp1252"), False) is None
    assert repair(text.encode(), True) == (text.encode(), ())


@pytest.mark.parametrize(("encoding", "text"), OTHER)
def test_other_code_pages_are_not_taken_for_windows_1252(encoding, text):
    assert repair(text.encode(encoding), True) is None
    assert repair(text.encode(), True) == (text.encode(), ())


def test_broken_utf8_is_not_taken_for_windows_1252():
    whole = "ein schöner Tag für Übermut".encode()
    assert repair(whole.replace("ü".encode(), b"\xc3", 1), True) is None
    assert repair(b"bytes \x00\x01\x02 and caf\xe9", True) is None


@pytest.mark.parametrize("through", ["cp1252", "latin-1"])
@pytest.mark.parametrize(
    "text", ["café fermé", "it’s “quoted” — so", "£5 © 2020", "привет, мир", "中文字", "à la 😀"]
)
def test_mojibake_is_undone_in_its_line_only(text, through):
    try:
        broken = text.encode().decode(through)
    except UnicodeDecodeError:  # Windows-1252 lacks five bytes; ftfy's own variant has them
        broken = "".join(
            bytes([b]).decode("cp1252" if b not in b"\x81\x8d\x8f\x90\x9d" else "latin-1")
            for b in text.encode()
        )
    assert broken != text
    around = "sound: “é”, « né »"
    data = f"{around}\n{broken}\n{around}".encode()
    assert repair(data, True) == (f"{around}\n{text}\n{around}".encode(), ("mojibake",))
    assert repair(data, False) == (data, ())


@pytest.mark.parametrize(
    "text",
    [
        *WESTERN,
        *(text for _, text in OTHER),
        "IRMÃ E PÃO, É”, Â, â, Ã",
        "├── tree\n└── end",
        "Ørsted Å ÄÖ ÂÊ",
    ],
)
def test_sound_text_is_left_alone(text):
    assert repair(text.encode(), True) == (text.encode(), ())


@given(st.text())
def test_repair_gives_text_and_loses_none_that_is_ascii(text):
    data, kinds = repair(text.encode(), True)
    assert data.decode() == text.removeprefix("\ufeff") or "mojibake" in kinds
    assert repair(text.encode(), False) == (
        text.removeprefix("\ufeff").encode(),
        ("bom",) * text.startswith("\ufeff"),
    )


@given(st.binary())
def test_repair_gives_utf8_or_nothing(data):
    fixed = repair(data, True)
    assert fixed is None or fixed[0].decode() is not None
    text = decode_cp1252(data)
    assert text is None or text.encode("cp1252") == data


IN_LANGUAGES = {
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах, они наделены.",
    "uk": "Всі люди народжуються вільними і рівними у своїй гідності та правах. Їх наділено.",
    "el": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "zh": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "tw": "人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心，並應以兄弟關係的精神相對待。",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม",
    "ar": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق، وقد وهبوا عقلا وضميرا وعليهم",
    "he": "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון",
}


@pytest.mark.parametrize(
    ("code", "encoding"),
    [
        *(("ru", encoding) for encoding in ("koi8_u", "cp1251", "iso8859-5", "cp866")),
        ("uk", "koi8_u"), ("uk", "cp1251"), ("el", "iso8859-7"), ("ja", "cp932"), ("ja", "euc_jp"),
        ("zh", "gb18030"), ("tw", "big5"), ("ko", "cp949"), ("th", "cp874"), ("ar", "cp1256"),
        ("he", "cp1255"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv"])
def test_text_that_is_in_the_language_of_an_encoding_is_in_it(tmp_path, code, encoding, suffix):
    text = IN_LANGUAGES[code]
    content = {
        ".txt": text,
        ".jsonl": json.dumps({"text": text}, ensure_ascii=False),
        ".csv": f'text\n"{text}"\n',
    }[suffix]
    documents, bad = read(tmp_path, f"a{suffix}", content.encode(encoding))
    assert not bad
    assert [(d.text.decode(), d.repaired) for d in documents] == [(text, (encoding,))]
    documents, bad = read(tmp_path, "b.txt", text.encode(encoding), repair_encoding=False)
    assert (documents, [b.reason for b in bad]) == ([], ["not_utf8"])


@pytest.mark.parametrize("code", IN_LANGUAGES)
def test_utf8_with_a_broken_place_is_in_no_other_encoding(code):
    data = bytearray((IN_LANGUAGES[code] * 3).encode())
    for place in range(7, len(data), 97):
        data[place] = 0xFF if data[place] < 0x80 else data[place] ^ 0x40
    assert repair(bytes(data), True) is None


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv"])
def test_utf16_and_utf32_by_their_mark(tmp_path, suffix, encoding):
    text = "Zwölf 😀 große Boxkämpfer " * 5000  # more than a block
    if suffix == ".jsonl":
        content = json.dumps({"text": text}, ensure_ascii=False)
    else:
        content = text if suffix == ".txt" else f"text\n{text}\n"
    data = ("\ufeff" + content).encode(encoding)
    documents, bad = read(tmp_path, f"a{suffix}", data)
    assert not bad
    assert [(d.text.decode(), d.repaired) for d in documents] == [(text, (encoding[:6],))]


def test_utf16_that_is_broken_or_not_wanted(tmp_path):
    data = "\ufeffsome text".encode("utf-16-le")
    assert [b.reason for b in read(tmp_path, "a.txt", data[:-1])[1]] == ["not_utf8"]
    assert [b.reason for b in read(tmp_path, "a.txt", data, repair_encoding=False)[1]] == [
        "not_utf8"
    ]
    binary = b"\xff\xfe" + b"".join(bytes([i, 0]) for i in range(1, 20))
    documents, bad = read(tmp_path, "b.txt", binary)
    assert not documents
    assert [b.reason for b in bad] == ["not_utf8"]


def test_kinds_in_json_lines(tmp_path):
    lines = [
        b'\xef\xbb\xbf{"text": "marked"}',
        '{"text": "déjà vu"}'.encode("cp1252"),
        '{"text": "déjà vu"}'.encode(),
        json.dumps({"text": "dÃ©jÃ  vu"}).encode(),
        rb'{"text": "both: d\u00c3\u00a9j\u00c3\u00a0 vu", "id": "' + "é".encode("cp1252") + b'"}',
    ]
    documents, bad = read(tmp_path, "a.jsonl", b"\n".join(lines))
    assert not bad
    assert [(d.text.decode(), d.repaired) for d in documents] == [
        ("marked", ("bom",)),
        ("déjà vu", ("cp1252",)),
        ("déjà vu", ()),
        ("déjà vu", ("mojibake",)),
        ("both: déjà vu", ("cp1252", "mojibake")),
    ]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1250", "Minden emberi lény egyenlő méltósággal és joggal születik, űr és őr."),
        ("cp1257", "Visi žmonės gimsta laisvi ir lygūs savo orumu ir teisėmis. Jiems duota"),
    ],
)
def test_hungarian_and_lithuanian_code_pages_are_not_windows_1252(encoding, text):
    assert decode_cp1252(text.encode(encoding)) is None
