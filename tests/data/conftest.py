"""What the tests of this room share: the check of a refusal, a way to the public sets, and a tokenizer."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from poise.data import DataError, Tokenizer, build_tokenizer
from tests.data import tokenizer_texts
from tests.data.long_texts import TEXT

Refusal = Callable[..., AbstractContextManager[None]]


@contextmanager
def _refuses(*parts: object) -> Iterator[None]:
    with pytest.raises(DataError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".") and not message.endswith("..")
    # One sentence: no full stop, question or exclamation mark that a new sentence follows.
    assert not re.search(r"[.!?] +[A-Z]", message), message
    for part in parts:
        assert str(part) in message, (part, message)


@pytest.fixture
def refuses() -> Refusal:
    """A context that demands a DataError of one sentence with all the given parts in it."""
    return _refuses


@pytest.fixture
def public_sets(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the public data sets, made the data folder; the test is skipped where there is none."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("POISE_DATA") or beside)
    for name in ("tinyshakespeare.txt", "wikitext-2"):
        if not (folder / name).exists():
            pytest.skip(f"the public set {name} is not here; set POISE_DATA to the folder that has it")
    monkeypatch.setenv("POISE_DATA", str(folder))
    return folder


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, with an empty working directory beside it."""
    folder, work = tmp_path / "sets", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    monkeypatch.setenv("POISE_DATA", str(folder))
    monkeypatch.chdir(work)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, which is not made yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("POISE_CACHE", str(folder))
    return folder


@pytest.fixture
def long_text(tmp_path: Path) -> Path:
    """A text that counts as long."""
    path = tmp_path / "long.txt"
    path.write_bytes(TEXT.encode())
    return path


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    """A byte-pair tokenizer with a few merges."""
    return build_tokenizer("bpe", tokenizer_texts.TEXT, vocab_size=280)
