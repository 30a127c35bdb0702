import pytest
import torch

from benchmarks import rows
from benchmarks.cells import mixed_linear
from benchmarks.peers import torchdeq_solvers


@pytest.fixture
def batch():
    return mixed_linear().select(torch.arange(0, 64, 9))


@torch.no_grad()
@pytest.mark.parametrize("name", rows.poise_solvers())
def test_poise_makes_the_rows_of_its_samples_alone(batch, name):
    together, alone, converged = rows.poise_rows(batch, rows.poise_solvers()[name])
    assert converged
    assert together <= 1.15 * alone


@torch.no_grad()
def test_torchdeq_evaluates_every_sample_until_the_last_has_passed(batch):
    pytest.importorskip("torchdeq")
    together, alone, converged = rows.torchdeq_rows(batch, torchdeq_solvers()["fixed_point_iter"])
    assert converged
    assert together % batch.z0.shape[0] == 0
    assert together > 2 * alone
