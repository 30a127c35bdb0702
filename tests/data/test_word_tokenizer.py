"""Tokenizers of words: where words and lines end, which words are kept, and the published numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from poise.data import WordTokenizer, build_tokenizer, read_text
from tests.data.conftest import Refusal
from tests.data.tokenizer_texts import spaced_text


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
