"""Under torch.inference_mode() every derivative is zero; what needs one says so."""

import pytest
import torch

import poise
from poise import NewtonKrylov


def test_a_plain_solve_runs():
    with torch.inference_mode():
        assert poise.fixed_point(lambda z, x: 0.5 * z + x, torch.zeros(2, 3), torch.ones(2, 3)).ok


def test_newton_krylov_refuses():
    with (
        torch.inference_mode(),
        pytest.raises(RuntimeError, match=r"NewtonKrylov needs derivatives.*use torch.no_grad"),
    ):
        poise.fixed_point(lambda z, x: 0.5 * z + x, torch.zeros(2, 3), torch.ones(2, 3), solver=NewtonKrylov())


def test_jacobian_products_refuse():
    x = torch.ones(2, 3)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="Jacobian needs derivatives"):
        poise.nn.spectral_radius(lambda z, x: 0.5 * z + x, torch.zeros(2, 3), x)
