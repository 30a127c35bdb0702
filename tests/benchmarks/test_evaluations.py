import math

import pytest
import torch

import poise
from benchmarks import evaluations
from benchmarks.cells import Problem
from benchmarks.counting import Adjoint, Record, count, count_gmres, forward_residual
from benchmarks.evaluations import rows, verdict
from benchmarks.peers import torchdeq_solvers


@pytest.fixture
def halving():
    """z = z / 2 + 1/2 beside a faster sample: evaluated iterate k has the residual 1 / (2^k - 1)."""
    factor = torch.tensor([[0.5], [0.125]])
    return Problem("halving", lambda z, c: c * z + (1 - c), factor, torch.zeros(2, 1))


def first_with(residual):
    return math.ceil(math.log2(1 / residual + 1))


def test_forward_counts_the_first_evaluated_iterate_that_passes(halving):
    expected = {1e-3: first_with(1e-3), 1e-6: first_with(1e-6)}
    assert expected == {1e-3: 10, 1e-6: 20}
    residual = forward_residual(halving.to(torch.float64))
    solver = poise.Picard(rtol=0.0, max_steps=50)
    record = count(lambda f, z, _: poise.fixed_point(f, z, solver=solver), halving.closed(), halving.z0, residual, 50)
    assert record.together == record.apart == expected
    assert record.evaluations == 20  # the solve ends when all is known


def test_torchdeq_is_counted_by_the_same_rule(halving):
    pytest.importorskip("torchdeq")
    residual = forward_residual(halving.to(torch.float64))
    run = torchdeq_solvers()["fixed_point_iter"]
    assert count(run, halving.closed(), halving.z0, residual, 50).together == {1e-3: 10, 1e-6: 20}


def test_what_is_not_reached_is_not_counted(halving):
    residual = forward_residual(halving.to(torch.float64))
    solver = poise.Picard(rtol=0.0, max_steps=12)
    record = count(
        lambda f, z, _: poise.fixed_point(f, z, solver=solver, on_failure="ignore"),
        halving.closed(), halving.z0, residual, 12,
    )  # fmt: skip
    assert record.together == {1e-3: 10}
    assert record.lowest == pytest.approx(1 / (2**12 - 1), rel=1e-3)


def test_together_wants_all_samples_at_once_and_apart_does_not():
    history = iter([[0.0, 1.0], [1.0, 0.0], [float("nan"), 0.0], [5e-4, 5e-4]])
    record = Record(lambda z: torch.tensor(next(history)))
    for _ in range(4):
        record.add(torch.empty(0))
    assert record.together == {1e-3: 4}
    assert record.apart == {1e-3: 2, 1e-6: 2}
    assert record.lowest == pytest.approx(5e-4)


def test_backward_system_of_a_linear_map_with_two_eigenvalues():
    slope = torch.tensor([0.5, 0.5, -0.25, -0.25])
    problem = Problem("diagonal", lambda z, x: z * slope.to(z.dtype) + x, torch.ones(3, 4), torch.zeros(3, 4))
    adjoint = Adjoint.of(problem)
    assert count_gmres(poise.GMRES(), adjoint, budget=20).together[1e-6] == 2  # degree of the minimal polynomial
    exact = adjoint.g / (1 - slope)
    assert adjoint.residual(exact).max() < 1e-6
    assert adjoint.residual(torch.zeros(3, 4)).tolist() == pytest.approx([1.0] * 3)
    assert adjoint.floor() < 1e-6


def entry(library, solver, loose, tight, direction="forward"):
    counts = {"1e-3": loose, "1e-6": tight}
    return {
        "direction": direction, "cell": "dense", "library": library, "solver": solver,
        "evaluations": counts, "apart": counts,
    }  # fmt: skip


def content(*counts, torchdeq="0.1.0"):
    return {"environment": {"torchdeq": torchdeq}, "counts": list(counts), "backward_floors": {"dense": 2e-6}}


def test_a_row_takes_the_best_of_each_library_and_the_first_of_poise_as_its_default():
    found = rows(
        content(
            entry("poise", "Anderson()", 9, 20), entry("poise", "Picard()", 12, 19),
            entry("torchdeq", "broyden", None, 18), entry("torchdeq", "anderson", 9, None),
        )
    )  # fmt: skip
    assert [(r.rtol, r.default, r.poise, r.poise_solver, r.torchdeq, r.torchdeq_solver) for r in found] == [
        ("1e-3", 9, 9, "Anderson()", 9, "anderson"),
        ("1e-6", 20, 19, "Picard()", 18, "broyden"),
    ]
    assert [r.needs_more for r in found] == [False, True]


def test_the_verdict_names_what_needs_more_and_what_nobody_reaches():
    worse = content(entry("poise", "Anderson()", 9, None), entry("torchdeq", "broyden", 9, 18))
    assert "dense forward to 1e-6: none against 18" in verdict(worse)
    neither = content(entry("poise", "GMRES()", 9, None, "backward"), entry("torchdeq", "broyden", 9, None, "backward"))
    assert verdict(neither).startswith("Nowhere")
    assert "Nobody reaches 1e-6 on dense backward: float32 products leave 2.0e-06" in verdict(neither)


def test_without_torchdeq_the_poise_half_stands_alone():
    alone = content(entry("poise", "Anderson()", 9, 20), torchdeq=None)
    assert "torchdeq is not installed" in verdict(alone)
    assert "torchdeq" not in evaluations.table(alone)


def test_the_expansive_cell_is_given_apart():
    wandering = entry("poise", "Broyden()", 9, None) | {"cell": "expansive", "apart": {"1e-3": 8, "1e-6": 20}}
    shown = evaluations.shown(content(entry("poise", "Broyden()", 9, 20), wandering))
    assert [(row.direction, row.cell, row.poise) for row in shown] == [
        ("forward", "dense", 9), ("forward", "dense", 20), ("apart", "expansive", 8), ("apart", "expansive", 20),
    ]  # fmt: skip
