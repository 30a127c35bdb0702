"""Batches by number: the same whatever made them and wherever they begin, and no thread that outlives them."""

import itertools
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from poise.data import (
    VOID,
    Composed,
    ComposedScenes,
    HorizontalFlip,
    Normalise,
    Prefetched,
    RandomCrop,
    RandomScaledCrop,
    Samples,
    SceneFlip,
    ShuffledBatches,
    batch_seed,
    picture_folders,
)


def running():
    return [thread for thread in threading.enumerate() if thread.name.startswith("poise-batches")]


def slow_square(index):
    time.sleep(0.002 * (index * 7 % 3))  # so that they are not done in order
    return index * index


@given(first=st.integers(0, 9), number=st.integers(0, 9), workers=st.integers(0, 4), ahead=st.integers(1, 6))
def test_batches_come_in_order_whatever_the_workers(first, number, workers, ahead):
    batches = Prefetched(slow_square, first, number, workers, ahead)
    assert list(batches) == [index * index for index in range(first, first + number)]
    assert list(batches) == list(batches) and not running()


@pytest.mark.parametrize("workers", [0, 2])
def test_they_go_on_without_end_and_stop_when_left(workers):
    begun = []
    batches = iter(Prefetched(lambda index: begun.append(index) or index, 5, workers=workers, ahead=3))
    assert list(itertools.islice(batches, 4)) == [5, 6, 7, 8]
    time.sleep(0.02)
    assert sorted(begun) == list(range(5, 9 + (2 if workers else 0)))  # no more than may wait
    assert len(running()) <= workers
    batches.close()
    assert not running()


def test_threads_end_where_the_iteration_is_dropped():
    for index in Prefetched(slow_square, workers=2):
        if index > 3:
            break
    assert not running()


def test_workers_make_batches_at_the_same_time():
    together = threading.Barrier(2, timeout=10)

    def meets(index):
        together.wait()  # nobody passes alone
        return index

    assert list(Prefetched(meets, number=6, workers=2)) == list(range(6))


@pytest.mark.parametrize("workers", [0, 3])
def test_a_damaged_picture_is_refused_where_its_batch_would_come(tmp_path, refuses, workers):
    for part in ("train", "test"):
        (tmp_path / part / "a").mkdir(parents=True)
        for place in range(8):
            array = np.random.default_rng(place).integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(array).save(tmp_path / part / "a" / f"{place}.png")
    damaged = tmp_path / "train" / "a" / "5.png"
    damaged.write_bytes(damaged.read_bytes()[:-60])
    samples = picture_folders(tmp_path).train
    batches = iter(Prefetched(lambda index: samples.select(slice(2 * index, 2 * index + 2)), number=4, workers=workers))
    for index in range(2):
        assert torch.equal(next(batches).inputs, samples.select(slice(2 * index, 2 * index + 2)).inputs)
    with refuses("5.png", "cannot be decoded"):
        next(batches)
    assert not running()


@pytest.mark.parametrize("options", [{"first": -1}, {"number": -1}, {"workers": -1}, {"ahead": 0}])
def test_numbers_that_are_none_are_refused(refuses, options):
    ((name, value),) = options.items()
    with refuses(f"{name}={value}"):
        Prefetched(slow_square, **options)


def labelled(number=23, maps=False, scene=None):
    x = torch.arange(number).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).float() / number
    labels = torch.arange(number) % 3
    if maps:
        labels = labels.view(-1, 1, 1).expand(-1, 4, 4).byte()
    return Samples(x, labels, ("a", "b", "c"), scene, ("day", "night") if scene is not None else ())


@given(number=st.integers(1, 40), size=st.integers(1, 12), world_size=st.integers(1, 3), seed=st.integers(0, 99))
def test_an_epoch_is_a_permutation_without_its_last_short_batch(number, size, world_size, seed):
    if size > number:
        return
    per_epoch = number // size
    parts = [ShuffledBatches(labelled(number), size, seed, None, rank, world_size) for rank in range(world_size)]
    turns = [parts[rank].places(index) for index in range(2 * per_epoch) for rank in range(world_size)]
    epochs = [torch.cat(turns[start : start + per_epoch]) for start in range(0, len(turns), per_epoch)]
    assert len(epochs) == 2 * world_size
    for epoch in epochs:
        assert len(epoch.unique()) == per_epoch * size
    alone = ShuffledBatches(labelled(number), size, seed)
    assert all(torch.equal(alone.places(index), turn) for index, turn in enumerate(turns))
    if number > 8:
        assert not torch.equal(epochs[0], epochs[1])


VIEW = Composed((RandomCrop(4, 2), HorizontalFlip(), Normalise((0.5,), (0.5,))))
SCENE_VIEW = ComposedScenes((RandomScaledCrop((6, 5)), SceneFlip()), (Normalise((0.5,), (0.5,)),))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("maps", [False, True])
def test_a_batch_is_a_function_of_its_number_and_the_seed(maps, workers):
    batches = ShuffledBatches(labelled(maps=maps), 4, seed=3, view=SCENE_VIEW if maps else VIEW)
    state = torch.get_rng_state()
    resumed = list(Prefetched(batches, first=4, number=6, workers=workers))
    assert torch.equal(torch.get_rng_state(), state)
    for index, (x, labels) in enumerate(resumed, start=4):
        again_x, again = batches(index)
        assert torch.equal(x, again_x) and torch.equal(labels, again) and labels.dtype == torch.int64
        own = batches.places(index) % 3
        assert (
            torch.equal(torch.where(labels == VOID, own.view(-1, 1, 1), labels)[:, 0, 0], own)
            if maps
            else (torch.equal(labels, own))
        )
    other = ShuffledBatches(labelled(maps=maps), 4, seed=4, view=SCENE_VIEW if maps else VIEW)
    assert not torch.equal(other(4)[0], resumed[0][0])
    assert not torch.equal(resumed[0][0], resumed[1][0])


def test_scenes_bring_both_labels():
    scene = torch.arange(23) % 2
    batches = ShuffledBatches(labelled(maps=True, scene=scene), 4, seed=0)
    x, labels, whole = batches(7)
    places = batches.places(7)
    assert torch.equal(whole, scene[places]) and torch.equal(labels[:, 0, 0], places % 3)
    assert torch.equal(x[:, 0, 0, 0], places.float() / 23)


def test_batches_that_are_none_are_refused(refuses):
    with refuses("size=24", "23 samples"):
        ShuffledBatches(labelled(), 24, 0)
    with refuses("rank=2", "world_size=2"):
        ShuffledBatches(labelled(), 2, 0, rank=2, world_size=2)
    with refuses("batch -1"):
        ShuffledBatches(labelled(), 2, 0)(-1)


def test_noise_seeds_differ_by_batch_and_process():
    seeds = {batch_seed(seed, index, rank) for seed in (0, 1) for index in range(50) for rank in (0, 1)}
    assert len(seeds) == 200
