"""Text put together token by token is the text of all tokens at once, up to a stop string."""

import codecs
import time

from hypothesis import example, given
from hypothesis import strategies as st

from serving.gateway.text_stream import TextStream

# Characters of one to four bytes, beginnings of some, and bytes that are never UTF-8.
ATOMS = [
    b"a", b"b", b" ", "é".encode(), "€".encode(), "😀".encode(), b"\xe2\x82", b"\xf0\x9f", b"\xc3",
    b"\xff", b"\x80", b"\xed\xa0\x80", b"\xe0\x80", b"\xf4\x90",
]  # fmt: skip
WHOLE = st.lists(st.sampled_from(ATOMS), max_size=24).map(b"".join)
STOPS = st.lists(st.text("ab €é😀\ufffd", min_size=1, max_size=4), max_size=4)


def cut(data, places):
    ends = sorted({min(place, len(data)) for place in places})
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


def naive_end(text, stops):
    """Where the text ends: at the stop string that ends first, of those at the longest."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return end - max(map(len, found))
    return None


def run(tokens, stops, drop_blank=False):
    stream = TextStream(stops, drop_blank)
    pieces = []
    for number, token in enumerate(tokens):
        pieces.append(stream.push(token, number))
        if stream.stopped:
            return stream, pieces
    pieces.append(stream.finish())
    return stream, pieces


@given(WHOLE, st.lists(st.integers(0, 60)), STOPS, st.booleans())
def test_any_cut_into_tokens_gives_the_text_of_the_whole(data, places, stops, drop_blank):
    tokens = cut(data, places)
    stream, pieces = run(tokens, stops, drop_blank)
    whole = data.decode("utf-8", "replace")
    whole = whole.removeprefix(" ") if drop_blank else whole
    end = naive_end(whole, stops)
    assert "".join(piece.text for piece in pieces) == whole[:end]
    assert stream.stopped is (end is not None)


@given(WHOLE, st.lists(st.integers(0, 60)), STOPS)
@example(b"\xed\xa0\x80", [1], [])
@example(b"\xed\xa0\x80", [2], [])
def test_tokens_come_in_order_each_with_the_place_of_its_first_character(data, places, stops):
    tokens = cut(data, places)
    _, pieces = run(tokens, stops)
    whole = data.decode("utf-8", "replace")
    end = naive_end(whole, stops)
    # Character by byte: each but the last of an incomplete sequence is decoded with what follows.
    owner = []
    for number, character in enumerate(characters(data)):
        owner += [number] * len(character)
    starts, place = [], 0
    for token in tokens:
        starts.append(owner[place] if token and place < len(owner) else None)
        place += len(token)
    found = [token for piece in pieces for token in piece.tokens]
    assert [number for _, number in found] == list(range(len(found)))
    for begins, number in found:
        if starts[number] is not None:
            assert begins == starts[number]
    if end is None:
        assert len(found) == len(tokens)
    else:
        shown = [n for n, start in enumerate(starts) if start is not None and start < end]
        assert [n for _, n in found if starts[n] is not None] == shown
    released = 0
    for piece in pieces:  # a token never comes before its text
        released += len(piece.text)
        assert all(begins <= released for begins, _ in piece.tokens)


def characters(data):
    """The bytes of each character of the decoded text."""
    found, text = [], ""
    for end in range(1, len(data) + 1):
        now = data[:end].decode("utf-8", "replace")
        grown = len(now) > len(text)
        found += [data[end - 1 : end]] if grown else []
        if not grown:
            found[-1] += data[end - 1 : end]
        text = now
    return found


@given(WHOLE, STOPS)
def test_only_what_may_become_a_stop_string_or_a_character_is_held_back(data, stops):
    stream, decoder = TextStream(stops), codecs.getincrementaldecoder("utf-8")("replace")
    shown = certain = ""
    for byte in data:
        shown += stream.push(bytes([byte]), None).text
        certain += decoder.decode(bytes([byte]))
        if stream.stopped:
            return
        assert certain.startswith(shown)
        held = certain[len(shown) :]
        assert not held or any(stop.startswith(held) for stop in stops)


def test_a_prompt_is_no_part_of_a_stop_string():
    stream = TextStream(["ab"])
    assert stream.push(b"xab a", "prompt", may_stop=False).text == "xab a"
    assert stream.push(b"b", "made").text == "b"
    assert not stream.stopped
    assert stream.push(b"ab", "made").text == ""
    assert stream.stopped


def test_time_is_linear_where_a_stop_string_almost_comes_again_and_again():
    def seconds(length):
        stream = TextStream(["a" * (length // 2) + "b"])
        started = time.process_time()
        for i in range(length):
            stream.push(b"a", i)
        stream.finish()
        return time.process_time() - started

    seconds(1000)
    small, large = (min(seconds(n) for _ in range(3)) for n in (4000, 32_000))
    assert large < 8 * small * 4
