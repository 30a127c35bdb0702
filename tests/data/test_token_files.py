"""Tokens of long texts lie in files that are whole, built once, and hold no more of the text in memory than a block."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from poise.data import (
    build_tokenizer,
    fit_tokenizer,
    read_text,
    tokenise,
)
from tests.data.conftest import Refusal
from tests.data.long_texts import TEXT, opened


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
