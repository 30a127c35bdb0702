"""Long texts: the same splits and ids as short ones, in bounded memory, from files that are whole and built once."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poise.data import (
    DataError,
    TextFiles,
    TextSplits,
    Tokenizer,
    build_tokenizer,
    fit_tokenizer,
    lines,
    open_text,
    read_text,
    text_files,
    tokenise,
)
from poise.data.token_files import encoded

Refusal = Callable[..., AbstractContextManager[None]]
KINDS = ("char", "bpe", "word")
TEXT = "".join(f"line {n}: ünd it goes,  on\tto {n * n}\r\n" for n in range(2000)) + "an end without end"
odd_text = st.text(st.sampled_from("ab'1 \n\r\té\u2028\x1c\U0001f40d"), max_size=80)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, which is not made yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("POISE_CACHE", str(folder))
    return folder


@pytest.fixture
def long_text(tmp_path: Path) -> Path:
    path = tmp_path / "long.txt"
    path.write_bytes(TEXT.encode())
    return path


def opened(path: Path, **more: Any) -> TextFiles:
    text = open_text(path, in_memory=1, **more)
    assert isinstance(text, TextFiles)
    return text


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return build_tokenizer(
        request.param, TEXT + "ab'1 \n\r\té\u2028\x1c\xa0\U0001f40d", {"bpe": 300}.get(request.param)
    )


# The same text


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=odd_text.filter(lambda text: len(text) > 1), chunk=st.integers(1, 9), mark=st.booleans())
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_the_parts_of_a_file_are_those_of_the_whole_text(
    suffix: str, text: str, chunk: int, mark: bool, tmp_path: Path
) -> None:
    data = b"\xef\xbb\xbf" * mark + text.encode()
    path = tmp_path / f"t.txt{suffix}"
    path.write_bytes(gzip.compress(data, 1) if suffix else data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "CHUNK", chunk)  # pieces end within characters, marks and line ends
        found = opened(path)
        parts = {split: "".join(part.pieces()) for split, part in found.parts.items()}
        assert {split: part.characters for split, part in found.parts.items()} == {s: len(t) for s, t in parts.items()}
    assert TextSplits(found.name, **parts) == read_text(path)
    assert parts["train"] + parts["valid"] == text and len(parts["train"]) == int(0.9 * len(text))


def test_a_folder_has_a_part_for_each_split(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        (tmp_path / f"wiki.{split}.tokens.gz").write_bytes(gzip.compress(f"the {split} text\n".encode()))
    found = opened(tmp_path)
    assert {split: "".join(part.pieces()) for split, part in found.parts.items()} == read_text(tmp_path).parts
    assert list(found.parts) == ["train", "valid", "test"]


@pytest.mark.parametrize("data", [b"abc\n\xc3\xa9\xe9 rest", b"ab" * 9 + b"\xc3", b"a\xf0\x9f\x90", b"", b"\xff"])
def test_errors_are_those_of_the_whole_text(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "CHUNK", 2)
    for name, content in (("bad.txt", data), ("bad.txt.gz", gzip.compress(data)), ("cut.gz", gzip.compress(data)[:-9])):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError) as streamed:
            list(text_files.TextFile(path).pieces())
        with pytest.raises(DataError) as whole:
            read_text(path)
        assert str(streamed.value) == str(whole.value)
    try:
        data.decode()
    except UnicodeDecodeError as error:  # as Python finds it in the whole
        with pytest.raises(DataError, match=f"byte 0x{data[error.start]:02x} at offset {error.start} of the file"):
            list(text_files.TextFile(tmp_path / "bad.txt").pieces())


def test_a_short_text_touches_no_cache(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "short.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    text = open_text(tmp_path / "short.txt.gz")
    assert text == read_text(tmp_path / "short.txt.gz")
    tokenise(text, fit_tokenizer(text, "char"))
    assert isinstance(open_text("embedded", in_memory=1), TextSplits)
    assert not cache.exists()


def test_the_size_of_a_packed_text_is_that_of_the_text(tmp_path: Path) -> None:
    data = b"again and again\n" * 1000
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress(data))
    assert (tmp_path / "t.txt.gz").stat().st_size < 1000
    assert isinstance(open_text(tmp_path / "t.txt.gz", in_memory=len(data)), TextSplits)
    assert isinstance(open_text(tmp_path / "t.txt.gz", in_memory=len(data) - 1), TextFiles)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    writer = threading.Thread(target=(tmp_path / "pipe.txt").write_bytes, args=(TEXT.encode(),))
    writer.start()
    text = open_text(tmp_path / "pipe.txt", in_memory=1)
    writer.join()
    assert isinstance(text, TextSplits) and text.train + text.valid == TEXT


# The same ids


@given(pieces=st.lists(odd_text, max_size=6))
def test_ids_in_blocks_are_the_ids_at_once(tokenizer: Tokenizer, pieces: list[str]) -> None:
    whole = tokenizer.encode("".join(pieces))
    found = [np.empty(0, np.int32), *encoded(tokenizer, pieces)]
    assert np.array_equal(np.concatenate(found), whole)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spaces=st.lists(st.sampled_from([" ", "  ", "\t", " \t ", "\u2028", "\r", "\x1c", "\xa0 "]), min_size=8))
def test_ids_do_not_depend_on_where_a_long_line_is_cut(
    tokenizer: Tokenizer, spaces: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "LONG", 1)  # cut from the length of a block on
    words = ["é", "ab", "'1", "b's", "\U0001f40d", "line"]
    text = "".join(words[n % 6] + spaces[n % len(spaces)] for n in range(lines.BLOCK // 2))
    blocks = list(encoded(tokenizer, [text]))
    if tokenizer.kind == "bpe":  # the library's own ids of the whole line, which it has never seen cut
        library = pytest.importorskip("tokenizers")
        assert np.concatenate(blocks).tolist() == library.Tokenizer.from_str(tokenizer.content).encode(text).ids
    elif tokenizer.kind == "word":
        ids = {word: index for index, word in enumerate(tokenizer.words)}  # type: ignore[attr-defined]
        assert np.concatenate(blocks).tolist() == [ids.get(word, 0) for word in text.split()]
    else:
        assert tokenizer.decode(np.concatenate(blocks)) == text


@settings(max_examples=15)
@given(text=odd_text, cut=st.integers(0, 80), kind=st.sampled_from(KINDS))
def test_a_tokenizer_of_pieces_is_that_of_the_whole(text: str, cut: int, kind: Any) -> None:
    text += " a word"
    size = {"bpe": 262, "word": 5}.get(kind)
    assert build_tokenizer(kind, [text[:cut], "", text[cut:]], size) == build_tokenizer(kind, text, size)


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_gives_what_a_short_one_would(kind: Any, long_text: Path) -> None:
    short, long = read_text(long_text), opened(long_text)
    size = {"bpe": 400, "word": 500}.get(kind)
    tokenizer = fit_tokenizer(long, kind, size)
    assert tokenizer == fit_tokenizer(short, kind, size)
    assert tokenizer == build_tokenizer(kind, TEXT if kind == "char" else short.train, size)
    expected, found = tokenise(short, tokenizer), tokenise(long, tokenizer)
    assert list(found) == list(expected) == ["train", "valid"]
    for split, tokens in found.items():
        assert tokens.dtype == (torch.uint8 if kind == "char" else torch.uint16)
        assert torch.equal(tokens.int(), expected[split])


@pytest.mark.parametrize("size, dtype", [(256, torch.uint8), (257, torch.uint16), (65_537, torch.int32)])
def test_tokens_are_as_narrow_as_the_vocabulary_allows(size: int, dtype: torch.dtype, tmp_path: Path) -> None:
    words = " ".join(f"w{n}" for n in range(size - 2))
    (tmp_path / "train.txt").write_text(words)
    (tmp_path / "valid.txt").write_text(words)
    text = opened(tmp_path)
    tokenizer = fit_tokenizer(text, "word")
    tokens = tokenise(text, tokenizer)["valid"]
    assert (tokenizer.vocab_size, tokens.dtype) == (size, dtype)
    assert sorted(tokens.long().tolist()) == list(range(2, size))


# Files


def stamps(cache: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in cache.iterdir()}


def test_files_are_built_once_for_a_text_wherever_it_lies(long_text: Path, cache: Path) -> None:
    heard: list[str] = []
    text = opened(long_text, report=lambda doing, done, total: heard.append(f"{doing} {done}/{total}"))
    tokenise(text, fit_tokenizer(text, "word"))
    first = len(TEXT) * 9 // 10
    assert heard[0] == f"building the vocabulary of long {first}/{first}"
    assert {line.rsplit(" ", 1)[0] for line in heard[1:]} == {"encoding train of long", "encoding valid of long"}
    built = stamps(cache)
    assert len(built) == 3 and not [name for name in built if "partial" in name]
    moved = long_text.rename(long_text.with_name("moved.txt"))
    os.utime(moved, (0, 0))
    heard.clear()
    text = opened(moved, report=lambda *_: heard.append("read again"))
    tokenise(text, fit_tokenizer(text, "word"))
    assert stamps(cache) == built and not heard


def test_another_text_of_the_same_size_and_date_is_not_taken_for_it(long_text: Path) -> None:
    before = long_text.stat()
    text = opened(long_text)
    tokenizer = fit_tokenizer(text, "char")
    tokenise(text, tokenizer)
    long_text.write_bytes(TEXT.encode()[::-1].replace(b"\xbc\xc3", b"\xc3\xbc"))
    os.utime(long_text, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert long_text.stat().st_size == before.st_size
    assert tokenizer.decode(tokenise(opened(long_text), tokenizer)["train"][:16]) == TEXT[-16:][::-1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the maps of a process are told by Linux")
def test_tokens_cannot_change_their_file(long_text: Path, cache: Path) -> None:
    text = opened(long_text)
    tokens = tokenise(text, fit_tokenizer(text, "char"))
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(cache) in line]
    assert len(maps) == len(tokens) == 2
    assert all(line.split()[1].startswith("r--") for line in maps)


@pytest.mark.parametrize("damage", ["empty", "cut", "one byte less", "one byte more", "a bit", "its end"])
@pytest.mark.parametrize("suffix", ["tokens", "tokenizer"])
def test_a_damaged_file_is_built_again(suffix: str, damage: str, long_text: Path, cache: Path) -> None:
    text = opened(long_text)
    tokenizer = fit_tokenizer(text, "word")
    tokenise(text, tokenizer)
    whole = {path: path.read_bytes() for path in cache.glob(f"*.{suffix}")}
    for path, data in whole.items():
        middle = len(data) // 2
        path.write_bytes(
            {
                "empty": b"",
                "cut": data[: middle // 2 * 2],
                "one byte less": data[:-1],
                "one byte more": data + b"\0",
                "a bit": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
                "its end": data[:-1] + bytes([data[-1] ^ 1]),
            }[damage]
        )
    text = opened(long_text)
    assert fit_tokenizer(text, "word") == tokenizer
    found, expected = tokenise(text, tokenizer), tokenise(read_text(long_text), tokenizer)
    assert all(torch.equal(found[split].int(), expected[split]) for split in expected)
    assert {path: path.read_bytes() for path in whole} == whole


def test_a_full_disk_is_one_sentence_and_leaves_nothing(long_text: Path, cache: Path, refuses: Refusal) -> None:
    resource = pytest.importorskip("resource")
    text = opened(long_text)
    tokenizer = fit_tokenizer(text, "char")
    before = stamps(cache)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with refuses("cannot write", str(cache), "make room", "POISE_CACHE"):
            tokenise(text, tokenizer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert stamps(cache) == before
    assert len(tokenise(text, tokenizer)["train"]) == int(0.9 * len(TEXT))  # once there is room


def test_what_fails_on_its_way_leaves_nothing(long_text: Path, cache: Path, refuses: Refusal) -> None:
    with refuses("characters that the vocabulary"):
        tokenise(opened(long_text), build_tokenizer("char", "line"))
    assert not list(cache.iterdir())


def test_a_cache_that_cannot_be_is_refused(long_text: Path, monkeypatch: pytest.MonkeyPatch, refuses: Refusal) -> None:
    monkeypatch.setenv("POISE_CACHE", str(long_text / "below a file"))
    with refuses("cannot write", "below a file", "POISE_CACHE"):
        fit_tokenizer(opened(long_text), "char")


def test_where_the_cache_is(long_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    for variable, folder in (
        ("", "cache"),
        ("POISE_CACHE", "xdg/poise/tokens"),
        ("XDG_CACHE_HOME", "home/.cache/poise/tokens"),
    ):
        if variable:
            monkeypatch.delenv(variable)
        text = opened(long_text)
        tokenise(text, fit_tokenizer(text, "char"))
        assert len(list((tmp_path / folder).iterdir())) == 3


def test_what_a_killed_process_left_is_removed_and_what_a_running_one_writes_is_not(
    long_text: Path, cache: Path
) -> None:
    cache.mkdir()
    old, new = cache / "a.tokens.0.partial", cache / "b.tokens.0.partial"
    for path in (old, new):
        path.write_bytes(b"half")
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(old, (two_days_ago, two_days_ago))
    fit_tokenizer(opened(long_text), "char")
    assert not old.exists() and new.exists()


def build_at(barrier: Any, path: Path, sums: Any) -> None:
    text = opened(path)
    barrier.wait()
    tokens = tokenise(text, fit_tokenizer(text, "word"))
    sums.put({split: int(part.long().sum()) for split, part in tokens.items()})


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot be forked here")
def test_two_processes_that_build_at_once_end_well(long_text: Path, cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, sums = context.Barrier(2), context.Queue()
    both = [context.Process(target=build_at, args=(barrier, long_text, sums)) for _ in range(2)]
    for process in both:
        process.start()
    found = [sums.get(timeout=60) for _ in both]
    for process in both:
        process.join()
    text = read_text(long_text)
    ids = tokenise(text, fit_tokenizer(text, "word"))
    assert found == [{split: int(part.sum()) for split, part in ids.items()}] * 2
    assert sorted(path.suffix for path in cache.iterdir()) == [".tokenizer", ".tokens", ".tokens"]


# Memory

PEAKS = """
import re, sys
from pathlib import Path
from poise.data import fit_tokenizer, open_text, tokenise

def peak():  # MB; getrusage would tell of the process that started this one as well
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024

def take(in_memory):
    for kind in ("char", "word"):
        text = open_text(sys.argv[1], in_memory=in_memory)
        tokens = tokenise(text, fit_tokenizer(text, kind))
        assert sum(map(len, tokens.values())) > 2_000_000

small = open_text(sys.argv[2], in_memory=1)
tokenise(small, fit_tokenizer(small, "char"))
begin = peak()
take(8 << 20)
in_pieces = peak()
take(1 << 40)
print(in_pieces - begin, peak() - begin)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is told by Linux")
def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_text(TEXT)
    block = "".join(f"some {n % 5000} words of {n * n % 977}\n" for n in range(40_000))
    with (tmp_path / "large.txt").open("w") as file:
        for _ in range(16_000_000 // len(block) + 1):
            file.write(block)
    command = [sys.executable, "-c", PEAKS, str(tmp_path / "large.txt"), str(tmp_path / "small.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    in_pieces, whole = map(int, done.stdout.split())
    assert whole > 150  # MB for 16 MB of text: what the comparison is with
    assert in_pieces < 50
