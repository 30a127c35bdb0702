"""Tokenizers: there and back, what they refuse, and what a damaged file does."""

from __future__ import annotations

import copy
import errno
import json
import os
import pickle
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poise.data import CharTokenizer, DataError, Tokenizer, WordTokenizer, build_tokenizer, load_tokenizer, read_text

Refusal = Callable[..., AbstractContextManager[None]]
TEXT = "The cat sat on the mat.\nThe dog, too, sat on the mat!\n\n  ünïcode ça va ?\n" * 5
KINDS = ("char", "bpe", "word")
unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
spaced_text = st.text(st.sampled_from("ab \n\té\u2028"), max_size=60)


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return build_tokenizer("bpe", TEXT, vocab_size=280)


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


# Words


def reference_tokens(text: str) -> list[str]:
    """The convention in its plainest form: the words of each line, and a mark wherever a line ends."""
    tokens: list[str] = []
    lines = text.split("\n")
    for number, line in enumerate(lines):
        tokens += line.split()
        if number < len(lines) - 1:
            tokens.append("<eos>")
    return tokens


@given(spaced_text.filter(lambda text: bool(text.split())))
def test_words_follow_the_convention(text: str) -> None:
    tokenizer = build_tokenizer("word", text)
    assert isinstance(tokenizer, WordTokenizer)
    ids = tokenizer.encode(text)
    assert [tokenizer.words[i] for i in ids] == reference_tokens(text)
    decoded = tokenizer.decode(ids)
    assert [line.split() for line in decoded.split("\n")] == [line.split() for line in text.split("\n")]
    assert decoded == "\n".join(" ".join(line.split()) for line in text.split("\n"))
    assert np.array_equal(tokenizer.encode(decoded), ids)


@given(st.lists(st.sampled_from(["a", "bb", "c", "d"]), min_size=1), st.integers(3, 7))
def test_the_most_frequent_words_are_kept_and_the_rest_are_unknown(words: list[str], size: int) -> None:
    tokenizer = build_tokenizer("word", " ".join(words), size)
    assert isinstance(tokenizer, WordTokenizer)
    counts = Counter(words)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    assert tokenizer.words == ("<unk>", "<eos>", *ranked[: size - 2])
    lost = sum(counts[word] for word in ranked[size - 2 :])
    assert (tokenizer.encode(" ".join(words)) == 0).sum() == lost


def test_unknown_words_and_marks_in_the_text() -> None:
    tokenizer = build_tokenizer("word", "a <unk> b\na <eos>\n")
    assert tokenizer.vocab_size == 4
    assert tokenizer.encode("a zebra <unk>").tolist() == [2, 0, 0]
    assert tokenizer.decode([2, 0, 1, 3]) == "a <unk>\nb"


def test_a_prompt_does_not_end_its_line() -> None:
    tokenizer = build_tokenizer("word", "the cat\n")
    assert tokenizer.decode(tokenizer.encode("the cat ")) == "the cat"
    assert tokenizer.decode(tokenizer.encode("the cat\n\n")) == "the cat\n\n"


def test_words_of_a_text_longer_than_a_block() -> None:
    text = "".join(f"word{i % 700} and {i}\n" for i in range(20_000))
    tokenizer = build_tokenizer("word", text)
    assert isinstance(tokenizer, WordTokenizer)
    assert [tokenizer.words[i] for i in tokenizer.encode(text)] == reference_tokens(text)


def test_a_text_without_words_is_refused(refuses: Refusal) -> None:
    with refuses("3 characters", "no words"):
        build_tokenizer("word", " \n\t")


def test_vocabularies_without_marks_or_with_repeats_are_refused(refuses: Refusal) -> None:
    with refuses("('a', 'b')", "('<unk>', '<eos>')"):
        WordTokenizer(("a", "b", "c"))
    with refuses("'a' 2 times"):
        WordTokenizer(("<unk>", "<eos>", "a", "a"))


def test_wikitext2_has_the_published_numbers(public_sets: Path) -> None:
    splits = read_text("wikitext-2")
    assert splits.test is not None
    tokenizer = build_tokenizer("word", splits.train)
    assert tokenizer.vocab_size == 33_278
    counts = [len(tokenizer.encode(text)) for text in (splits.train, splits.valid, splits.test)]
    assert counts == [2_088_628, 217_646, 245_569]


# Byte-pair encoding


@given(text=st.one_of(unicode_text, spaced_text))
def test_bpe_round_trips_any_text(bpe: Tokenizer, text: str) -> None:
    assert bpe.decode(bpe.encode(text)) == text


@given(first=st.one_of(unicode_text, spaced_text), second=st.one_of(unicode_text, spaced_text))
def test_bpe_encodes_line_by_line_as_at_once(bpe: Tokenizer, first: str, second: str) -> None:
    pieces = [bpe.encode(first + "\n"), bpe.encode(second)]
    assert np.array_equal(bpe.encode(first + "\n" + second), np.concatenate(pieces))


def test_bpe_agrees_with_the_library_on_its_file(bpe: Tokenizer, tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers")
    bpe.save(tmp_path)
    text = TEXT * 200  # longer than a block
    assert len(text) > 50_000
    assert bpe.encode(text).tolist() == library.Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids


def test_bpe_learns_merges_and_keeps_to_its_size(bpe: Tokenizer) -> None:
    assert bpe.vocab_size == 280
    assert len(bpe.encode(TEXT)) < 0.7 * len(TEXT.encode())
    plain = build_tokenizer("bpe", TEXT, 256)
    assert plain.vocab_size == 256 and len(plain.encode(TEXT)) == len(TEXT.encode())
    assert 280 < build_tokenizer("bpe", TEXT).vocab_size < 4096  # a short text has no more merges


def test_half_a_character_is_marked(bpe: Tokenizer) -> None:
    plain = build_tokenizer("bpe", TEXT, 256)
    assert plain.decode(plain.encode("aé")[:-1]) == "a\ufffd"


def test_bpe_refuses_lone_surrogates(bpe: Tokenizer, refuses: Refusal) -> None:
    with refuses(r"'\udcff'", "position 2"):
        bpe.encode("ab\udcff")
    with refuses(r"'\udcff'", "position 0"):
        build_tokenizer("bpe", "\udcff")


def test_bpe_without_its_library_says_what_to_install(
    bpe: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Refusal
) -> None:
    bpe.save(tmp_path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with refuses("'tokenizers'", "pip install 'poise[train]'"):
        build_tokenizer("bpe", TEXT)
    with pytest.raises(DataError, match=r"^the tokenizer 'bpe' needs .*; run pip install 'poise\[train\]'\.$"):
        load_tokenizer(tmp_path)  # and not that the file is damaged
    assert build_tokenizer("char", TEXT).encode("The").shape == (3,)  # the others do without


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


def drop_byte(content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.__getitem__)
    vocabulary[last], content["model"]["merges"] = vocabulary.pop("Q"), []


def leave_gap(content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.__getitem__)] += 7


BPE_DAMAGE = {
    "a byte is missing": drop_byte,
    "ids have a gap": leave_gap,
    "merges of nothing": lambda content: content["model"].update(merges=[["no", "such"]]),
    "dropout": lambda content: content["model"].update(dropout=0.5),
    "truncation": lambda content: content.update(
        truncation={"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    ),
    "a normaliser": lambda content: content.update(normalizer={"type": "Lowercase"}),
    "no lines": lambda content: content.update(pre_tokenizer=content["pre_tokenizer"]["pretokenizers"][1]),
    "no decoder": lambda content: content.update(decoder=None),
}


@pytest.mark.parametrize("name", BPE_DAMAGE)
def test_a_bpe_that_would_lose_text_is_refused(name: str, bpe: Tokenizer, tmp_path: Path, refuses: Refusal) -> None:
    bpe.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    BPE_DAMAGE[name](content)
    path.write_text(json.dumps(content))
    with refuses(repr(str(path)), "no tokenizer of poise"):
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
