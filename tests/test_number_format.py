import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.number_format import (
    approximate,
    byte_size,
    count,
    decimal,
    duration,
    flops_per_second,
    power_of_ten,
    usd,
    usd_price,
    with_letter,
)


@pytest.mark.parametrize(
    ("write", "number", "text"),
    [
        (count, 0, "0"),
        (count, 999.5, "1,000"),
        (count, 81_784, "81,784"),
        (count, -338, "-338"),
        (count, 999_999_999, "999,999,999"),
        (count, 999_999_999.6, "1 billion"),
        (count, 1.3e9, "1.3 billion"),
        (count, -1.3e12, "-1.3 trillion"),
        (count, 1e15, "1 quadrillion"),
        (count, 2.5e19, "2.5e19"),
        (approximate, 0, "0"),
        (approximate, 0.2493, "0.249"),
        (approximate, 999.5, "1,000"),
        (approximate, 81_784, "81,784"),
        (approximate, 999_499, "999,499"),
        (approximate, 999_999, "1 million"),
        (approximate, 84_164_000, "84.2 million"),
        (approximate, 999.9e9, "1 trillion"),
        (approximate, math.inf, "inf"),
        (decimal, 1e-12, "1e-12"),
        (decimal, 0.00011126, "0.000111"),
        (decimal, -0.5, "-0.5"),
        (decimal, 9.999, "10"),
        (decimal, 1234.6, "1,235"),
        (power_of_ten, 0, "0"),
        (power_of_ten, 2.969e13, "2.97e13"),
        (power_of_ten, 9.999e14, "1e15"),
        (power_of_ten, 1e-9, "1e-9"),
        (with_letter, 999_949, "999,949"),
        (with_letter, 999_951, "1M"),
        (with_letter, 124_439_808, "124.4M"),
        (with_letter, 6.74e9, "6.74B"),
        (with_letter, 999_999e6, "1T"),
        (with_letter, 1e15, "1,000T"),
        (usd, 0, "$0.00"),
        (usd, 1e-9, "<$0.000001"),
        (usd, -1e-9, "-<$0.000001"),
        (usd, 3.97e-6, "$0.00000397"),
        (usd, 0.00123456, "$0.00123"),
        (usd, 0.0996, "$0.0996"),
        (usd, 0.09996, "$0.10"),
        (usd, 1.234, "$1.23"),
        (usd, -3, "-$3.00"),
        (usd, 999.5, "$999.50"),
        (usd, 999.996, "$1,000"),
        (usd, 1e3, "$1,000"),
        (usd, 999_999.7, "$1 million"),
        (usd, 1e6, "$1 million"),
        (usd, 999_999_999, "$1 billion"),
        (usd, 1.2e9, "$1.2 billion"),
        (usd, 1e15, "$1 quadrillion"),
        (usd_price, 0, "$0.00"),
        (usd_price, 2.7, "$2.70"),
        (usd_price, 0.7992, "$0.7992"),
        (usd_price, 1234.5, "$1,234.50"),
        (usd_price, 1e-9, "$1e-9"),
        (byte_size, 0, "0 bytes"),
        (byte_size, 1, "1 byte"),
        (byte_size, 999.5, "1 kB"),
        (byte_size, 403_700, "404 kB"),
        (byte_size, 13.84e6, "13.8 MB"),
        (byte_size, 999.96e9, "1 TB"),
        (byte_size, 8.05e12, "8.05 TB"),
        (byte_size, 1e15, "1 PB"),
        (byte_size, -2e6, "-2 MB"),
        (flops_per_second, 0, "0 FLOP/s"),
        (flops_per_second, 1.71e11, "171 GFLOP/s"),
        (flops_per_second, 1e18, "1 EFLOP/s"),
        (duration, 0, "0.0 s"),
        (duration, 59.96, "1 min 00 s"),
        (duration, 186.2, "3 min 06 s"),
        (duration, 999.5, "16 min 40 s"),
        (duration, 3599.6, "1.0 h"),
        (duration, 1e5, "27.8 h"),
        (duration, 1e6, "11.6 days"),
        (duration, 1e9, "31.7 years"),
        (duration, 1e15, "31.7 million years"),
        (duration, -65, "-1 min 05 s"),
    ],
)  # fmt: skip
def test_numbers_read_as_people_write_them(write, number, text):
    assert write(number) == text


WRITERS = (count, approximate, decimal, with_letter, usd, byte_size, flops_per_second, duration)


@given(st.sampled_from(WRITERS), st.floats(1e-6, 9e17), st.sampled_from((1, -1)))
def test_no_exponent_within_what_people_count(write, number, sign):
    assert "e+" not in write(sign * number)
    assert "e-" not in write(sign * number)
    assert write(sign * number).replace("-", "") == write(number)


FACTORS = {"million": 1e6, "billion": 1e9, "trillion": 1e12, "quadrillion": 1e15}


@given(st.floats(1e-5, 9e17))
def test_what_is_written_is_within_half_a_digit(number):
    for text, most in ((approximate(number), 0.0051), (usd(number).lstrip("$"), 0.051)):
        value, _, word = text.partition(" ")
        assert float(value.replace(",", "")) * FACTORS.get(word, 1) == pytest.approx(number, most)
