"""VICReg against the formulas written out, the golden values of each convention, and what must be refused."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poise.objectives import VICRegLoss, covariance_term, invariance_term, variance_term
from poise.objectives.decorrelation import HALVES_FROM, symmetric_product

# Of Z_ij = sin k and Z'_ij = cos(k) / 2 with k = 3 i + j + 1, B = 4, D = 3.
GOLDEN = {"authors": 28.2498023448, "paper": 39.3803851392, "vicregl": 27.8682687632}


def golden_views():
    k = torch.arange(1, 13, dtype=torch.float64).reshape(4, 3)
    return torch.sin(k).requires_grad_(), (0.5 * torch.cos(k)).requires_grad_()


def plain(views, convention="authors", weights=(25.0, 25.0, 1.0)):
    """The loss as the equations have it, by the D x D matrix."""
    pairs = [(a - b).square().mean() for i, a in enumerate(views) for b in views[i + 1 :]]
    variances, covariances = [], []
    for z in views:
        variances.append(torch.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean())
        matrix = torch.atleast_2d(torch.cov(z.T))
        covariances.append((matrix - torch.diag(matrix.diagonal())).square().sum() / z.shape[1])
    v = sum(variances) / len(views) * (2 if convention == "paper" else 1)
    c = sum(covariances) / len(views) * (1 if convention == "vicregl" else 2)
    return weights[0] * sum(pairs) / len(pairs) + weights[1] * v + weights[2] * c


def embeddings(batch, width, seed, views=2, scale=1.0, column=None):
    generator = torch.Generator().manual_seed(seed)
    made = [scale * torch.randn(batch, width, generator=generator, dtype=torch.float64) for _ in range(views)]
    for z in made:
        if column is not None:
            z[:, width // 2] *= column
    return made


def errors(views, dtype, convention="authors"):
    """The relative errors of the loss and of its gradients against the equations in float64."""
    exact = [z.clone().requires_grad_() for z in views]
    expected = plain(exact, convention)
    expected.backward()
    given_views = [z.to(dtype).clone().requires_grad_() for z in views]
    found = VICRegLoss(convention)(*given_views).total
    found.backward()
    gradients = [
        ((a.grad.double() - b.grad).norm() / b.grad.norm()).item() for a, b in zip(given_views, exact, strict=True)
    ]
    return abs(found.item() - expected.item()) / expected.item(), max(gradients)


@pytest.mark.parametrize("convention", GOLDEN)
def test_golden_values(convention):
    terms = VICRegLoss(convention)(*golden_views())
    assert terms.total.item() == pytest.approx(GOLDEN[convention], abs=1e-9)
    assert terms.invariance.item() == pytest.approx(0.6542460955, abs=1e-9)
    z, other = golden_views()
    assert [variance_term(z).item(), variance_term(other).item()] == pytest.approx(
        [0.2533110648, 0.6371355588], abs=1e-9
    )
    assert [covariance_term(z).item(), covariance_term(other).item()] == pytest.approx(
        [0.7282684590, 0.0347987040], abs=1e-9
    )


@pytest.mark.parametrize("convention", GOLDEN)
def test_golden_gradient(convention):
    views, same = golden_views(), golden_views()
    VICRegLoss(convention)(*views).total.backward()
    plain(same, convention).backward()
    assert torch.allclose(views[0].grad, same[0].grad, rtol=0, atol=1e-12)
    if convention == "authors":
        row = [1.4286545017, 5.0120623232, 2.2620379284]
        assert views[0].grad[0].tolist() == pytest.approx(row, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 40), st.integers(1, 40), st.integers(2, 4), st.floats(0.05, 5.0), st.sampled_from(list(GOLDEN)),
    st.integers(0, 2**31),
)  # fmt: skip
def test_any_shape(batch, width, views, scale, convention, seed):
    made = embeddings(batch, width, seed, views, scale)
    value, gradient = errors(made, torch.float64, convention)
    assert value <= 1e-12 and gradient <= 1e-11
    value, gradient = errors(made, torch.float32, convention)
    assert value <= 1e-6 and gradient <= 1e-5


@pytest.mark.parametrize(("batch", "width"), [(256, 1024), (300, 40), (64, 64), (65, 64), (64, 65)])
@pytest.mark.parametrize("column", [None, 100.0])
def test_precision_at_usual_sizes(batch, width, column):
    views = embeddings(batch, width, 0, column=column)
    value, gradient = errors(views, torch.float32)
    assert value <= (1e-6 if column is None else 1e-4) and gradient <= 1e-6
    value, gradient = errors(views, torch.float64)
    assert value <= 1e-12 and gradient <= 1e-12


def test_columns_of_very_different_sizes():
    """More large columns than are taken out, each ten times the next."""
    views = embeddings(64, 256, 0)
    for z in views:
        z[:, :10] *= torch.logspace(-1, 4, 10, dtype=torch.float64)
    value, gradient = errors(views, torch.float32)
    assert value <= 1e-5 and gradient <= 1e-5


def test_a_large_symmetric_product_is_made_of_one_triangle():
    x = torch.randn(HALVES_FROM + 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(symmetric_product(x), x @ x.T, rtol=0, atol=1e-12)


def test_gradcheck_and_a_second_derivative_is_refused():
    views = [z.requires_grad_() for z in embeddings(5, 7, 0)]
    assert torch.autograd.gradcheck(lambda *z: VICRegLoss()(*z).total, views)
    assert torch.autograd.gradcheck(variance_term, (views[0] * 0.3,))
    with pytest.raises(RuntimeError, match="first derivative only"):
        torch.autograd.grad(VICRegLoss()(*views).total, views, create_graph=True)


def test_terms_apart_have_their_gradients():
    z = embeddings(6, 9, 1)[0]
    for term, alone in (
        (variance_term, lambda z: torch.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean()),
        (covariance_term, lambda z: (torch.cov(z.T) * (1 - torch.eye(9))).square().sum() / 9),
    ):
        found, expected = z.clone().requires_grad_(), z.clone().requires_grad_()
        term(found).backward()
        alone(expected).backward()
        assert torch.allclose(found.grad, expected.grad, rtol=0, atol=1e-12)


def test_the_total_is_the_weighted_sum_of_the_terms():
    views = embeddings(8, 5, 2)
    terms = VICRegLoss(invariance=3.0, variance=5.0, covariance=7.0)(*views)
    weighted = 3 * terms.invariance + 5 * terms.variance + 7 * terms.covariance
    assert terms.total.item() == pytest.approx(weighted.item(), rel=1e-12)
    assert terms.invariance.item() == pytest.approx(invariance_term(*views).item())


def test_a_short_last_batch_divides_by_its_own_number():
    """The published code divides by the nominal batch size: a last batch of half the size weighs a quarter there."""
    views = embeddings(128, 16, 3)
    assert errors([z[:37] for z in views], torch.float64)[0] <= 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype):
    """Z^T Z of 2,048 rows of standard deviation 6 is beyond float16."""
    views = [z.to(dtype) for z in embeddings(2048, 32, 4, scale=6.0)]
    assert (views[0].double().T @ views[0].double()).max() > 65504
    given_views = [z.clone().requires_grad_() for z in views]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = VICRegLoss()(*given_views)
    assert terms.total.dtype == torch.float32
    assert terms.total.item() == pytest.approx(plain([z.double() for z in views]).item(), rel=1e-6)
    terms.total.backward()
    assert all(z.grad.dtype == dtype and z.grad.isfinite().all() for z in given_views)


def test_a_constant_embedding_has_the_largest_hinge_and_no_gradient():
    """Which is why a collapse to a point is not left again; the hinge is 1 - sqrt(eps) there."""
    z = torch.ones(6, 4, dtype=torch.float64, requires_grad=True)
    value = variance_term(z)
    value.backward()
    assert value.item() == pytest.approx(0.99) and z.grad.abs().max() == 0


def test_only_what_is_asked_for_is_differentiated():
    first, second = embeddings(6, 4, 5)
    second.requires_grad_()
    VICRegLoss()(first, second).total.backward()
    assert first.grad is None and second.grad is not None
    with torch.no_grad():
        assert VICRegLoss()(first, second).total.item() > 0


def test_it_is_a_value():
    assert VICRegLoss() == VICRegLoss() and dataclasses.replace(VICRegLoss(), covariance=2.0) != VICRegLoss()


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ([torch.zeros(4, 3)], "at least 2"),
        ([torch.zeros(4, 3), torch.zeros(5, 3)], r"\(4, 3\), float32 \(5, 3\)"),
        ([torch.zeros(4, 3, 2), torch.zeros(4, 3, 2)], "of one shape"),
        ([torch.zeros(4, 3).long(), torch.zeros(4, 3).long()], "int64"),
        ([torch.zeros(1, 3), torch.zeros(1, 3)], "at least 2 to see variance"),
    ],
)
def test_what_is_no_pair_of_embeddings_is_refused(views, message):
    with pytest.raises(ValueError, match=message):
        VICRegLoss()(*views)


def test_options_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="'authors', 'paper' or 'vicregl'"):
        VICRegLoss("autors")
    with pytest.raises(ValueError, match=r"covariance=-1"):
        VICRegLoss(covariance=-1)
