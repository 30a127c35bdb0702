"""Tokenizers of every kind, and of characters: there and back, what they refuse, and what a damaged file does."""

from __future__ import annotations

import copy
import errno
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poise.data import CharTokenizer, DataError, Tokenizer, build_tokenizer, load_tokenizer
from tests.data.conftest import Refusal
from tests.data.tokenizer_texts import TEXT, unicode_text

KINDS = ("char", "bpe", "word")


# Every kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_is_a_value(kind: Any, tmp_path: Path) -> None:
    tokenizer = build_tokenizer(kind, TEXT)
    ids = tokenizer.encode(TEXT)
    assert ids.dtype == np.int32 and ids.ndim == 1
    assert ids.min() >= 0 and ids.max() < tokenizer.vocab_size
    assert len(tokenizer.encode("")) == 0 and tokenizer.encode("").dtype == np.int32
    assert tokenizer.decode([]) == ""
    assert tokenizer.kind == kind
    tokenizer.save(tmp_path / "new" / "folder")
    assert os.listdir(tmp_path / "new" / "folder") == ["tokenizer.json"]
    for other in (
        load_tokenizer(tmp_path / "new" / "folder"),
        pickle.loads(pickle.dumps(tokenizer)),
        copy.deepcopy(tokenizer),
        build_tokenizer(kind, TEXT),
    ):
        assert other == tokenizer and type(other) is type(tokenizer)
        assert np.array_equal(other.encode(TEXT), ids)
        assert other.decode(ids) == tokenizer.decode(ids)
    assert build_tokenizer(kind, "another text, another value") != tokenizer
    assert len(repr(tokenizer)) < 200


@pytest.mark.parametrize("kind", KINDS)
def test_ids_may_be_a_list_an_array_or_a_tensor(kind: Any) -> None:
    tokenizer = build_tokenizer(kind, TEXT)
    ids = tokenizer.encode(TEXT)
    expected = tokenizer.decode(ids)
    assert tokenizer.decode(ids.tolist()) == expected
    assert tokenizer.decode(torch.from_numpy(ids).long()) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_ids_that_are_none_are_refused(kind: Any, refuses: Refusal) -> None:
    tokenizer = build_tokenizer(kind, TEXT)
    size = tokenizer.vocab_size
    with refuses(f"the id {size} ", f"vocabulary of {size}", f"0 to {size - 1}"):
        tokenizer.decode([0, size])
    with refuses("the id -1 "):
        tokenizer.decode(torch.tensor([-1]))
    with refuses("shape (1, 2)"):
        tokenizer.decode([[0, 1]])
    with refuses("float64"):
        tokenizer.decode([0.5])


def test_an_unknown_kind_is_refused_with_the_nearest(refuses: Refusal) -> None:
    with refuses("'words'", "char, bpe, word", "perhaps you meant 'word'"):
        build_tokenizer("words", TEXT)  # type: ignore[arg-type]
    with refuses("'sentencepiece'", "pass one of these"):
        build_tokenizer("sentencepiece", TEXT)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_text_is_refused(kind: Any, refuses: Refusal) -> None:
    with refuses(repr(kind), "0 characters"):
        build_tokenizer(kind, "")


def test_vocabulary_sizes_that_cannot_be_are_refused(refuses: Refusal) -> None:
    with refuses("vocab_size=100", "'char'", "leave it out"):
        build_tokenizer("char", TEXT, 100)
    with refuses("vocab_size=255", "256"):
        build_tokenizer("bpe", TEXT, 255)
    with refuses("vocab_size=2 ", "at least 3"):
        build_tokenizer("word", TEXT, 2)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, refuses: Refusal) -> None:
    (tmp_path / "file").write_text("in the way")
    with refuses("cannot write", repr(str(tmp_path / "file" / "tokenizer.json"))):
        CharTokenizer("ab").save(tmp_path / "file")


# Characters


@given(unicode_text.filter(bool))
def test_characters_round_trip_and_are_ranks_of_code_points(text: str) -> None:
    tokenizer = build_tokenizer("char", text)
    ranks = {character: rank for rank, character in enumerate(sorted(set(text)))}
    ids = tokenizer.encode(text)
    assert ids.tolist() == [ranks[character] for character in text]
    assert tokenizer.decode(ids) == text
    assert tokenizer.vocab_size == len(ranks)


@given(known=unicode_text.filter(bool), text=unicode_text)
def test_unknown_characters_are_refused_and_known_ones_never(known: str, text: str) -> None:
    tokenizer = build_tokenizer("char", known)
    missing = set(text) - set(known)
    if not missing:
        assert tokenizer.decode(tokenizer.encode(text)) == text
        return
    with pytest.raises(ValueError) as caught:
        tokenizer.encode(text)
    for character in sorted(missing)[:10]:
        assert f"{character!r} (U+{ord(character):04X})" in str(caught.value)


def test_missing_characters_are_named_at_most_ten(refuses: Refusal) -> None:
    tokenizer = build_tokenizer("char", "abc\n")
    with refuses("1 character that the vocabulary of 4 lacks: 'é' (U+00E9)", "build the tokenizer from a text"):
        tokenizer.encode("abécé")
    with refuses("12 characters", "'9' (U+0039) and 2 more"):
        tokenizer.encode("zy9876543210")
    with refuses(r"'\udcff' (U+DCFF)"):  # what a shell passes for a byte that is no UTF-8
        tokenizer.encode("a\udcff")
    with refuses("'\U0001f40d' (U+1F40D)"):
        tokenizer.encode("a\U0001f40d")


def test_a_vocabulary_out_of_order_is_refused(refuses: Refusal) -> None:
    for characters in ("ba", "aa"):
        with refuses("2 characters", "not distinct and ascending"):
            CharTokenizer(characters)


# Files


def test_a_missing_file_is_refused(tmp_path: Path, refuses: Refusal) -> None:
    with refuses(repr(str(tmp_path / "tokenizer.json")), os.strerror(errno.ENOENT), "folder of a run"):
        load_tokenizer(tmp_path)


DAMAGED = {
    "empty": "",
    "cut": '{"kind": "char", "characters": "ab',
    "binary": "\x80\x04\x95pickle",
    "a list": "[1, 2]",
    "deep": "[" * 100_000,
    "no kind": "{}",
    "unknown kind": '{"kind": "pickle"}',
    "no characters": '{"kind": "char"}',
    "not text": '{"kind": "char", "characters": ["a"]}',
    "no vocabulary": '{"kind": "char", "characters": ""}',
    "unsorted": '{"kind": "char", "characters": "ba"}',
    "no words": '{"kind": "word"}',
    "words of numbers": '{"kind": "word", "words": ["<unk>", "<eos>", 3]}',
    "words without marks": '{"kind": "word", "words": ["a", "b", "c"]}',
    "a bpe of nothing": '{"model": null}',
    "a bpe of something else": '{"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}',
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused(name: str, tmp_path: Path, refuses: Refusal) -> None:
    (tmp_path / "tokenizer.json").write_text(DAMAGED[name], encoding="latin-1")
    with refuses(repr(str(tmp_path / "tokenizer.json")), "no tokenizer of poise"):
        load_tokenizer(tmp_path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_cut_or_flipped_byte_raises_anything_but_a_data_error(
    bpe: Tokenizer, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tokenizer = data.draw(st.sampled_from([bpe, build_tokenizer("char", TEXT), build_tokenizer("word", TEXT)]))
    folder = tmp_path_factory.mktemp("damage")
    tokenizer.save(folder)
    content = bytearray((folder / "tokenizer.json").read_bytes())
    place = data.draw(st.integers(0, len(content) - 3))  # the last two are the closing brace and a line feed
    if data.draw(st.booleans()):
        content = content[:place]
    else:
        content[place] = data.draw(st.integers(0, 255))
    (folder / "tokenizer.json").write_bytes(content)
    try:
        loaded = load_tokenizer(folder)
    except DataError as error:
        assert "no tokenizer of poise" in str(error)
        return
    # Some damage makes another whole tokenizer; of bytes it still loses nothing.
    if loaded.kind == "bpe":
        assert loaded.decode(loaded.encode(TEXT)) == TEXT
