import pytest
import torch

import poise
from benchmarks import mixed, overhead
from benchmarks.cells import dense256, flat, hard, mdeq, mixed_linear
from benchmarks.contest import attempt
from benchmarks.steps import Trained, poise_step, step_case, torchdeq_step


@pytest.mark.parametrize("build", [hard, mdeq], ids=lambda build: build.__name__)
def test_the_oracle_is_the_slope_of_the_loss(build):
    problem = build().select(torch.tensor([1]))
    trained = Trained.of(problem)
    exact = problem.to(torch.float64)
    weights = flat(tuple(weight.double() for weight in trained.weights))

    def loss(x):
        z = exact.z0
        with torch.no_grad():
            for _ in range(3000 if build is hard else 120):
                z = exact.f(z, x)
        return (flat(z) * weights).sum()

    direction = torch.randn(exact.context.shape, generator=torch.Generator().manual_seed(0)).double()
    step = 1e-6
    slope = (loss(exact.context + step * direction) - loss(exact.context - step * direction)) / (2 * step)
    assert (trained.oracle()[0] * direction).sum().item() == pytest.approx(slope.item(), rel=1e-4)


@pytest.mark.parametrize("build", [dense256, mdeq], ids=lambda build: build.__name__)
def test_poise_and_torchdeq_are_asked_for_the_same_gradients(build):
    trained = Trained.of(build().select(torch.tensor([1])))
    case = step_case(trained)
    ours = attempt(poise_step(trained, "Anderson()", "GMRES()"), case, 1e-6, 200)
    assert ours.error < 1e-4 and ours.products > 5
    pytest.importorskip("torchdeq")
    for backward, hook in (("broyden", False), ("broyden", True), (60, False)):
        theirs = attempt(torchdeq_step(trained, "anderson(m=6, lam=0)", backward, hook), case, 1e-6, 200)
        assert theirs.error < 1e-4 and theirs.products > 5
    assert attempt(torchdeq_step(trained, "broyden", 1), case, 1e-6, 200).error > 0.01


def test_the_memory_floor_is_counted_by_hand():
    # Three evaluations: three tests of two states, and one step with one pair; the first has none.
    assert overhead.floor_bytes(poise.Picard(), 3, 10) == 60
    assert overhead.floor_bytes(poise.Picard(check_every=2), 5, 10) == 80  # at 1, 2, 4 and 5
    assert overhead.floor_bytes(poise.Anderson(form="type2", period=1), 3, 10) == 60 + 10 * (3 + 3)
    assert overhead.floor_bytes(poise.Anderson(period=2), 5, 10) == 100 + 10 * (2 + 3 + 4 * 2 + 2)
    assert overhead.floor_bytes(poise.Broyden(), 3, 10) == 60 + 10 * (3 + 4)
    assert overhead.floor_bytes(poise.Anderson(history=1), 5, 10) == 100 + 10 * 3 * (3 + 4)


def test_a_costly_cell_has_the_values_of_its_cell():
    problem = mixed_linear().select(torch.arange(3))
    costly = mixed.Costly(problem.f, torch.eye(8))
    z = torch.randn(3, 64)
    assert torch.equal(costly(z, problem.context), problem.f(z, problem.context))


def test_backward_rows_are_compared_with_whole_batches():
    found = mixed.backward_rows(mixed_linear().select(torch.tensor([0, 63])))
    assert found["whole_batch"] % 2 == 0 and found["ratio"] == found["rows"] / found["whole_batch"]
