"""Byte-pair tokenizers: any text there and back, as the library has it, and files that would lose text."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poise.data import DataError, Tokenizer, build_tokenizer, load_tokenizer
from tests.data.conftest import Refusal
from tests.data.tokenizer_texts import TEXT, spaced_text, unicode_text


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
