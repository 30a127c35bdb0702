"""Where texts are found, how they are split, and how they are refused."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poise.data import TextSplits, read_text
from tests.data.conftest import Refusal

SPLITS = ("train", "valid", "test")


def write_folder(folder: Path, pattern: str, splits: tuple[str, ...] = SPLITS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        data = f"the {split} text\n".encode()
        name = pattern.format(split=split)
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


# Files


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff"), min_size=2))
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_file_is_split_by_position_and_nothing_in_it_changes(suffix: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / f"notes.txt{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix else text.encode())
    splits = read_text(str(path))
    assert splits.train + splits.valid == text
    assert len(splits.train) == int(0.9 * len(text))
    assert (splits.name, splits.test) == ("notes", None)


def test_characters_are_counted_and_not_bytes(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("é" * 9 + "a", encoding="utf-8")
    assert read_text(path) == TextSplits("t", "é" * 9, "a", None)


def test_line_ends_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(b"a\r\nb\rc\n" * 10)
    splits = read_text(path)
    assert splits.train + splits.valid == "a\r\nb\rc\n" * 10


def test_a_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(b"\xef\xbb\xbf0123456789")
    assert read_text(path).train == "012345678"


def test_the_repr_does_not_print_the_text(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("x" * 1000)
    assert repr(read_text(path)) == "TextSplits(name='t')"


def test_a_file_that_is_not_utf8_is_refused_with_its_offset(tmp_path: Path, refuses: Refusal) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("abc\né".encode() + b"\xe9 rest")
    with refuses(repr(str(path)), "not UTF-8", "byte 0xe9 at offset 6 of the file"):
        read_text(path)
    packed = tmp_path / "latin.txt.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with refuses(repr(str(packed)), "byte 0xe9 at offset 6 of its unpacked bytes"):
        read_text(packed)


def test_a_file_cut_within_a_character_is_refused_there(tmp_path: Path, refuses: Refusal) -> None:
    path = tmp_path / "cut.txt"
    path.write_bytes(b"ab" + "é".encode()[:1])
    with refuses("byte 0xc3 at offset 2"):
        read_text(path)


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(data: bytes, tmp_path: Path, refuses: Refusal) -> None:
    path = tmp_path / "empty.txt"
    path.write_bytes(data)
    with refuses(repr(str(path)), "is empty"):
        read_text(path)


def test_a_text_of_one_character_cannot_be_split(tmp_path: Path, refuses: Refusal) -> None:
    path = tmp_path / "one.txt"
    path.write_text("x")
    with refuses("'one'", "1 character"):
        read_text(path)


@pytest.mark.parametrize("damage", ["plain text", "truncated", "bad checksum", "bad block"])
def test_an_unreadable_gz_is_refused(damage: str, tmp_path: Path, refuses: Refusal) -> None:
    whole = gzip.compress(b"some text that is long enough to be cut in its middle\n" * 20)
    data = {
        "plain text": b"some text",
        "truncated": whole[:-12],
        "bad checksum": whole[:-8] + bytes(b ^ 255 for b in whole[-8:-4]) + whole[-4:],
        "bad block": whole[:10] + b"\xff" * 20 + whole[30:],
    }[damage]
    path = tmp_path / "bad.txt.gz"
    path.write_bytes(data)
    with refuses(repr(str(path)), "no readable .gz"):
        read_text(path)


# Folders


@pytest.mark.parametrize("pattern", ["{split}.txt", "{split}.txt.gz", "wiki.{split}.tokens", "wiki.{split}.tokens.gz"])
def test_a_folder_has_a_file_for_each_split(pattern: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "corpus.v2", pattern)
    splits = read_text(tmp_path / "corpus.v2")
    assert splits == TextSplits("corpus.v2", "the train text\n", "the valid text\n", "the test text\n")


def test_only_the_test_split_may_be_missing(tmp_path: Path, refuses: Refusal) -> None:
    write_folder(tmp_path / "a", "{split}.txt", ("train", "valid"))
    assert read_text(tmp_path / "a").test is None
    write_folder(tmp_path / "b", "{split}.txt", ("train", "val"))
    with refuses(repr(str(tmp_path / "b")), "train.txt and valid.txt", "wiki.train.tokens", "holds train.txt, val.txt"):
        read_text(tmp_path / "b")
    (tmp_path / "c").mkdir()
    with refuses("train.txt and valid.txt", "holds no file"):
        read_text(tmp_path / "c")


def test_halves_of_two_layouts_do_not_make_a_whole(tmp_path: Path, refuses: Refusal) -> None:
    write_folder(tmp_path, "{split}.txt", ("train",))
    write_folder(tmp_path, "wiki.{split}.tokens", ("valid",))
    with refuses("holds train.txt, wiki.valid.tokens"):
        read_text(tmp_path)


def test_a_long_folder_is_counted_and_not_listed(tmp_path: Path, refuses: Refusal) -> None:
    for i in range(30):
        (tmp_path / f"part{i:02}.md").write_text("x")
    with refuses("part11.md and 18 more"):
        read_text(tmp_path)


def test_an_empty_or_foreign_split_is_named(tmp_path: Path, refuses: Refusal) -> None:
    write_folder(tmp_path, "{split}.txt")
    (tmp_path / "test.txt").write_bytes(b"")
    with refuses(repr(str(tmp_path / "test.txt")), "is empty"):
        read_text(tmp_path)
    (tmp_path / "valid.txt").write_bytes(b"\xff")
    with refuses(repr(str(tmp_path / "valid.txt")), "offset 0"):
        read_text(tmp_path)


# Names


def test_names_are_looked_up_in_the_data_folder(data_folder: Path) -> None:
    (data_folder / "plain.txt").write_text("0123456789")
    (data_folder / "packed.txt.gz").write_bytes(gzip.compress(b"abcdefghij"))
    write_folder(data_folder / "corpus", "{split}.txt.gz")
    assert read_text("plain") == TextSplits("plain", "012345678", "9", None)
    assert read_text("plain.txt") == read_text("plain")
    assert read_text("packed").valid == "j"
    assert read_text("corpus").test == "the test text\n"


def test_a_path_comes_before_a_name(data_folder: Path) -> None:
    (data_folder / "plain.txt").write_text("0123456789")
    Path("plain.txt").write_text("a path here")
    assert read_text("plain.txt").train == "a path he"


def test_the_cache_is_the_data_folder_where_none_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POISE_DATA", raising=False)
    for place, text in (("xdg/poise", "from the xdg cache"), ("home/.cache/poise", "from the home cache")):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "plain.txt").write_text(text)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert read_text("plain").train.startswith("from the xdg")
    monkeypatch.setenv("XDG_CACHE_HOME", "xdg")  # relative: ignored
    assert read_text("plain").train.startswith("from the home")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert read_text("plain").train.startswith("from the home")
    assert read_text("~/.cache/poise/plain.txt") == read_text("plain")


def test_a_missing_name_is_refused_with_what_there_is(data_folder: Path, refuses: Refusal) -> None:
    (data_folder / "tinyshakespeare.txt").write_text("x" * 20)
    (data_folder / "notes.md").write_text("no set")
    write_folder(data_folder / "corpus", "wiki.{split}.tokens")
    write_folder(data_folder / "pictures", "{split}.npz")
    listed = "available by name: embedded, corpus, tinyshakespeare;"
    with refuses("'tinyshakespear'", str(data_folder), "POISE_DATA", listed, "perhaps you meant 'tinyshakespeare'"):
        read_text("tinyshakespear")
    with refuses("'embeded'", "perhaps you meant 'embedded'"):
        read_text("embeded")
    with refuses("'zzz'", listed, "pass one of these or a path"):
        read_text("zzz")
    Path("speech.text").write_text("a file here")
    with refuses("'speech.txt'", "perhaps you meant 'speech.text'"):
        read_text("speech.txt")


def test_a_data_folder_that_does_not_exist_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Refusal
) -> None:
    monkeypatch.setenv("POISE_DATA", str(tmp_path / "nowhere"))
    with refuses("'corpus'", str(tmp_path / "nowhere"), "which does not exist", "available by name: embedded;"):
        read_text("corpus")
    monkeypatch.delenv("POISE_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    with refuses(str(tmp_path / "xdg" / "poise"), "set POISE_DATA"):
        read_text("corpus")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME")
    with refuses(str(tmp_path / ".cache" / "poise"), "set POISE_DATA"):
        read_text("corpus")


def test_a_missing_path_is_refused_with_its_neighbour(data_folder: Path, refuses: Refusal) -> None:
    (data_folder / "plain.txt").write_text("x" * 20)
    wrong = str(data_folder / "plan.txt")
    with refuses(repr(wrong), f"perhaps you meant {str(data_folder / 'plain.txt')!r}"):
        read_text(wrong)
    with refuses(repr(str(data_folder / "zzz")), "check the path"):
        read_text(str(data_folder / "zzz"))
    with refuses("'no/such/file.txt'", "nor a folder 'no/such'"):
        read_text("no/such/file.txt")
    with refuses("nor a folder"):  # below a file
        read_text(str(data_folder / "plain.txt" / "x"))


@pytest.mark.parametrize("source", ["", "  "])
def test_a_blank_source_is_refused(source: str, refuses: Refusal) -> None:
    with refuses(repr(source), "blank"):
        read_text(source)


def test_a_path_that_no_system_takes_is_refused(refuses: Refusal) -> None:
    with refuses("cannot read", "null byte"):
        read_text("a\0b")
    with refuses("cannot read", os.strerror(errno.ENAMETOOLONG)):
        read_text("x" * 5000)


# Permissions: the administrator may read everything, so the tests step down to another user where they can.


@contextmanager
def unprivileged() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(65534)
    except OSError:
        pytest.skip("runs as administrator and may not become anyone else")
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def closed() -> Iterator[Path]:
    """A folder that everyone may enter, with a folder and a file in it that nobody may read."""
    folder = Path(tempfile.mkdtemp())  # pytest's own are closed to other users from further up
    folder.chmod(0o755)
    write_folder(folder / "shut", "{split}.txt")
    (folder / "shut.txt").write_text("some text")
    (folder / "shut").chmod(0)
    (folder / "shut.txt").chmod(0)
    yield folder
    (folder / "shut").chmod(0o700)
    shutil.rmtree(folder)


def test_what_may_not_be_read_is_refused(closed: Path, refuses: Refusal) -> None:
    denied = os.strerror(errno.EACCES)
    with unprivileged(), refuses(f"cannot read {str(closed / 'shut')!r}", denied):
        read_text(closed / "shut")
    with unprivileged(), refuses(f"cannot read {str(closed / 'shut.txt')!r}", denied):
        read_text(closed / "shut.txt")
    with unprivileged(), refuses(f"cannot read {str(closed / 'shut' / 'train.txt')!r}", denied):
        read_text(closed / "shut" / "train.txt")


def test_a_closed_data_folder_is_refused(closed: Path, monkeypatch: pytest.MonkeyPatch, refuses: Refusal) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("POISE_DATA", str(closed / "shut"))
    with unprivileged(), refuses("cannot read", os.strerror(errno.EACCES)):
        read_text("corpus")


# The public sets


def test_tinyshakespeare_splits_as_published(public_sets: Path) -> None:
    splits = read_text("tinyshakespeare")
    assert (len(splits.train), len(splits.valid)) == (1_003_854, 111_540)
    assert len(set(splits.train + splits.valid)) == 65
