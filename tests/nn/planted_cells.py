"""Cells for the tests of a diagnosis: a sound one, those with a fault planted, and their inputs."""

import torch
import torch.nn.functional as F
from torch import nn

from poise import GMRES, Implicit


class Cell(nn.Module):
    """tanh(W z + x) by default; `f` plants a fault."""

    def __init__(self, f=None, gain=0.8, n=12):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.f = nn.Linear(n, n), f
        nn.init.orthogonal_(self.linear.weight, gain=gain)

    def forward(self, z, x):
        return torch.tanh(self.linear(z) + x) if self.f is None else self.f(self.linear, z, x)


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(12)

    def forward(self, z, x):
        return 0.5 * torch.tanh(self.norm(z + x))


def inputs(batch=10, n=12):
    return torch.randn(batch, n, generator=torch.Generator().manual_seed(1))


def expansive(linear, z, x):
    return 3 * linear(z) + x


def averaging(linear, z, x):
    return torch.tanh(linear(z - z.mean(dim=0)) + x)


def noisy(linear, z, x):
    return torch.tanh(linear(F.dropout(z, 0.1)) + x)


def deaf(linear, z, x):
    return torch.tanh(linear(z) + 1)


class Spoilt(torch.autograd.Function):
    """The identity, with a backward that multiplies by a number."""

    @staticmethod
    def forward(ctx, z, factor):
        ctx.factor = factor
        return z.clone()

    @staticmethod
    def backward(ctx, grad):
        return ctx.factor * grad, None


def without_derivative(linear, z, x):
    return Spoilt.apply(torch.tanh(linear(z) + x), float("nan"))


def root_of_zero(linear, z, x):
    return 0.5 * torch.tanh(z) + x + 0 * (z - z).abs().sqrt()


def singular(linear, z, x):
    return Spoilt.apply(0.5 * z, 2.0) + x  # whose I - J is said to be zero


SHORT = Implicit(GMRES(max_steps=2))
