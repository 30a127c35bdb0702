"""Blocks of lines, by which long texts are counted and encoded."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from poise.data.lines import BLOCK, LONG, line_blocks


@given(text=st.text(st.sampled_from("a \r\n")), size=st.integers(1, 8))
def test_blocks_are_whole_lines_and_no_longer_than_they_must_be(text: str, size: int) -> None:
    blocks = list(line_blocks(text, size))
    assert "".join(blocks) == text
    assert all(blocks)
    for block in blocks[:-1]:
        assert block.endswith("\n") and len(block) >= size
    for block in blocks:
        assert "\n" not in block[size - 1 : -1]


@given(pieces=st.lists(st.text(st.sampled_from("a \r\n"))), size=st.integers(1, 8))
def test_blocks_do_not_depend_on_where_a_text_was_cut(pieces: list[str], size: int) -> None:
    assert list(line_blocks(pieces, size)) == list(line_blocks("".join(pieces), size))


def test_a_line_beyond_all_measure_is_cut_before_a_blank() -> None:
    text = "word " * LONG + "\n" + "short\n" * BLOCK
    for pieces in ([text], [text[i : i + 1000] for i in range(0, len(text), 1000)]):
        blocks = list(line_blocks(pieces))
        assert "".join(blocks) == text
        assert max(map(len, blocks)) <= LONG + len("word word")
        for one, two in itertools.pairwise(blocks):
            assert one.endswith("\n") or (one.endswith("word") and two.startswith(" "))
    assert list(line_blocks("x" * 3 * LONG)) == ["x" * 3 * LONG]  # nowhere to cut
