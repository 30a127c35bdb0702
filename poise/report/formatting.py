"""How numbers are written for a reader: four significant digits, thousands apart, units that fit."""

from __future__ import annotations

import math
import numbers
from typing import Literal, get_args

Unit = Literal["number", "bytes", "seconds", "percent"]

MISSING = "\u2013"  # en dash

# From here on a number is written with an exponent.
_LONGEST = 1e12

_BYTES = ((1.0, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"), (1e12, "TB"), (1e15, "PB"))


def check_unit(unit: str) -> None:
    """Refuse a unit that nothing here can write.

    Args:
        unit: what a caller gave.

    Raises:
        ValueError: it is none of `Unit`.
    """
    if unit not in get_args(Unit):
        raise ValueError(f"unknown unit {unit!r}; give one of {', '.join(get_args(Unit))}.")


def is_number(value: object) -> bool:
    """Say whether a value is a real number; a truth value is none.

    Args:
        value: anything.
    """
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def format_value(value: object, unit: Unit = "number") -> str:
    """Write one value for a reader, in its unit.

    Args:
        value: a number; None gives an en dash, a truth value "yes" or "no", anything else its own text.
        unit: "number" (1.566, 3.2e-4, 799,412), "bytes" (12.3 MB; decimal prefixes), "seconds" (320 ms, 2 min 5 s)
            or "percent" (a fraction: 0.992 gives 99.2 %).

    Raises:
        ValueError: the unit is unknown.
    """
    check_unit(unit)
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, numbers.Real):
        return str(value)
    if isinstance(value, numbers.Integral) and unit == "number":
        return f"{int(value):,}"
    x = float(value)
    if not math.isfinite(x):
        return "NaN" if math.isnan(x) else ("inf" if x > 0 else "-inf")
    match unit:
        case "bytes":
            return _format_bytes(x)
        case "seconds":
            return _format_seconds(x)
        case "percent":
            # Rounding must not turn one failure in a million into "100 %", nor one success into "0 %".
            if abs(x) >= 1e5:
                return f"{_format_number(100 * x)} %"
            digits = f"{100 * x:.1f}"
            if digits == "100.0" and x < 1:
                return "> 99.9 %"
            if digits == "0.0" and x > 0:
                return "< 0.1 %"
            return f"{digits.removesuffix('.0')} %"
    return _format_number(x)


def scientific(x: float, digits: int) -> str:
    """Write a finite number as mantissa and exponent, without padding: 3.2e-4, 1e6.

    Args:
        x: the number.
        digits: significant digits of the mantissa, at least 1.
    """
    mantissa, exponent = f"{x:.{digits - 1}e}".split("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"


def unit_of_axis(largest: float, unit: Unit) -> tuple[float, str]:
    """Choose the one unit in which all the ticks of an axis are written.

    Args:
        largest: the largest absolute value on the axis, in base units (bytes, seconds, a fraction).
        unit: what the values are.

    Returns:
        (the base units in one axis unit, the suffix of a label, with its leading space).
    """
    match unit:
        case "bytes":
            factor, name = max((b for b in _BYTES if b[0] <= max(largest, 1.0)), key=lambda b: b[0])
            return factor, f" {name}"
        case "seconds":
            for factor, name in ((3600.0, " h"), (60.0, " min"), (1.0, " s")):
                if largest >= 2 * factor or factor == 1.0 <= largest:
                    return factor, name
            return (1e-3, " ms") if largest >= 1e-3 or largest == 0 else (1e-6, " µs")
        case "percent":
            return 0.01, " %"
    return 1.0, ""


def _format_number(x: float) -> str:
    if x == 0:
        return "0"
    rounded = abs(float(f"{x:.4g}"))
    if rounded < 1e-3:
        return scientific(x, 2)
    if rounded < 1000:
        return f"{x:.4g}"
    return f"{x:,.0f}" if rounded < _LONGEST else scientific(x, 4)


def _format_bytes(x: float) -> str:
    # A value is moved to the next prefix when its three digits round up to 1,000.
    for factor, name in _BYTES:
        if abs(float(f"{x / factor:.3g}")) < 1000:
            return f"{x / factor:.3g} {name}"
    factor, name = _BYTES[-1]
    return f"{_format_number(float(f'{x / factor:.3g}'))} {name}"


def _format_seconds(x: float) -> str:
    if x < 0:
        return f"-{_format_seconds(-x)}"
    if x == 0:
        return "0 s"
    for factor, name in ((1e-6, "µs"), (1e-3, "ms"), (1.0, "s")):
        scaled = float(f"{x / factor:.3g}")
        if scaled < (120 if name == "s" else 1000):
            return f"{scaled:g} {name}"
    whole = round(x)
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    if x >= 3600e6:
        return f"{_format_number(float(f'{x / 3600:.4g}'))} h"
    minutes = round(x / 60)
    return f"{minutes // 60:,} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60:,} h"
