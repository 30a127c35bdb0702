import math
import random
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poise.report import Page, Section, Series, bar_chart, histogram, line_chart, picture, render

ANY = st.none() | st.floats()
WORDS = {"title": "Loss", "x_label": "step", "y_label": "nats"}


def paths(figure, kind):
    """All points of the drawn paths of a kind ("stroke", "dot"), a list for each unbroken run."""
    runs = []
    for data in re.findall(r'<g class="[^"]*">.*?</g>', figure.body):
        for path in re.findall(rf'class="{kind}" d="([^"]*)"', data):
            for run in path.split("M")[1:]:
                runs.append([tuple(map(float, point.split())) for point in run.removesuffix("h0").split("L")])
    return runs


def tick_labels(figure, axis):
    """The labels of an axis with their positions in percent."""
    block = re.search(rf'class="{axis}-ticks".*?</div>', figure.body)[0]
    found = re.findall(r'<span style="(?:left|top):(?:min\()?([\d.]+)%[^"]*">(.*?)</span>', block)
    return [(float(place), label) for place, label in found]


class Text(HTMLParser):
    """The text of a document, and the text of its legends' entries."""

    def __init__(self):
        super().__init__()
        self.parts, self.legend, self.inside = [], [], False

    def handle_starttag(self, tag, attrs):
        self.inside = tag == "li" or (self.inside and tag != "ul")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "li"

    def handle_data(self, data):
        self.parts.append(data)
        if self.inside:
            self.legend.append(data)


def text_of(figure):
    reader = Text()
    reader.feed(render(Page("t", [Section("s", [figure])])).split("</style>")[1])
    return " ".join(reader.parts), reader.legend


def test_points_lie_where_their_values_say():
    figure = line_chart([Series("a", [0, 5, 10], [0, 20, 5])], **WORDS)
    assert paths(figure, "stroke") == [[(0, 1000), (500, 0), (1000, 750)]]
    assert tick_labels(figure, "x") == [(0, "0"), (20, "2"), (40, "4"), (60, "6"), (80, "8"), (100, "10")]
    assert tick_labels(figure, "y") == [(100, "0"), (75, "5"), (50, "10"), (25, "15"), (0, "20")]


def test_a_log_axis_has_equal_decades_and_leaves_out_what_it_cannot_show():
    figure = line_chart([Series("a", [0, 1, 2, 3, 4], [1, 0, -2, 1e-3, 1e-6])], log_y=True, **WORDS)
    labels = tick_labels(figure, "y")
    assert [label for _, label in labels] == [f"10<sup>{chr(0x2212) * (k > 0)}{k}</sup>" for k in range(6, -1, -1)]
    gaps = [labels[k][0] - labels[k + 1][0] for k in range(6)]
    assert gaps == pytest.approx([gaps[0]] * 6, abs=0.02)
    # The two left out part the first point from the others.
    assert [len(run) for run in paths(figure, "stroke")] == [2]
    assert len(paths(figure, "dot")) == 1
    assert "2 points at or below zero" in text_of(figure)[0]


def test_missing_points_break_the_curve_and_only_what_went_wrong_is_told():
    figure = line_chart([Series("a", range(9), [1, 2, None, 3, math.nan, 4, 5, math.inf, 6])], **WORDS)
    assert [len(run) for run in paths(figure, "stroke")] == [2, 2]
    assert len(paths(figure, "dot")) == 2
    assert "2 points with a value that is not finite" in text_of(figure)[0]
    assert not line_chart([Series("a", range(3), [1, None, 3])], **WORDS).notes


def test_a_long_curve_is_thinned_and_keeps_its_ends_extremes_and_gaps():
    draw = random.Random(0)
    y = [draw.uniform(1, 2) for _ in range(20_000)]
    y[0], y[-1], y[7_001], y[12_345], y[15_000] = 3.0, 4.0, 10.0, 0.0, math.nan
    before, after = paths(line_chart([Series("a", range(20_000), y)], **WORDS), "stroke")
    points = before + after
    assert 200 <= len(points) <= 250
    assert points[0] == (0, 700) and points[-1] == (1000, 600)
    assert (350.1, 0) in points and (617.3, 1000) in points
    assert before[-1][0] <= 750 <= after[0][0]


def test_markers_dot_every_point_and_points_have_no_line():
    marked = line_chart([Series("a", [1, 2, 3], [1, 2, 3], markers=True)], **WORDS)
    assert len(paths(marked, "dot")) == 3 and len(paths(marked, "stroke")) == 1
    cloud = line_chart([Series("a", [1, 2, 3], [1, 2, 3], style="points")], **WORDS)
    assert len(paths(cloud, "dot")) == 3 and not paths(cloud, "stroke")


def test_nothing_to_draw_is_said():
    for series in ([], [Series("a", [], [])], [Series("a", [1, None], [math.nan, 2])]):
        assert "no data" in text_of(line_chart(series, **WORDS))[0]
    assert "no data" in text_of(histogram([], title="h", x_label="x"))[0]
    assert "no data" in text_of(bar_chart([], {}, title="b"))[0]
    assert "no data" in text_of(bar_chart(["a"], {"g": [None]}, title="b"))[0]


def test_the_legend_names_each_name_once_and_is_missing_where_it_says_nothing():
    samples = [Series("samples", [0, 1], [k, k + 1], style="faint") for k in range(8)]
    figure = line_chart([*samples, Series("median", [0, 1], [4, 5])], **WORDS)
    assert text_of(figure)[1] == ["samples", "median"]
    assert text_of(line_chart(samples, **WORDS))[1] == []


def test_names_have_colours_of_their_own():
    figure = line_chart([Series(f"s{k}", [0, 1], [k, k]) for k in range(12)], **WORDS)
    classes = re.findall(r'<g class="([^"]*)">', figure.body)
    assert len(classes) == len(set(classes)) == 12
    assert 'class="line rose"' in line_chart([Series("a", [0, 1], [0, 1], tone="rose")], **WORDS).body


def test_the_words_tell_what_the_curves_show():
    figure = line_chart([Series("training", [0, 50, 2000], [4.2, 1.1, 1.566])], **WORDS)
    assert "<title>Loss</title>" in figure.body
    assert "training: 4.2 at 0, 1.566 at 2,000, lowest 1.1." in figure.body
    assert "<desc>My words.</desc>" in line_chart([Series("a", [0], [1])], description="My words.", **WORDS).body


def test_the_data_stand_in_a_short_table():
    checks = range(100, 2001, 100)
    figure = line_chart(
        [Series("training", range(2001), range(2001)), Series("validation", checks, [float(-c) for c in checks])],
        **WORDS,
    )
    assert figure.table.columns == ("step", "training", "validation")
    # Rows where both have a value come before those where one has.
    assert [tuple(row) for row in figure.table.rows] == [(c, c, -c) for c in checks]
    assert len(line_chart([Series("a", range(999), range(999))], **WORDS).table.rows) == 25


def test_units_label_the_ticks():
    figure = line_chart([Series("a", [0, 7200], [0, 4e6])], x_unit="seconds", y_unit="bytes", **WORDS)
    assert [label for _, label in tick_labels(figure, "y")] == ["0", "1 MB", "2 MB", "3 MB", "4 MB"]
    assert tick_labels(figure, "x")[-1] == (100, "2.0 h")
    assert line_chart([Series("a", [1, 2], [5, 6])], from_zero=True, **WORDS).body.count(">0</span>") == 1


@settings(max_examples=150)
@given(
    st.lists(st.lists(st.tuples(ANY, ANY), max_size=8), max_size=3),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["number", "bytes", "seconds", "percent"]),
)
def test_any_numbers_give_a_figure_within_its_frame(points, log_x, log_y, unit):
    series = [Series(str(k), [x for x, _ in s], [y for _, y in s]) for k, s in enumerate(points)]
    figure = line_chart(series, log_x=log_x, log_y=log_y, x_unit=unit, y_unit=unit, **WORDS)
    assert figure == line_chart(series, log_x=log_x, log_y=log_y, x_unit=unit, y_unit=unit, **WORDS)
    if "no data" in figure.body:
        return
    for run in paths(figure, "stroke") + paths(figure, "dot"):
        assert all(0 <= x <= 1000 and 0 <= y <= 1000 for x, y in run)
    for axis in "xy":
        places = [place for place, _ in tick_labels(figure, axis)]
        assert 1 <= len(places) <= 12
        assert all(0 <= place <= 100 for place in places)
    assert sum(len(re.sub("<.*?>", "", label)) for _, label in tick_labels(figure, "x")) <= 40


def test_whole_numbers_get_a_bar_each():
    figure = histogram([6, 6, 7, 9, 9, 9], title="Evaluations", x_label="evaluations")
    assert [tuple(row) for row in figure.table.rows] == [("6", 2), ("7", 1), ("8", 0), ("9", 3)]
    assert figure.caption == "6 samples: median 7, 95 % within 9."
    heights = [float(h) for h in re.findall(r'<rect [^>]*height="([\d.]+)"><title>', figure.body)]
    assert heights == pytest.approx([2 / 3 * 1000, 1 / 3 * 1000, 1000], abs=0.1)
    assert figure == histogram({7: 1, 9: 3, 6: 2}, title="Evaluations", x_label="evaluations")


@given(st.lists(ANY | st.integers(-(10**6), 10**6), max_size=60))
def test_every_finite_value_is_in_one_bin(values):
    figure = histogram(values, title="h", x_label="x")
    finite = [v for v in values if v is not None and abs(v) <= 1e300]
    if not finite:
        assert "no data" in figure.body
        return
    assert sum(count for _, count in figure.table.rows) == len(finite)
    assert len(figure.table.rows) <= 41
    left_out = sum(v is not None and not abs(v) <= 1e300 for v in values)
    assert bool(figure.notes) == bool(left_out)
    for x, width in re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)" height="[\d.]+"><', figure.body):
        assert float(x) >= 0 and float(x) + float(width) <= 1000.1


def test_bars_are_as_long_as_their_values():
    figure = bar_chart(
        ["4", "12"], {"DEQ": [4e6, 4e6], "unrolled": [16e6, None]}, title="Memory", label="bytes held", unit="bytes"
    )
    lengths = re.findall(r'class="bar (\w+)" style="margin-left:([\d.]+)%;width:([\d.]+)%"', figure.body)
    assert lengths == [
        ("blue", "0.00", "25.00"),
        ("orange", "0.00", "100.00"),
        ("blue", "0.00", "25.00"),
        ("orange", "0.00", "0.00"),
    ]
    assert "4: DEQ 4 MB, unrolled 16 MB." in figure.body
    below = bar_chart(["a", "b"], {"g": [-1, 3]}, title="t").body
    assert 'style="margin-left:0.00%;width:25.00%"' in below and 'style="margin-left:25.00%;width:75.00%"' in below


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Series("a", [1, 2], [1]), "series 'a' has 2 x and 1 y values; give as many of both."),
        (lambda: Series("a", [1], [1], style="wavy"), "series 'a' has style 'wavy'; give one of line, faint, dashed,"),
        (lambda: Series("a", [1], [1], tone="pink"), "series 'a' has tone 'pink'; give one of blue, orange,"),
        (lambda: bar_chart(["a", "b"], {"g": [1]}, title="t"), "group 'g' has 1 values; give 2, one a category."),
        (lambda: histogram({3: -1}, title="t", x_label="x"), "the value 3 occurs -1 times; give counts of 0 or more."),
        (lambda: picture(b"GIF89a..", title="cat", alt="a cat"), "the picture 'cat' starts with b'GIF89a..', which is"),
    ],
)
def test_wrong_calls_are_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value).startswith(message)
