import ast
import errno
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import poise.report
from poise import Status
from poise.report import Page, Sample, Section, Settings, Statuses, Table, Tile, render, write
from tests.report import sample_page

VOID = {"meta", "img", "line", "rect", "path"}


class Reader(HTMLParser):
    """Checks that the tags balance and keeps text, tags and attributes."""

    def __init__(self, document):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(document)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def document():
    return render(sample_page.page())


def test_the_page_is_sound_and_needs_nothing_outside_itself(document):
    reader = Reader(document)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form", "a", "use"} & set(reader.tags)
    loads = [value for name, value in reader.attributes if name in {"src", "href", "xlink:href", "srcset", "action"}]
    assert len(loads) == 1 and loads[0].startswith("data:image/png;base64,")
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import|https?:|//\w", document.replace("<!doctype", ""))
    assert "default-src 'none'" in document.replace("&#x27;", "'")


def test_every_piece_of_the_page_is_there(document):
    text = Reader(document).text
    for piece in (
        "DEQ language model",
        "799,412",
        "4.12 MB",
        "Residual against iteration",
        "95 % within",
        "23,911",
        "no data",
        "explicit, 4 x 128",
        "adamw.lr",
        "torch 2.13.0",
    ):
        assert piece in text


def test_the_same_page_gives_the_same_bytes(document):
    assert render(sample_page.page()) == document


def test_a_theme_can_be_forced():
    page = Page("t")
    assert '<html lang="en">' in render(page)
    assert '<html lang="en" data-theme="dark">' in render(page, theme="dark")


def test_all_words_are_escaped_and_control_characters_are_visible():
    evil = "<img src=x onerror=alert(1)> & \"q\" 'a' </pre></style><script>"
    page = Page(
        evil,
        [
            Section(
                evil,
                [
                    evil,
                    Sample(evil, label=evil, prompt=evil),
                    Table([evil], [[evil]], caption=evil),
                    Settings({evil: evil, "group": {evil: [evil]}}),
                    Statuses({evil: {evil: 1}}),
                    poise.report.line_chart(
                        [poise.report.Series(evil, [0, 1], [0, 1]), poise.report.Series("b", [0], [0])],
                        title=evil,
                        x_label=evil,
                        y_label=evil,
                        caption=evil,
                    ),
                    poise.report.bar_chart([evil], {evil: [1.0]}, title=evil, label=evil),
                ],
            )
        ],
        eyebrow=evil,
        summary=evil,
        tiles=[Tile(evil, evil, note=evil)],
        footer=evil,
    )
    reader = Reader(render(page))
    assert not {"img", "script"} & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name == "onerror"]
    assert reader.text.count("<img src=x onerror=alert(1)>") >= 15

    odd = render(Page("t", [Section("s", [Sample("a\x00b\x1b[31m\x7f\u202e\ud800\r\nc\td")])]))
    assert "a\\x00b\\x1b[31m\\x7f\\u202e\\ud800\nc\td" in odd
    odd.encode("utf-8")


def test_prose_has_paragraphs_and_code():
    written = render(Page("t", [Section("s", ["One `two <b>`\nthree.\n\nFour ` five."])]))
    assert "<p>One <code>two &lt;b&gt;</code> three.</p><p>Four ` five.</p>" in written


def test_settings_are_exact_and_nested_by_groups():
    written = render(
        Page("t", [Section("s", [Settings({"seed": 0, "a": {"lr": 1e-05, "b": {"c": True, "d": None}, "e": (1, 2)}})])])
    )
    pairs = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", written)
    assert pairs == [("seed", "0"), ("lr", "1e-05"), ("b.c", "true"), ("b.d", "\N{EN DASH}"), ("e", "1, 2")]
    assert re.findall(r"<h3>(.*?)</h3>", written) == ["general", "a"]


def test_every_status_of_the_library_has_a_meaning_and_an_unknown_one_is_shown():
    written = render(Page("t", [Section("s", [Statuses({"forward": {status.name: 10 for status in Status}})])]))
    assert "mark other" not in written
    assert written.count("<small>20 %</small>") == len(Status) == 5
    written = render(Page("t", [Section("s", [Statuses({"forward": {"ODD": 3}, "backward": {}})])]))
    assert "mark other" in written and "<small>100 %</small>" in written
    assert "statuses" in render(Page("t", [Section("s", [Statuses({})])]))
    with pytest.raises(ValueError, match="'forward' counts -1 samples as BUDGET; give counts of 0 or more"):
        Statuses({"forward": {"BUDGET": -1}})


def test_tables_align_numbers_and_refuse_ragged_rows():
    written = render(Page("t", [Section("s", [Table(["name", "loss"], [["a", 1.5], ["b", None]])])]))
    assert '<td>a</td><td class="number">1.5</td>' in written and '<td class="number">\N{EN DASH}</td>' in written
    with pytest.raises(ValueError, match="row 1 of the table has 1 values; give 2, one a column"):
        Table(["a", "b"], [[1, 2], [1]])
    with pytest.raises(ValueError, match="the table has 1 units; give 2, one a column, or none"):
        Table(["a", "b"], [], units=["bytes"])


def test_what_is_no_block_is_refused():
    with pytest.raises(TypeError, match="section 'Loss' holds a int, which is no block; give one of Figure, Sample"):
        render(Page("t", [Section("Loss", [3])]))


def test_writing_replaces_the_old_report_in_one_move(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("the old report")
    seen = []
    sync = os.fsync

    def watched(descriptor):
        sync(descriptor)
        seen.append(path.read_text())

    monkeypatch.setattr(os, "fsync", watched)
    write(Page("the new report"), path)
    assert seen == ["the old report"]
    assert path.read_text(encoding="utf-8") == render(Page("the new report"))
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_full_disk_keeps_the_old_report_and_leaves_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("the old report")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(Page("the new report"), path)
    assert path.read_text() == "the old report"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the folder '.*gone' does not exist; make it or give another path\."):
        write(Page("t"), tmp_path / "gone" / "report.html")


def test_the_package_imports_the_standard_library_alone_and_exports_what_it_names():
    for file in Path(poise.report.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                modules = [node.module]
            else:
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                assert module.split(".")[0] in sys.stdlib_module_names or module.startswith("poise.report."), file
    assert poise.report.__all__ == sorted(poise.report.__all__)
    assert all(hasattr(poise.report, name) for name in poise.report.__all__)
