"""Windows: which tokens they hold, and on what they depend."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from poise.data import RandomWindows, build_tokenizer, evaluation_batches, read_text
from tests.data.conftest import Refusal

TOKENS = torch.arange(1000)


def philox_uint64(seed: int, step: int, count: int) -> list[int]:
    """Philox 4x64 with 10 rounds, as Salmon et al. (2011) define it, keyed by the seed and counting from the step."""
    mask, numbers = 2**64 - 1, []
    for block in range(1, -(-count // 4) + 1):
        c, k = [block, 0, 0, step], [seed, 0]
        for _ in range(10):
            high0, low0 = divmod(0xD2E7470EE14C6C93 * c[0], 2**64)
            high1, low1 = divmod(0xCA5A826395121157 * c[2], 2**64)
            c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
            k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
        numbers += c
    return numbers[:count]


# Training


@given(
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**40),
    length=st.integers(1, 20),
    batch=st.integers(1, 9),
    extra=st.integers(1, 50),
)
def test_the_windows_of_a_step_are_those_of_the_published_generator(
    seed: int, step: int, length: int, batch: int, extra: int
) -> None:
    tokens = torch.arange(length + extra) * 3
    inputs, targets = RandomWindows(tokens, length, batch, seed).batch(step)
    starts = [number % extra for number in philox_uint64(seed, step, batch)]
    assert inputs.tolist() == [[3 * (start + i) for i in range(length)] for start in starts]
    assert torch.equal(targets, inputs + 3)
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.is_contiguous() and targets.is_contiguous()


def test_steps_seeds_and_rows_differ_also_where_32_bits_agree() -> None:
    tokens = torch.arange(10**6)
    batches = [
        RandomWindows(tokens, 8, 4, seed).batch(step)[0]
        for seed, step in itertools.product([0, 1, 2**32, 2**32 + 1], [0, 1, 2**32])
    ]
    starts = torch.cat(batches)[:, 0].tolist()
    assert len(set(starts)) == len(starts)


def test_every_place_is_drawn_about_equally_often() -> None:
    windows = RandomWindows(torch.arange(26), length=6, batch_size=50, seed=3)
    firsts = torch.cat([windows.batch(step)[0][:, 0] for step in range(400)])
    counts = torch.bincount(firsts, minlength=20)
    assert counts.numel() == 20  # the last window ends with the last token as its last target
    # 20,000 draws over 20 places: chi-squared with 19 degrees of freedom; seeded, so it fails always or never.
    assert ((counts - 1000.0) ** 2 / 1000).sum() < 43.8  # its 99.9 % quantile


def test_a_batch_does_not_touch_the_global_generator_nor_depend_on_it() -> None:
    windows = RandomWindows(TOKENS, 8, 4, seed=1)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = windows.batch(7)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(windows.batch(7)[0], first[0])


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_processes_share_one_global_batch(world_size: int) -> None:
    whole = RandomWindows(TOKENS, 8, 6, seed=1)
    parts = [RandomWindows(TOKENS, 8, 6 // world_size, 1, rank, world_size) for rank in range(world_size)]
    for step in (0, 5):
        for one, many in zip(whole.batch(step), zip(*(part.batch(step) for part in parts), strict=True), strict=True):
            assert torch.equal(one, torch.cat(many))


def test_the_stream_resumes_at_any_step() -> None:
    windows = RandomWindows(TOKENS, 8, 4, seed=1)
    stream = windows.from_step(3)
    for _ in range(2):  # each iteration begins again
        for step, (inputs, targets) in zip(range(3, 8), stream, strict=False):
            assert torch.equal(inputs, windows.batch(step)[0])
            assert torch.equal(targets, windows.batch(step)[1])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_loader_yields_the_steps_in_order_with_any_number_of_workers(workers: int) -> None:
    windows = RandomWindows(TOKENS, 8, 4, seed=1)
    loader: Any = DataLoader(windows.from_step(2), batch_size=None, num_workers=workers)
    for step, (inputs, _) in zip(range(2, 9), loader, strict=False):
        assert torch.equal(inputs, windows.batch(step)[0])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.int64])
def test_tokens_may_be_narrow(dtype: torch.dtype) -> None:
    narrow, wide = (torch.arange(200).to(kind) for kind in (dtype, torch.int64))
    for a, b in zip(RandomWindows(narrow, 7, 3, 0).batch(4), RandomWindows(wide, 7, 3, 0).batch(4), strict=True):
        assert a.dtype == torch.int64 and torch.equal(a, b)
    a, b = evaluation_batches(narrow, 7, 3)[0][0], evaluation_batches(wide, 7, 3)[0][0]
    assert a.dtype == torch.int64 and torch.equal(a, b)


def test_tokens_may_lie_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    np.arange(500, dtype=np.int32).tofile(path)
    mapped = torch.from_file(str(path), size=500, dtype=torch.int32)
    windows = RandomWindows(mapped, 8, 4, seed=1)
    assert windows.tokens.data_ptr() == mapped.data_ptr()
    assert torch.equal(windows.batch(0)[0], RandomWindows(torch.arange(500), 8, 4, seed=1).batch(0)[0])


def test_the_repr_does_not_print_the_tokens() -> None:
    shown = repr(RandomWindows(TOKENS, 8, 4, seed=1))
    assert shown == "RandomWindows(length=8, batch_size=4, seed=1, rank=0, world_size=1)"


# Evaluation


@given(count=st.integers(2, 200), length=st.integers(1, 30), batch=st.integers(1, 7))
def test_every_token_but_the_first_is_predicted_once(count: int, length: int, batch: int) -> None:
    length = min(length, count - 1)
    tokens = torch.arange(count) * 2
    batches = evaluation_batches(tokens, length, batch)
    assert torch.cat([inputs.flatten() for inputs, _ in batches]).tolist() == tokens[:-1].tolist()
    assert torch.cat([targets.flatten() for _, targets in batches]).tolist() == tokens[1:].tolist()
    whole, rest = divmod(count - 1, length)
    sizes = [batch] * (whole // batch) + [whole % batch] * (whole % batch > 0)
    shapes = [(size, length) for size in sizes] + [(1, rest)] * (rest > 0)
    assert [tuple(inputs.shape) for inputs, _ in batches] == shapes
    assert [tuple(targets.shape) for _, targets in batches] == shapes
    assert len(batches) == len(shapes)
    assert all(x.dtype == torch.int64 and x.is_contiguous() for pair in batches for x in pair)


def test_evaluation_batches_are_a_sequence() -> None:
    batches = evaluation_batches(torch.arange(60), 8, 3)
    firsts = [int(inputs[0, 0]) for inputs, _ in batches]
    assert firsts == [0, 24, 48, 56]
    assert [int(inputs[0, 0]) for inputs, _ in batches] == firsts  # again, as each validation needs it
    assert int(batches[-1][0][0, 0]) == 56
    assert [int(inputs[0, 0]) for inputs, _ in batches[1:3]] == [24, 48]
    assert [int(inputs[0, 0]) for inputs, _ in itertools.islice(batches, 1, None, 2)] == [24, 56]
    with pytest.raises(IndexError):
        batches[4]
    loader: Any = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    assert len(loader) == 4 and [int(inputs[0, 0]) for inputs, _ in loader] == firsts


def test_a_weighted_mean_over_batches_is_the_mean_over_tokens() -> None:
    tokens = torch.randint(0, 7, (83,), generator=torch.Generator().manual_seed(0))
    score = torch.randn(7, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    batches = evaluation_batches(tokens, 9, 4)
    total = sum(score[inputs, targets].mean() * targets.numel() for inputs, targets in batches)
    assert math.isclose(float(total) / 82, float(score[tokens[:-1], tokens[1:]].mean()), rel_tol=1e-12)


def test_tinyshakespeare_has_1742_windows_of_64(public_sets: Path) -> None:
    splits = read_text("tinyshakespeare")
    tokenizer = build_tokenizer("char", splits.train + splits.valid)
    assert tokenizer.vocab_size == 65
    batches = evaluation_batches(torch.from_numpy(tokenizer.encode(splits.valid)), 64, 100)
    shapes = [tuple(inputs.shape) for inputs, _ in batches]
    assert shapes == [(100, 64)] * 17 + [(42, 64)] + [(1, 51)]


# Refusals


@pytest.mark.parametrize("make", [lambda t, n, b: RandomWindows(t, n, b, 0), evaluation_batches])
def test_what_makes_no_window_is_refused(make: Any, refuses: Refusal) -> None:
    with refuses("a text of 8 tokens", "one sequence of length 8", "9 tokens", "pass a longer text"):
        make(torch.arange(8), 8, 1)
    make(torch.arange(9), 8, 1)
    with refuses("a text of 0 tokens"):
        make(torch.arange(0), 8, 1)
    with refuses("length=0"):
        make(TOKENS, 0, 1)
    with refuses("batch_size=0"):
        make(TOKENS, 8, 0)
    with refuses("shape (10, 100)"):
        make(TOKENS.reshape(10, 100), 8, 1)
    with refuses("torch.float32"):
        make(TOKENS.float(), 8, 1)
    with refuses("torch.bool"):
        make(TOKENS.bool(), 8, 1)


def test_what_makes_no_stream_is_refused(refuses: Refusal) -> None:
    with refuses("step=-1"):
        RandomWindows(TOKENS, 8, 1, 0).batch(-1)
    with refuses("step=-2"):
        RandomWindows(TOKENS, 8, 1, 0).from_step(-2)
    for seed in (-1, 2**64):
        with refuses(f"seed={seed}"):
            RandomWindows(TOKENS, 8, 1, seed)
    for rank in (-1, 2):
        with refuses(f"rank={rank}", "world_size=2"):
            RandomWindows(TOKENS, 8, 1, 0, rank, 2)
