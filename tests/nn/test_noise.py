"""Masks drawn once a solve: one a sample, the same at every evaluation, whatever leaves the batch."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from poise import Anderson, Equilibrium, Picard
from poise.fixed_point.tree import select_rows
from poise.nn import TransformerCell, dropout_mask


def test_a_mask_has_its_values_and_its_rate():
    mask = dropout_mask(torch.empty(100, 200, requires_grad=True), 0.25, torch.Generator().manual_seed(0))
    assert mask.unique().tolist() == [0.0, pytest.approx(4 / 3)] and not mask.requires_grad
    assert mask.mean().item() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(mask, dropout_mask(mask, 0.25, torch.Generator().manual_seed(0)))
    assert dropout_mask(torch.empty(2, 1, 3, dtype=torch.bfloat16), 0.5).shape == (2, 1, 3)
    assert torch.equal(dropout_mask(torch.empty(2, 3), 0.0), torch.ones(2, 3))
    for p in (1.0, -0.1):
        with pytest.raises(ValueError, match="is no probability below 1"):
            dropout_mask(mask, p)


def test_a_mask_is_what_dropout_draws():
    x = torch.ones(50, 40)
    torch.manual_seed(3)
    expected = F.dropout(x, 0.3)
    torch.manual_seed(3)
    assert torch.equal(dropout_mask(x, 0.3), expected)


class Masked(nn.Module):
    """Samples contract at rates of their own, so that they leave the batch one after another."""

    def __init__(self, p):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.p = nn.Linear(8, 8).double(), p
        nn.init.orthogonal_(self.linear.weight, gain=0.5)

    def inject(self, x):
        rate = torch.linspace(0.1, 0.9, len(x), dtype=x.dtype).unsqueeze(1)
        return {"x": x, "rate": rate, "mask": dropout_mask(x, self.p if self.training else 0.0)}

    def initial_state(self, context):
        return torch.zeros_like(context["x"])

    def forward(self, z, context):
        return torch.tanh(context["rate"] * self.linear(z * context["mask"]) + context["x"])


@pytest.mark.parametrize("solver", [Picard(rtol=1e-10, max_steps=200), Anderson(rtol=1e-10)])
def test_every_sample_keeps_its_own_mask_through_compaction(solver):
    layer = Equilibrium(Masked(0.5), solver)
    solution = layer.solve(torch.randn(12, 8).double())
    assert solution.rows < 0.9 * 12 * solution.evaluations  # samples did leave
    masks = solution.context["mask"]
    assert len({tuple(mask.tolist()) for mask in masks}) > 6
    for i in range(12):
        context = select_rows(solution.context, torch.tensor([i]))
        z = torch.zeros(1, 8).double()
        for _ in range(400):
            z = layer.cell(z, context)
        assert torch.allclose(solution.state[i], z[0], atol=1e-8)
    still = layer.eval().solve(torch.ones(3, 8).double())
    assert torch.equal(still.context["mask"], torch.ones(3, 8).double())


def test_the_masks_of_a_transformer_follow_their_samples():
    cell = TransformerCell(16, 2, 1, 32, dropout=0.2).double()
    layer = Equilibrium(cell, Anderson(rtol=1e-9, max_steps=300))
    x = torch.randn(6, 5, 16).double() * torch.linspace(0.2, 3, 6).double().reshape(6, 1, 1)
    solution = layer.solve(x)
    assert solution.ok and solution.rows < 6 * solution.evaluations
    for i in range(6):
        context = select_rows(solution.context, torch.tensor([i]))
        state = solution.state[i : i + 1]
        assert (cell(state, context) - state).norm() < 1e-7 * state.norm()
