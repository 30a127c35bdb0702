"""Long texts have the splits and ids of short ones, wherever blocks and lines are cut."""

from __future__ import annotations

import gzip
import os
import threading
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
from tests.data.long_texts import TEXT, opened

KINDS = ("char", "bpe", "word")
odd_text = st.text(st.sampled_from("ab'1 \n\r\té\u2028\x1c\U0001f40d"), max_size=80)


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return build_tokenizer(
        request.param, TEXT + "ab'1 \n\r\té\u2028\x1c\xa0\U0001f40d", {"bpe": 300}.get(request.param)
    )


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
