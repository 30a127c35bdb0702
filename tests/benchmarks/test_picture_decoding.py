"""The rate of decoding is of all pictures, and waits count."""

import torch

from benchmarks import picture_decoding
from poise.data import Samples, ShuffledBatches


def test_a_wait_after_each_batch_bounds_the_rate():
    samples = Samples(torch.zeros(8, 1, 2, 2), torch.zeros(8, dtype=torch.int64), ("a",))
    made = ShuffledBatches(samples, 4, 0)
    assert 0 < picture_decoding.rate(made, number=3, workers=2, wait=0.01) < 4 / 0.01


def test_the_table_has_a_row_for_each_set_and_taker():
    rows = [
        {"set": name, "taker": taker, "workers": workers, "pictures_per_second": 10.0 * workers + len(name)}
        for name in ("camvid", "cifar10")
        for taker in ("idle", "waiting")
        for workers in (0, 2)
    ]
    lines = picture_decoding.table({"rows": rows}).splitlines()
    assert len(lines) == 6 and [cell.strip() for cell in lines[2].split("|")[3:5]] == ["6.0", "26.0"]
