import pytest
import torch

from benchmarks.cells import (
    CELLS,
    MIXED,
    attention,
    conv,
    dense256,
    expansive,
    flat,
    hard,
    mdeq,
    mixed_linear,
    solved,
    spectral_radii,
)
from benchmarks.counting import count, forward_residual
from poise.fixed_point.tree import select_rows, tree_map


def test_dense256_has_the_spectral_radii_of_the_notes():
    # The notes give 0.71 to 0.85; computed densely, over all 64 samples, it is 0.732 to 0.857. These are a quarter.
    radii = spectral_radii(dense256().select(torch.arange(0, 64, 4)))
    assert radii.min() > 0.71 and radii.max() < 0.86
    assert radii.mean().item() == pytest.approx(0.785, abs=0.015)


def test_hard_is_no_contraction_in_norm_and_hardly_one_in_radius():
    problem = hard()
    assert torch.linalg.matrix_norm(problem.f.weight, 2).item() == pytest.approx(1.27, abs=0.005)
    radii = spectral_radii(problem.select(torch.arange(0, 64, 8)))
    assert radii.min() > 0.9 and radii.max() < 0.99


@pytest.mark.parametrize(
    ("build", "loose", "tight"),
    [(dense256, 36, 79), (attention, 25, 57), (conv, 23, 63)],
    ids=["dense256", "attention", "conv"],
)
def test_picard_needs_what_the_notes_say(build, loose, tight):
    problem = build()

    def picard(f, z, budget):
        for _ in range(budget):
            z = f(z)

    residual = forward_residual(problem.to(torch.float64))
    with torch.no_grad():
        record = count(picard, problem.closed(), problem.z0, residual, budget=100)
    assert record.together == {1e-3: loose, 1e-6: tight}


def test_mixed_linear_contracts_by_its_factors():
    problem = mixed_linear()
    spectrum = torch.linalg.eigvalsh(problem.f.symmetric.double())
    assert torch.allclose(spectrum, torch.linspace(-1, 1, 64).double(), atol=1e-6)
    assert problem.context.factor[[0, -1]].tolist() == pytest.approx([0.1, 0.97])


@pytest.mark.parametrize("build", [*CELLS, expansive, *MIXED], ids=lambda build: build.__name__)
def test_a_problem_is_the_same_at_every_call_castable_and_selectable(build):
    problem, again = build(), build()
    assert flat(problem.z0).dtype == torch.float32 and not flat(problem.z0).any()
    z = tree_map(torch.randn_like, problem.z0)
    image = problem.f(z, problem.context)
    assert torch.equal(flat(image), flat(again.closed()(z)))
    wide = problem.to(torch.float64)
    widened = wide.f(tree_map(torch.Tensor.double, z), wide.context)
    assert torch.allclose(flat(widened), flat(image).double(), rtol=1e-4, atol=1e-4)
    rows = torch.tensor([3, 1])
    part = problem.select(rows)
    assert part.batch == 2
    assert torch.allclose(flat(part.f(select_rows(z, rows), part.context)), flat(image)[rows], rtol=1e-4, atol=1e-5)


def test_solved_is_the_fixed_point_in_float64():
    problem = hard().select(torch.tensor([0, 5]))
    z = solved(problem)
    exact = problem.to(torch.float64)
    assert z.dtype == torch.float64
    assert (exact.f(z, exact.context) - z).norm() < 1e-13 * z.norm()


def test_the_multiscale_cell_contracts_and_its_scales_act_on_each_other():
    problem = mdeq().select(torch.tensor([0, 3])).to(torch.float64)
    z, steps = problem.z0, []
    for _ in range(71):
        before, z = z, problem.f(z, problem.context)
        steps.append((flat(z) - flat(before)).norm(dim=1))
    assert ((steps[70] / steps[35]) ** (1 / 35)).tolist() == pytest.approx([0.77, 0.84], abs=0.02)
    for moved in range(4):
        other = tuple(part + 0.1 * (scale == moved) * part.sign() for scale, part in enumerate(z))
        images = zip(z, problem.f(other, problem.context), strict=True)
        assert all((a - b).norm() > 1e-4 * a.norm() for a, b in images)


def test_the_expansive_cell_does_not_contract():
    problem = expansive().select(torch.arange(4)).to(torch.float64)
    z = problem.z0
    for _ in range(300):
        before, z = z, problem.f(z, problem.context)
    assert ((z - before).norm(dim=1) > 0.01 * z.norm(dim=1)).all()
