"""Linear and logarithmic axes: where a value lies, and where the ticks stand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from poise.report.formatting import Unit, format_value, scientific, unit_of_axis

# The labels of a horizontal axis must fit side by side on a phone: so many characters in all.
_CHARACTERS_ACROSS = 32


@dataclass(frozen=True)
class Tick:
    """One tick of an axis.

    Args:
        position: 0 at the axis' low end, 1 at its high end.
        label: plain text; of a power of ten, its exponent alone.
        power: whether the label is the exponent of ten.
    """

    position: float
    label: str
    power: bool = False


@dataclass(frozen=True)
class Axis:
    """A range of values and its ticks.

    Args:
        low, high: the range's ends, as values (as exponents of ten where `log`); low < high.
        log: whether equal distances are equal ratios.
        ticks: in rising order.
    """

    low: float
    high: float
    log: bool
    ticks: tuple[Tick, ...]

    def position(self, value: float) -> float:
        """Say where a value lies: 0 at the low end, 1 at the high end.

        Args:
            value: a finite number, positive where the axis is logarithmic.
        """
        return _position(math.log10(value) if self.log else value, self.low, self.high)

    def stretched(self, low: float, high: float) -> Axis:
        """Move the ends and keep the ticks at their values.

        Args:
            low, high: the new ends, no narrower than the old ones.
        """
        offset, scale = (self.low - low) / (high - low), (self.high - self.low) / (high - low)
        ticks = tuple(replace(tick, position=offset + scale * tick.position) for tick in self.ticks)
        return Axis(low, high, self.log, ticks)


def linear_axis(
    values: Sequence[float],
    *,
    unit: Unit = "number",
    zero: bool = False,
    round_out: bool = True,
    across: bool = False,
) -> Axis:
    """Make a linear axis that holds all the values.

    Args:
        values: finite numbers, at least one, none beyond 1e300.
        unit: how the ticks are labelled.
        zero: whether the axis must contain 0.
        round_out: whether the ends move out to the next ticks; otherwise they are the outermost values.
        across: whether labels stand side by side, and must be few enough for it.
    """
    low, high = min(values), max(values)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    whole = unit == "number" and all(value == int(value) for value in values)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-290):
        # One value only: it stands in the middle of a range of its own size.
        half = 0.5 if whole and abs(low) < 1e9 else 0.5 * abs(low) or 0.5
        low, high = low - half, high + half
    largest = max(abs(low), abs(high))
    factor, suffix = unit_of_axis(largest, unit)
    if unit == "number" and high - low >= 0.02 * largest and 1e6 <= largest < 1e9:
        factor, suffix = 1e6, "M"
    low, high = low / factor, high / factor
    for target in (6, 4, 3, 2) if across else (5,):
        step = round_step((high - low) / target)
        if whole:
            step = max(step, 1.0 / factor)
        outer = round_out and (high - low) / step > 0.5
        first = math.floor(low / step + 1e-9) if outer else math.ceil(low / step - 1e-9)
        last = math.ceil(high / step - 1e-9) if outer else math.floor(high / step + 1e-9)
        labels = {k: _label(k, step, max(abs(low), abs(high))) + suffix * (k != 0) for k in range(first, last + 1)}
        if sum(map(len, labels.values())) <= _CHARACTERS_ACROSS:
            break
    if outer:
        low, high = min(low, first * step), max(high, last * step)
    ticks = tuple(Tick(_position(k * step, low, high), label) for k, label in labels.items())
    return Axis(low * factor, high * factor, False, ticks)


def log_axis(values: Sequence[float], *, unit: Unit = "number", round_out: bool = True, across: bool = False) -> Axis:
    """Make a logarithmic axis that holds all the values.

    Args:
        values: positive finite numbers, at least one.
        unit: how the ticks are labelled.
        round_out: whether a little room is left at both ends.
        across: whether labels stand side by side, and must be few enough for it.
    """
    low, high = math.log10(min(values)), math.log10(max(values))
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    elif round_out:
        room = 0.04 * (high - low)
        low, high = low - room, high + room
    for values, powers in _log_values(low, high, 6 if across else 8):
        powers = powers and unit == "number" and not (min(values) >= 1e-2 and max(values) <= 1e4)
        labels = {value: str(round(math.log10(value))) if powers else _log_label(value, unit) for value in values}
        if not across or sum(len(label) for label in labels.values()) <= _CHARACTERS_ACROSS:
            break
    ticks = (Tick(_position(math.log10(value), low, high), label, powers) for value, label in labels.items())
    return Axis(low, high, True, tuple(ticks))


def round_step(raw: float) -> float:
    """Round a distance up to 1, 2 or 5 times a power of ten.

    Args:
        raw: a positive finite number.
    """
    power = math.floor(math.log10(raw))
    for digit in (1, 2, 5):
        step = digit * 10.0**power
        if raw <= step * (1 + 1e-9):
            return step
    return 10.0 ** (power + 1)


def _log_values(low: float, high: float, most: int) -> Iterator[tuple[list[float], bool]]:
    """Propose round values between two powers of ten given as exponents, from many to few: (values, all powers)."""
    # No tick beyond what float64 can hold; the room left at the ends may reach further.
    decades = range(max(math.ceil(low - 1e-9), -323), min(math.floor(high + 1e-9), 308) + 1)
    if len(decades) >= 3 or (len(decades) == 2 and high - low > 1.5):
        stride = math.ceil(len(decades) / most)
        for wider in (1, 2, 3):
            yield [10.0**decade for decade in decades if decade % (stride * wider) == 0] or [10.0 ** decades[0]], True
        return
    for digits in ((1, 2, 3, 5), (1, 2, 5), (1, 3)):
        values = [
            digit * 10.0**decade
            for decade in range(math.floor(low), math.ceil(high) + 1)
            for digit in digits
            if low - 1e-9 <= decade + math.log10(digit) <= high + 1e-9
        ]
        if 2 <= len(values) <= most:
            yield values, False
    # Less than a decade without round values in it: ticks of a linear axis, at their logarithms.
    for target in (3, 2, 1):
        step = round_step((10.0**high - 10.0**low) / target)
        first, last = math.ceil(10.0**low / step), math.floor(10.0**high / step)
        if first <= last:
            yield [k * step for k in range(first, last + 1)], False


def _log_label(value: float, unit: Unit) -> str:
    # Minutes and hours are no powers of ten.
    if unit == "seconds" and value >= 100:
        return f"{_log_label(value, 'number')} s"
    return scientific(value, 4) if unit == "number" and value >= 1e6 else format_value(value, unit)


def _position(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low)


def _label(k: int, step: float, largest: float) -> str:
    """Write the tick k * step with as many digits as tell it from its neighbours, in one way along an axis."""
    if k == 0:
        return "0"
    value = k * step
    if step < 1e-4 or largest >= 1e7:
        digits = math.floor(math.log10(abs(value)) + 1e-9) - math.floor(math.log10(step) + 1e-9) + 1
        return scientific(value, max(digits, 1))
    return f"{value:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
