"""A diagnosis says everything once, tells causes apart, and advises nothing that would not help."""

import pytest
import torch

import poise
from poise import Anderson, Equilibrium, Implicit, JacobianFree, Picard
from poise.nn import diagnose
from tests.nn.planted_cells import SHORT, Cell, inputs, singular, without_derivative


def test_a_table_is_short_and_says_everything_once():
    lines = str(diagnose(Equilibrium(Cell(), adjoint=SHORT), inputs())).splitlines()
    labels = [line.split()[0] for line in lines if line.startswith("  ")]
    assert labels == [
        "residual", "statuses", "contraction", "radius", "starts", "repeats", "samples", "context", "error", "floor",
        "cost", "backward",
    ]  # fmt: skip
    assert all(len(line) <= 120 for line in lines[1:]) and lines[1] == ""
    assert lines[0].count(". ") == 0 and lines[0].endswith(".")


def test_more_budget_is_no_advice_where_the_residual_hardly_falls():
    class Swinging(Cell):
        def initial_state(self, x):
            return torch.full_like(x, 9.0)

    layer = Equilibrium(Swinging(lambda linear, z, x: 10 - 0.9999 * (z - 9) + 0.01 * x), Picard(max_steps=20))
    assert "hardly falls any more: take another solver" in diagnose(layer, inputs()).summary()


def test_more_products_are_no_advice_where_the_backward_diverges():
    layer = Equilibrium(Cell(gain=1.5), Anderson(max_steps=300), Implicit(Picard(max_steps=50)))
    found = {finding.name: str(finding) for finding in diagnose(layer, inputs()).findings}
    assert "take GMRES()" in found["diverging backward"] and "raise max_steps" not in found["diverging backward"]


@pytest.mark.parametrize("adjoint", [Implicit(), JacobianFree(), Implicit(poise.Dense())], ids=repr)
def test_a_backward_that_fails_is_not_told_of_the_forward(adjoint):
    diagnosis = diagnose(Equilibrium(Cell(singular), adjoint=adjoint), inputs())
    names = [finding.name for finding in diagnosis.findings]
    assert names == ["expansive cell", "singular backward"]  # the radius is 1 where the system is singular
    assert "a tighter backward solve at the solutions ends" in str(diagnosis.findings[1])
    assert diagnosis.accuracy.state < 1e-6 and diagnosis.accuracy.gradient is None
    assert "in float64, whose backward gives no gradient to compare" in str(diagnosis)


def test_a_derivative_that_is_not_finite_has_words_of_its_own():
    diagnosis = diagnose(Equilibrium(Cell(without_derivative)), inputs())
    assert len(diagnosis.findings) == 1 and "NaN or infinity for 10 of 10 samples" in diagnosis.summary()
    assert "max_steps" not in diagnosis.summary() and "nan" not in str(diagnosis).replace("NaN", "")
    assert "radius      not measured, since the Jacobian is not finite" in str(diagnosis)
