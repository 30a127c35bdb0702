import math
import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poise.report import Table, Unit, format_value


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [
        (1.566, "number", "1.566"),
        (3.2e-4, "number", "3.2e-4"),
        (1e-4, "number", "1e-4"),
        (9.999e-4, "number", "1e-3"),
        (0.00123456, "number", "0.001235"),
        (799_412, "number", "799,412"),
        (999.99, "number", "1,000"),
        (1234567.8, "number", "1,234,568"),
        (2.5e12, "number", "2.5e12"),
        (-11.25, "number", "-11.25"),
        (0.0, "number", "0"),
        (None, "number", "\N{EN DASH}"),
        (None, "bytes", "\N{EN DASH}"),
        (True, "number", "yes"),
        ("muon", "number", "muon"),
        (math.nan, "seconds", "NaN"),
        (-math.inf, "number", "-inf"),
        (512, "bytes", "512 B"),
        (12_345_678, "bytes", "12.3 MB"),
        (999_900, "bytes", "1 MB"),
        (999, "bytes", "999 B"),
        (2.5e18, "bytes", "2,500 PB"),
        (0.00032, "seconds", "320 µs"),
        (0.32, "seconds", "320 ms"),
        (42.13, "seconds", "42.1 s"),
        (183.4, "seconds", "3 min 3 s"),
        (7199.7, "seconds", "2 h"),
        (11_520, "seconds", "3 h 12 min"),
        (0.9921, "percent", "99.2 %"),
        (1.0, "percent", "100 %"),
        (0.999_999, "percent", "> 99.9 %"),
        (0.000_001, "percent", "< 0.1 %"),
        (0, "percent", "0 %"),
    ],
)
def test_values_are_written_for_a_reader(value, unit, written):
    assert format_value(value, unit) == written


@given(st.floats(min_value=-1e308, max_value=1e308))
def test_a_plain_number_reads_back_to_two_digits(value):
    assert float(format_value(value).replace(",", "")) == pytest.approx(value, rel=0.051, abs=1e-320)


@given(st.floats(min_value=1e-12, max_value=1e300), st.sampled_from(get_args(Unit)))
def test_a_positive_value_in_any_unit_is_short_and_never_nothing(value, unit):
    written = format_value(value, unit)
    assert len(written) <= 18
    assert re.search("[1-9]", written)
    if unit == "bytes":
        number, name = written.replace(",", "").split()
        factor = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15}[name]
        assert float(number) * factor == pytest.approx(value, rel=0.0051)


def test_an_unknown_unit_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown unit 'furlong'; give one of number, bytes, seconds, percent\."):
        format_value(1.0, "furlong")
    with pytest.raises(ValueError, match="unknown unit 'furlong'"):
        Table(("a",), [(1,)], units=("furlong",))
