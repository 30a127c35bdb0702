"""Bars: how often a value occurs, and quantities side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from poise.report.axes import linear_axis, round_step
from poise.report.figure import TONES, Figure, LegendEntry, coordinate, empty, plot, render_legend
from poise.report.formatting import Unit, check_unit, format_value
from poise.report.markup import element, escape, inline
from poise.report.table import Table

# Whole numbers over at most so wide a range get one bar each.
_SINGLE = 40
_BARS = 20
_LARGEST = 1e300


def histogram(
    values: Sequence[float | None] | Mapping[float, int],
    *,
    title: str,
    x_label: str,
    y_label: str = "samples",
    unit: Unit = "number",
    caption: str | None = None,
    description: str | None = None,
) -> Figure:
    """Draw how often values occur: one bar for each whole number where they are few, else about twenty equal bins.

    Values that are not finite are left out, and the figure says how many.

    Args:
        values: the values themselves, or how often each one occurs.
        title: the heading.
        x_label, y_label: what the axes show.
        unit: how values are written (`format_value`).
        caption: a sentence under the heading; none given means count, median and 95th percentile.
        description: the text alternative; none given means the caption with the extremes.

    Raises:
        ValueError: a count is negative, or the unit is unknown.
    """
    check_unit(unit)
    pairs = list(values.items()) if isinstance(values, Mapping) else [(value, 1) for value in values]
    for value, count in pairs:
        if count < 0:
            raise ValueError(f"the value {value} occurs {count} times; give counts of 0 or more.")
    pairs = [(float(v), int(n)) for v, n in pairs if v is not None and n > 0]
    left_out = sum(n for v, n in pairs if not abs(v) <= _LARGEST)
    notes = (f"Not drawn: {left_out:,} that are not finite.",) if left_out else ()
    pairs = sorted((v, n) for v, n in pairs if abs(v) <= _LARGEST)
    if not pairs:
        return empty(title, caption or "", notes)
    low, width, whole, counts = _bins(pairs)
    x = linear_axis([v for v, _ in pairs], unit=unit, round_out=False, across=True)
    x = x.stretched(min(x.low, low), max(x.high, low + width * len(counts)))
    y = linear_axis([0.0, *map(float, counts)])
    marks, rows = [], []
    for place, count in enumerate(counts):
        start = low + place * width
        if whole and width == 1:
            name = format_value(round(start + 0.5), unit)
        else:
            name = f"{_short(start, unit)} to {_short(start + width - whole, unit)}"
        rows.append((name, count))
        if count:
            marks.append(_column(x.position(start), x.position(start + width), y.position(count), f"{name}: {count:,}"))
    total = sum(n for _, n in pairs)
    if caption is None:
        median, tail = (_short(_quantile(pairs, share), unit) for share in (0.5, 0.95))
        caption = f"{total:,} {y_label}: median {median}, 95 % within {tail}."
    if description is None:
        ends = f"from {_short(pairs[0][0], unit)} to {_short(pairs[-1][0], unit)}"
        description = f"Histogram of {x_label}, {ends}. {caption}"
    body = plot(
        [element("g", *marks, class_="bars blue")],
        title=title,
        description=description,
        x=x,
        y=y,
        x_label=x_label,
        y_label=y_label,
    )
    return Figure(title, body, caption, notes, Table((x_label, y_label), rows))


def bar_chart(
    categories: Sequence[str],
    groups: Mapping[str, Sequence[float | None]],
    *,
    title: str,
    label: str = "",
    unit: Unit = "number",
    caption: str = "",
    description: str | None = None,
) -> Figure:
    """Draw quantities as horizontal bars from zero, those of one category together, each with its value beside it.

    Args:
        categories: one name a place, from the top.
        groups: by name (DEQ, unrolled), one value a category; None and what is not finite have no bar.
        title: the heading.
        label: what the bars measure, with its unit.
        unit: how values are written (`format_value`).
        caption: a sentence under the heading.
        description: the text alternative; none given means all the values in a sentence.

    Raises:
        ValueError: a group has another length than `categories`, or the unit is unknown.
    """
    check_unit(unit)
    for name, values in groups.items():
        if len(values) != len(categories):
            raise ValueError(f"group {name!r} has {len(values)} values; give {len(categories)}, one a category.")
    table = Table(
        ("", *groups),
        [(category, *(values[c] for values in groups.values())) for c, category in enumerate(categories)],
        label,
        ("number", *(unit,) * len(groups)),
    )
    finite = [float(v) for values in groups.values() for v in values if v is not None and abs(v) <= _LARGEST]
    if not finite:
        return empty(title, caption)
    low, high = min(0.0, *finite), max(0.0, *finite)
    tones = {name: TONES[place % len(TONES)] for place, name in enumerate(groups)}
    rows = []
    for c, category in enumerate(categories):
        bars = (_row(values[c], low, high, unit, tones[name]) for name, values in groups.items())
        rows.append(element("dt", inline(category)) + element("dd", *bars))
    if description is None:
        description = f"Bars of {label or title}. " + " ".join(
            f"{category}: {', '.join(f'{name} {format_value(values[c], unit)}' for name, values in groups.items())}."
            for c, category in enumerate(categories)
        )
    legend = render_legend([LegendEntry(name, f"bars {tone}") for name, tone in tones.items()])
    head = element("p", inline(label), class_="y-label") if label else ""
    bars_of_all = element("div", head, element("dl", *rows), class_="rows", role="img", aria_label=description)
    return Figure(title, legend + bars_of_all, caption, (), table)


def _bins(pairs: Sequence[tuple[float, int]]) -> tuple[float, float, bool, list[int]]:
    """Count sorted (value, times) pairs in equal bins: (low end, width, whether of whole numbers, counts)."""
    low, high = pairs[0][0], pairs[-1][0]
    whole = all(value == int(value) for value, _ in pairs) and abs(low) < 1e9 and abs(high) < 1e9
    if whole and high - low <= _SINGLE:
        start, width = low - 0.5, 1.0
    elif high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-290):
        # One value only: it stands in the middle of its bar.
        width = abs(low) or 1.0
        return low - width / 2, width, False, [sum(n for _, n in pairs)]
    else:
        width = round_step((high - low) / _BARS)
        width = max(width, 1.0) if whole else width
        start = math.floor(low / width) * width
    counts = [0] * (int((high - start) / width) + 1)
    for value, times in pairs:
        counts[min(int((value - start) / width), len(counts) - 1)] += times
    return start, width, whole, counts


def _quantile(pairs: Sequence[tuple[float, int]], share: float) -> float:
    """Give the smallest value that at least this share of sorted (value, times) pairs does not exceed."""
    needed = share * sum(n for _, n in pairs)
    passed = 0
    for value, times in pairs:
        passed += times
        if passed >= needed:
            return value
    return pairs[-1][0]


def _short(value: float, unit: Unit) -> str:
    whole = unit == "number" and value == int(value) and abs(value) < 1e15
    return format_value(int(value) if whole else value, unit)


def _column(left: float, right: float, height: float, tip: str) -> str:
    gap = 0.08 * (right - left)
    place = f'x="{coordinate(left + gap)}" y="{coordinate(1 - height)}"'
    size = f'width="{coordinate(right - left - 2 * gap)}" height="{coordinate(height)}"'
    return f"<rect {place} {size}>{element('title', escape(tip))}</rect>"


def _row(value: float | None, low: float, high: float, unit: Unit, tone: str) -> str:
    written = element("span", escape(format_value(value, unit)), class_="value")
    length = value if value is not None and abs(value) <= _LARGEST else 0.0
    span = high - low or 1.0
    before, width = 100 * (min(0.0, length) - low) / span, 100 * abs(length) / span
    bar = element("span", class_=f"bar {tone}", style=f"margin-left:{before:.2f}%;width:{width:.2f}%")
    return element("div", bar, written, class_="row")
