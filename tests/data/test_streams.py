"""Streams: each goes on where it was left, and every token is predicted as often as it should be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poise.data import StreamBatches, evaluation_batches, evaluation_streams
from tests.data.conftest import Refusal

TOKENS = torch.arange(1000)


@given(
    length=st.integers(1, 7),
    batch=st.integers(1, 4),
    world=st.integers(1, 3),
    segments=st.integers(1, 6),
    data=st.data(),
)
def test_a_round_reads_every_stream_from_end_to_end(
    length: int, batch: int, world: int, segments: int, data: st.DataObject
) -> None:
    streams = batch * world
    rest = data.draw(st.integers(0, streams * length - 1))
    tokens = torch.arange(segments * streams * length + 1 + rest) * 3
    parts = [StreamBatches(tokens, length, batch, rank, world) for rank in range(world)]
    assert {part.segments for part in parts} == {segments}
    size = segments * length
    for begin in (0, 2 * segments):  # the first round and the third
        steps = [[part.batch(begin + step) for part in parts] for step in range(segments)]
        inputs, targets = (torch.cat([torch.cat([pair[k] for pair in step]) for step in steps], 1) for k in (0, 1))
        for stream in range(streams):  # the definition, in words of the text
            text = tokens[stream * size : (stream + 1) * size + 1].tolist()
            assert inputs[stream].tolist() == text[:-1]
            assert targets[stream].tolist() == text[1:]


def test_streams_begin_anew_once_a_round() -> None:
    batches = StreamBatches(torch.arange(65), length=8, batch_size=2)
    assert batches.segments == 4
    assert [step for step in range(13) if batches.fresh(step)] == [0, 4, 8, 12]
    for step in range(1, 13):
        goes_on = torch.equal(batches.batch(step - 1)[1][:, -1], batches.batch(step)[0][:, 0])
        assert goes_on != batches.fresh(step)
    far = 4 * 10**15 + 3
    assert torch.equal(batches.batch(far)[0], batches.batch(3)[0]) and not batches.fresh(far)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.int64])
def test_batches_are_wide_whatever_the_tokens(dtype: torch.dtype) -> None:
    tokens = torch.arange(100).to(dtype)
    for pair in (StreamBatches(tokens, 5, 3).batch(1), evaluation_streams(tokens, 5, 3, 2)[0]):
        for part in pair:
            assert part.dtype == torch.int64 and part.is_contiguous()
    assert StreamBatches(tokens, 5, 3).batch(1)[0][:, 0].tolist() == [5, 35, 65]
    assert repr(StreamBatches(tokens, 5, 3)) == "StreamBatches(length=5, batch_size=3, rank=0, world_size=1)"


@given(count=st.integers(2, 200), length=st.integers(1, 12), batch=st.integers(1, 5), segments=st.integers(1, 5))
def test_evaluation_predicts_every_token_but_the_first_once(count: int, length: int, batch: int, segments: int) -> None:
    length = min(length, count - 1)
    tokens = torch.arange(count) * 2
    batches = evaluation_streams(tokens, length, batch, segments)
    assert torch.cat([inputs.flatten() for inputs, _ in batches]).tolist() == tokens[:-1].tolist()
    assert torch.cat([targets.flatten() for _, targets in batches]).tolist() == tokens[1:].tolist()
    size = min(segments * length, count - 1)
    whole, rest = divmod(count - 1, size)
    rows = [batch] * (whole // batch) + [whole % batch] * (whole % batch > 0)
    assert [tuple(inputs.shape) for inputs, _ in batches] == [(n, size) for n in rows] + [(1, rest)] * (rest > 0)


def test_a_stream_is_walked_along_its_segments() -> None:
    streams, windows = evaluation_streams(TOKENS, 10, 3, segments=4), evaluation_batches(TOKENS, 10, 1)
    inputs, targets = streams[1]
    walked = zip(inputs.split(10, 1), targets.split(10, 1), strict=True)
    for number, (segment, following) in enumerate(walked):
        assert segment.shape == following.shape == (3, 10)
        for row in range(3):
            assert torch.equal(segment[row], windows[(3 + row) * 4 + number][0][0])
            assert torch.equal(following[row], windows[(3 + row) * 4 + number][1][0])
    assert number == 3


def test_what_makes_no_streams_is_refused(refuses: Refusal) -> None:
    with refuses("a text of 48 tokens", "6 streams", "length 8", "49 tokens", "smaller length or batch_size"):
        StreamBatches(torch.arange(48), 8, 3, world_size=2)
    StreamBatches(torch.arange(49), 8, 3, world_size=2)
    make: Any
    for make in (StreamBatches, evaluation_streams):
        with refuses("length=0"):
            make(TOKENS, 0, 1)
        with refuses("batch_size=-1"):
            make(TOKENS, 8, -1)
        with refuses("torch.float32"):
            make(TOKENS.float(), 8, 1)
        with refuses("a text of 8 tokens", "9 tokens"):
            make(torch.arange(8), 8, 1)
    with refuses("segments=0"):
        evaluation_streams(TOKENS, 8, 1, 0)
    with refuses("rank=2", "world_size=2"):
        StreamBatches(TOKENS, 8, 1, 2, 2)
    with refuses("step=-1"):
        StreamBatches(TOKENS, 8, 1).batch(-1)
