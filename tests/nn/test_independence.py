"""Whether starts and budgets decide where a solve ends."""

import pytest
import torch
from torch import nn

import poise
from poise import Anderson, Equilibrium, Implicit, JacobianFree, Picard


class Wells(nn.Module):
    """Two fixed points, +x and -x; the sign of the start decides, of every entry by itself."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.5))

    def initial_state(self, x):
        return x.clone()

    def forward(self, z, x):
        return z + self.rate * (torch.sign(z) * x.abs() - z)


class Contraction(Wells):
    """One fixed point, 2 x."""

    def forward(self, z, x):
        return self.rate * z + x


def inputs(batch=40, n=1):
    return 1 + torch.rand(batch, n, generator=torch.Generator().manual_seed(0))


def test_a_layer_whose_start_decides_is_called_path_dependent():
    layer = Equilibrium(Wells(), Picard(rtol=1e-6, max_steps=60), JacobianFree())
    diagnosis = poise.diagnose(layer, inputs())
    found = diagnosis.independence
    # Of N(0, 1), half have the other sign, and end at the negative of the layer's own state.
    assert 0.3 < found.agreement < 0.7
    assert found.cosine == pytest.approx(2 * found.agreement - 1, abs=1e-6)
    assert found.change < 1e-5
    assert "path dependent" in {finding.name for finding in diagnosis.findings}
    assert f"only {found.agreement:.0%} end at the layer's own states" in str(diagnosis)


@pytest.mark.parametrize("options", [{}, {"residual": "position"}, {"scope": "prefix"}])
def test_a_contraction_forgets_its_start(options):
    diagnosis = poise.diagnose(Equilibrium(Contraction(), Anderson(**options), Implicit()), inputs(n=6).unsqueeze(2))
    found = diagnosis.independence
    assert found.agreement == 1.0 and found.cosine > 0.999 and found.change < 1e-3
    assert diagnosis.healthy and "100% from N(0, 1) end at the same state" in str(diagnosis)


def test_a_budget_that_is_too_small_shows_in_what_more_of_it_changes():
    layer = Equilibrium(Contraction(), Picard(rtol=None, max_steps=2), Implicit())
    change = poise.diagnose(layer, inputs()).independence.change
    # From x, two evaluations end at 1.75 x, and two more at 1.9375 x.
    assert change == pytest.approx(0.1875 / 1.9375, rel=1e-3)


def test_masked_entries_are_not_compared():
    x = inputs(n=2)
    x[:, 1] = 1.0
    valid = torch.tensor([[True, False]]).expand(len(x), 2)
    layer = Equilibrium(Contraction(), Picard(rtol=1e-6, max_steps=60), Implicit())
    assert poise.diagnose(layer, x, valid=valid).independence.agreement == 1.0
