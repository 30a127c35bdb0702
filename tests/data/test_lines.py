"""Blocks of lines, by which long texts are counted and encoded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from poise.data.lines import line_blocks


@given(text=st.text(st.sampled_from("a \r\n")), size=st.integers(1, 8))
def test_blocks_are_whole_lines_and_no_longer_than_they_must_be(text: str, size: int) -> None:
    blocks = list(line_blocks(text, size))
    assert "".join(blocks) == text
    assert all(blocks)
    for block in blocks[:-1]:
        assert block.endswith("\n") and len(block) >= size
    for block in blocks:
        assert "\n" not in block[size - 1 : -1]
