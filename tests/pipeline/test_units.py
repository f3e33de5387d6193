import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.plan.units import FlagError, fraction, quantity, whole


def tokens(text, **options):
    return quantity("--tokens", text, "tokens", most=1e17, **options)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("540e9", 540e9),
        ("2.5E9", 2.5e9),
        ("1.5B", 1.5e9),
        ("12.8b", 12.8e9),
        ("300M", 3e8),
        ("1.4T", 1.4e12),
        ("10k", 1e4),
        ("6,144", 6144),
        ("1_000", 1000),
        (" 7 G ", 7e9),
        (".5M", 5e5),
        ("1.", 1),
    ],
)
def test_numbers_as_people_type_them(text, value):
    assert tokens(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "value"), [("50GB", 5e10), ("1KiB", 1024), ("2TiB", 2**41), ("3B", 3e9), ("1pb", 1e15)]
)
def test_bytes_have_units_of_their_own(text, value):
    assert tokens(text, is_bytes=True) == value
    if text.lower().endswith("ib") or text[-2:].isalpha():
        with pytest.raises(FlagError, match="--tokens"):
            tokens(text)


@pytest.mark.parametrize(
    "text", ["", "x", "1x", "1e", "1 2", "--1", "nan", "inf", "1e999", "0", "-1", "1e18", "²"]
)
def test_anything_else_is_refused_by_name(text):
    with pytest.raises(FlagError, match="--tokens"):
        tokens(text)


@given(st.floats(1e-6, 1e15))
def test_a_printed_number_is_read_back(value):
    assert tokens(repr(value)) == pytest.approx(value)
    assert tokens(f"{value / 1e9!r}B") == pytest.approx(value)


@given(st.floats(1e-6, 1))
def test_percent_is_a_hundredth(value):
    assert fraction("--mfu", repr(value)) == value
    assert fraction("--mfu", f"{value * 100!r}%") == pytest.approx(value)


@pytest.mark.parametrize("text", ["0", "1.1", "40", "101%", "-1%", "0.4x", "half"])
def test_no_fraction(text):
    with pytest.raises(FlagError, match="--mfu"):
        fraction("--mfu", text)


@given(st.integers(1, 10**6))
def test_whole_numbers(value):
    assert whole("--chips", f"{value:,}", "chips", most=1e7) == value
    with pytest.raises(FlagError, match="whole number"):
        whole("--chips", f"{value}.5", "chips", most=1e7)


def test_zero_where_it_is_allowed():
    assert tokens("0", zero_ok=True) == 0
    with pytest.raises(FlagError, match="zero or more"):
        tokens("-1", zero_ok=True)
