"""Curves and clouds of points over two axes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from poise.report.axes import Axis, linear_axis, log_axis
from poise.report.figure import TONES, Figure, LegendEntry, coordinate, empty, plot
from poise.report.formatting import Unit, check_unit, format_value
from poise.report.markup import element
from poise.report.table import Table
from poise.report.thinning import spread, thin

Style = Literal["line", "faint", "dashed", "points"]
Tone = Literal["blue", "orange", "green", "purple", "rose", "brown", "neutral"]

_POINTS_A_CURVE = 250
_POINTS_A_CLOUD = 2000
_ROWS = 25
# Beyond this a range of float64 has no finite width.
_LARGEST = 1e300
# On a logarithmic axis less than this is as good as zero; near the end of float64 there are no round values to label.
_SMALLEST = 1e-300


@dataclass(frozen=True)
class Series:
    """One curve, or one cloud of points.

    Args:
        name: as the legend shows it; series of one name share a colour and a legend entry (eight samples, say).
        x, y: the points, in the order in which a curve runs through them. None is a value that was not measured:
            the curve breaks there, as at NaN and infinity.
        style: "line"; "faint", a thin grey one for what stands behind; "dashed", a grey one for a reference; "points".
        tone: the colour by name; none given means the next one of the palette, or grey for faint and dashed.
        markers: whether a line carries a dot at each point.

    Raises:
        ValueError: x and y differ in length, or the style or the tone is unknown.
    """

    name: str
    x: Sequence[float | None]
    y: Sequence[float | None]
    style: Style = "line"
    tone: Tone | None = None
    markers: bool = False

    def __post_init__(self) -> None:
        for axis in ("x", "y"):
            values = tuple(None if value is None else float(value) for value in getattr(self, axis))
            object.__setattr__(self, axis, values)
        if len(self.x) != len(self.y):
            raise ValueError(
                f"series {self.name!r} has {len(self.x)} x and {len(self.y)} y values; give as many of both."
            )
        if self.style not in get_args(Style):
            raise ValueError(
                f"series {self.name!r} has style {self.style!r}; give one of {', '.join(get_args(Style))}."
            )
        if self.tone is not None and self.tone not in get_args(Tone):
            raise ValueError(f"series {self.name!r} has tone {self.tone!r}; give one of {', '.join(get_args(Tone))}.")


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    from_zero: bool = False,
    x_unit: Unit = "number",
    y_unit: Unit = "number",
    caption: str = "",
    description: str | None = None,
) -> Figure:
    """Draw curves or clouds of points over two common axes.

    A curve is thinned to at most 250 points that keep its outline and extremes. What cannot be drawn (NaN, infinity,
    a value that is not positive on a logarithmic axis) is left out, and the figure says how many points that are.

    Args:
        series: what to draw; the later ones lie on top.
        title: the heading.
        x_label, y_label: what the axes show, with units: "loss (nats a token)".
        log_x, log_y: whether an axis is logarithmic.
        from_zero: whether a linear y axis starts at 0.
        x_unit, y_unit: how values are written (`format_value`).
        caption: a sentence under the heading.
        description: the text alternative; none given means one made of the curves' ends and extremes.

    Raises:
        ValueError: a unit is unknown.
    """
    check_unit(x_unit)
    check_unit(y_unit)
    curves = [_select(s, log_x, log_y) for s in series]
    notes = _notes(curves)
    points = [point for curve in curves for point in curve.points]
    if not points:
        return empty(title, caption, notes)
    xs, ys = [px for px, _ in points], [py for _, py in points]
    if log_x:
        x = log_axis(xs, unit=x_unit, round_out=False, across=True)
    else:
        x = linear_axis(xs, unit=x_unit, round_out=False, across=True)
    y = log_axis(ys, unit=y_unit) if log_y else linear_axis(ys, unit=y_unit, zero=from_zero)
    tones = _tones(series)
    body = plot(
        [_marks(curve, x, y, _classes(curve.series, tones)) for curve in curves if curve.points],
        title=title,
        description=description or _describe(curves, x_label, y_label, x_unit, y_unit),
        x=x,
        y=y,
        x_label=x_label,
        y_label=y_label,
        # One entry a name; where a name has several series, the last one's shape.
        legend=tuple({s.name: LegendEntry(s.name, _classes(s, tones)) for s in series}.values()),
    )
    return Figure(title, body, caption, notes, _table(series, x_label, x_unit, y_unit))


@dataclass(frozen=True)
class _Curve:
    """The points of a series that can be drawn, with their indices in it, and how many cannot and why."""

    series: Series
    indices: list[int]
    points: list[tuple[float, float]]
    not_finite: int
    not_positive: int


def _select(series: Series, log_x: bool, log_y: bool) -> _Curve:
    indices: list[int] = []
    points: list[tuple[float, float]] = []
    not_finite = not_positive = 0
    for index, (px, py) in enumerate(zip(series.x, series.y, strict=True)):
        if px is None or py is None:
            continue
        if not (abs(px) <= _LARGEST and abs(py) <= _LARGEST):
            not_finite += 1
        elif (log_x and px < _SMALLEST) or (log_y and py < _SMALLEST):
            not_positive += 1
        else:
            indices.append(index)
            points.append((px, py))
    return _Curve(series, indices, points, not_finite, not_positive)


def _notes(curves: Sequence[_Curve]) -> tuple[str, ...]:
    notes = []
    if not_finite := sum(curve.not_finite for curve in curves):
        notes.append(f"Not drawn: {_count(not_finite)} with a value that is not finite.")
    if not_positive := sum(curve.not_positive for curve in curves):
        notes.append(f"Not drawn: {_count(not_positive)} at or below zero, where a logarithmic axis has no place.")
    return tuple(notes)


def _count(count: int) -> str:
    return "1 point" if count == 1 else f"{count:,} points"


def _tones(series: Sequence[Series]) -> dict[str, str]:
    """Give each name its colour, as classes."""
    tones: dict[str, str] = {}
    taken = 0
    for s in series:
        if s.name in tones:
            continue
        if s.tone is not None:
            tones[s.name] = s.tone
        elif s.style in ("faint", "dashed"):
            tones[s.name] = "neutral"
        else:
            # After one round of the palette the lines are broken, so that no two look alike.
            tones[s.name] = TONES[taken % len(TONES)] + (" again" if taken >= len(TONES) else "")
            taken += 1
    return tones


def _classes(series: Series, tones: dict[str, str]) -> str:
    return f"{series.style} {tones[series.name]}{' markers' if series.markers else ''}"


def _marks(curve: _Curve, x: Axis, y: Axis, classes: str) -> str:
    """Write one series: its line, broken where points are missing, and its dots."""
    places = [(x.position(px), y.position(py)) for px, py in curve.points]
    if curve.series.style == "points":
        return element("g", _dots([_at(*places[k]) for k in spread(len(places), _POINTS_A_CLOUD)]), class_=classes)
    kept = thin([across for across, _ in places], [up for _, up in places], _POINTS_A_CURVE)
    # Two points kept stay joined only where no point between them is missing.
    runs: list[list[int]] = []
    for k in kept:
        if runs and curve.indices[k] - curve.indices[runs[-1][-1]] == k - runs[-1][-1]:
            runs[-1].append(k)
        else:
            runs.append([k])
    lines = "".join("M" + "L".join(_at(*places[k]) for k in run) for run in runs if len(run) > 1)
    # A point without neighbours would be invisible as a line.
    dots = kept if curve.series.markers else [run[0] for run in runs if len(run) == 1]
    line = f'<path class="stroke" d="{lines}"/>' if lines else ""
    return element("g", line, _dots([_at(*places[k]) for k in dots]), class_=classes)


def _at(across: float, up: float) -> str:
    return f"{coordinate(across)} {coordinate(1 - up)}"


def _dots(places: Sequence[str]) -> str:
    # A line of no length with round ends stays round however the plot is stretched.
    return f'<path class="dot" d="{"".join(f"M{place}h0" for place in places)}"/>' if places else ""


def _describe(curves: Sequence[_Curve], x_label: str, y_label: str, x_unit: Unit, y_unit: Unit) -> str:
    """Say in words what the curves show: their ends and their lowest values."""
    by_name: dict[str, list[_Curve]] = {}
    for curve in curves:
        if curve.points:
            by_name.setdefault(curve.series.name, []).append(curve)
    sentences = [f"{y_label} against {x_label}."]
    for name, members in by_name.items():
        values = [py for curve in members for _, py in curve.points]
        low, high = format_value(min(values), y_unit), format_value(max(values), y_unit)
        if len(members) > 1:
            sentences.append(f"{name}: {len(members)} curves between {low} and {high}.")
        elif members[0].series.style == "points":
            sentences.append(f"{name}: {_count(len(values))} between {low} and {high}.")
        else:
            (x0, y0), (x1, y1) = members[0].points[0], members[0].points[-1]
            sentence = f"{name}: {format_value(y0, y_unit)} at {format_value(x0, x_unit)}"
            if len(values) > 1:
                sentence += f", {format_value(y1, y_unit)} at {format_value(x1, x_unit)}"
            if min(values) < min(y0, y1):
                sentence += f", lowest {low}"
            sentences.append(f"{sentence}.")
    return " ".join(sentences)


def _table(series: Sequence[Series], x_label: str, x_unit: Unit, y_unit: Unit) -> Table:
    """Gather the series by x and keep at most 25 rows, those first at which most series have a value."""
    times, place = Counter(s.name for s in series), Counter[str]()
    names: list[str] = []
    columns: list[dict[float, float | None]] = []
    for s in series:
        place[s.name] += 1
        names.append(f"{s.name} {place[s.name]}" if times[s.name] > 1 else s.name)
        columns.append({px: py for px, py in zip(s.x, s.y, strict=True) if px is not None and not math.isnan(px)})
    coverage = Counter(px for column in columns for px in column)
    rows: list[float] = []
    for level in range(len(series), 0, -1):
        rows += [px for px, covered in coverage.items() if covered == level]
        if len(rows) >= _ROWS // 3:
            break
    rows.sort()
    shown = [rows[k] for k in spread(len(rows), _ROWS)]
    total = sum(len(s.x) for s in series)
    caption = f"{len(shown)} of {len(coverage):,} values of x" if len(shown) < len(coverage) else _count(total)
    return Table(
        (x_label, *names),
        [(_plain(px), *(_plain(column.get(px)) for column in columns)) for px in shown],
        caption,
        (x_unit, *(y_unit,) * len(series)),
    )


def _plain(value: float | None) -> float | int | None:
    return int(value) if value is not None and abs(value) < 1e15 and value == int(value) else value
