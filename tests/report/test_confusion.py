"""Confusion matrices, and the key of a picture's colours."""

import re

import pytest

from poise.report import Figure, Page, Section, Table, confusion_figure, picture, render

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 20


def page(block):
    return render(Page("t", [Section("s", [block])]))


def test_a_cell_is_as_dark_as_it_is_frequent_within_its_label():
    figure = confusion_figure(["cat", "dog", "owl"], [[8, 2, 0], [0, 4, 0], [0, 0, 0]], title="Taken for", caption="c")
    assert isinstance(figure, Figure)
    html = page(figure)
    table = html.partition('<table class="confusion">')[2].partition("</table>")[0]
    shares = [float(share) for share in re.findall(r"--share:([\d.]+)", table)]
    assert shares == [0.8, 0.2, 0, 0, 1, 0, 0, 0, 0]  # a row without samples is empty and divides by nothing
    assert re.findall(r"<td[^>]*>([^<]*)</td>", table) == ["80 %", "20 %", "", "", "100 %", "", "", "", ""]
    assert re.findall(r'<th scope="(\w+)">(\w+)</th>', table) == [
        ("col", "labelled"), ("col", "cat"), ("col", "dog"), ("col", "owl"), ("row", "cat"), ("row", "dog"),
        ("row", "owl"),
    ]  # fmt: skip
    assert "Taken for" in html and figure.table.rows[0] == ("cat", 8, 2, 0)


def test_names_are_escaped():
    html = page(confusion_figure(["<b>&", "dog"], [[1, 0], [0, 1]], title="<i>"))
    assert "<b>" not in html and "&lt;b&gt;&amp;" in html and "<i>" not in html


@pytest.mark.parametrize("number", [20, 21])
def test_of_many_classes_the_most_frequent_confusions_are_listed(number):
    names = [f"class {place}" for place in range(number)]
    counts = [[90 if row == column else 0 for column in range(number)] for row in range(number)]
    counts[3][5], counts[5][3], counts[7][0] = 10, 30, 10
    found = confusion_figure(names, counts, title="Taken for")
    if number == 20:
        assert isinstance(found, Figure)
        return
    assert isinstance(found, Table) and found.caption == "Taken for"
    assert list(found.rows) == [
        ("class 5", "class 3", 30, 0.25),
        ("class 3", "class 5", 10, 0.1),
        ("class 7", "class 0", 10, 0.1),
    ]
    assert "25 %" in page(found)


def test_no_more_confusions_are_listed_than_can_be_read():
    counts = [[1] * 30 for _ in range(30)]
    assert len(confusion_figure([str(place) for place in range(30)], counts, title="t").rows) == 20


@pytest.mark.parametrize("counts", [[[1, 0]], [[1, 0], [1]], [[1, 0, 0], [0, 1, 0]], []])
def test_counts_that_are_not_one_a_pair_are_refused(counts):
    with pytest.raises(ValueError, match="the counts are not 2 rows of 2; give one for each pair of classes."):
        confusion_figure(["a", "b"], counts, title="t")


def test_a_picture_has_a_key_of_its_colours():
    html = page(picture(PNG, title="t", alt="a", key=[("sky & sea", "#2b62c4"), ("<car>", "#00ff80")]))
    key = html.partition('<ul class="legend">')[2].partition("</ul>")[0]
    assert re.findall(r'style="background:(#\w+)"></span>([^<]*)</li>', key) == [
        ("#2b62c4", "sky &amp; sea"),
        ("#00ff80", "&lt;car&gt;"),
    ]
    assert '<ul class="legend">' not in page(picture(PNG, title="t", alt="a"))


@pytest.mark.parametrize("colour", ["red", "#2b62c", "#2B62C4", "#2b62c4;width:9em", "", "#2b62c4\n"])
def test_a_colour_that_is_none_is_refused(colour):
    with pytest.raises(ValueError, match="the colour of 'sky' is .*; write it as '#2b62c4'."):
        picture(PNG, title="t", alt="a", key=[("sky", colour)])
