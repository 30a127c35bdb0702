"""The text that ships with Python."""

from __future__ import annotations

import string
import sys

import pytest

from poise.data import embedded_text, read_text
from tests.data.conftest import Refusal


def test_it_is_printable_ascii_and_long_enough_to_train_on() -> None:
    text = embedded_text()
    assert set(text) <= set(string.ascii_letters + string.digits + string.punctuation + " \n")
    assert set(string.ascii_letters + string.digits) <= set(text)
    assert 300_000 < len(text) < 600_000
    assert 'The "assert" statement' in text


def test_it_is_the_same_every_time() -> None:
    assert embedded_text() == embedded_text()


def test_typography_becomes_ascii_and_topics_stand_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    module = type(sys)("pydoc_data.topics")
    module.topics = {  # type: ignore[attr-defined]
        "b": "shared\nparagraph  \n\nlast\u2019s \u201cword\u201d\u2026 1\u20132\u20143\tend\n\n",
        "a": "\nfirst: café ß°\n\n\nshared\n  paragraph\n",
    }
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", module)
    expected = 'first: cafe\n\nshared\n  paragraph\n\nlast\'s "word"... 1-2--3    end\n'
    assert embedded_text() == expected


def test_validation_is_not_quoted_in_training() -> None:
    splits = read_text("embedded")
    assert splits.name == "embedded" and splits.test is None
    assert splits.train + splits.valid == embedded_text()
    assert len(splits.train) == int(0.9 * len(embedded_text()))
    trained = {" ".join(paragraph.split()) for paragraph in splits.train.split("\n\n")}
    # The first and last paragraph may have been cut by the split.
    validated = [" ".join(paragraph.split()) for paragraph in splits.valid.split("\n\n")][1:-1]
    assert len(validated) > 100 and not trained.intersection(validated)


def test_a_python_without_documentation_is_refused(monkeypatch: pytest.MonkeyPatch, refuses: Refusal) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with refuses("pydoc_data", "pass a text file"):
        read_text("embedded")
