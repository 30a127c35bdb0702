"""Variance and covariance of a batch of embeddings at a small part of their plain cost, with gradients.

With Zc the N x D batch less its column means, q_j = sum_i Zc_ij^2, and k = 1 / ((N - 1)^2 D):

- covariance penalty: k (|Zc^T Zc|^2 - sum_j q_j^2), the mean over columns of the squared off-diagonal covariances;
- its gradient: 4 k (Zc Zc^T Zc - Zc diag q), whose column means are zero, so that nothing need be centred again.

|Zc^T Zc| = |Zc Zc^T| (Garrido et al. 2023, "On the duality between contrastive and non-contrastive self-supervised
learning"), so whichever of the D x D and the N x N matrix is smaller is made. The N x N form subtracts what it does not
want, which costs digits where a few columns are much larger than the rest: those are taken out and counted by
themselves. The gradient is made in the forward, while that matrix is at hand, so that the matrix need not be kept.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from poise.objectives.gather import Rows, summed, whole

LARGE_COLUMNS = 8  # taken out of the N x N form: the subtraction then amplifies rounding by N at most
HALVES_FROM = 1024  # sides from which only one triangle of a symmetric product is made, in blocks
BLOCKS = 4


class _VarianceCovariance(torch.autograd.Function):
    """z -> (variance hinge, covariance penalty) of the whole batch."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, rows: Rows, floor: float, eps: float) -> tuple[Tensor, Tensor]:
        total, width = rows.total, z.shape[1]
        by_columns = width <= total if rows.processes == 1 else width < total / 2  # of fewer bytes where any are sent
        everything = z.detach() if by_columns else whole(z, rows)
        mean = summed(z.detach().sum(dim=0), rows) / total if by_columns else everything.mean(dim=0)
        centred = everything - mean
        own = centred if by_columns or rows.processes == 1 else centred[rows.own]
        squares = centred.square().sum(dim=0)
        if by_columns:
            squares = summed(squares, rows)
        deviation = (squares / (total - 1) + eps).sqrt()
        variance = (floor - deviation).relu().mean()
        # Of a hinge that is open: d(-std_j) / dz_ij = -zc_ij / ((N - 1) std_j).
        slope = torch.where(deviation < floor, -1 / (width * (total - 1) * deviation), 0.0)
        scale = 1 / ((total - 1) ** 2 * width)
        wanted = ctx.needs_input_grad[0]
        penalty, gradient = (_by_columns if by_columns else _by_rows)(own, centred, squares, rows, wanted)
        ctx.processes = rows.processes
        if wanted:
            ctx.save_for_backward(z, mean, slope, gradient.mul_(4 * scale))
        return variance, penalty * scale

    @staticmethod
    def backward(ctx: Any, for_variance: Tensor, for_covariance: Tensor) -> tuple[Tensor, None, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the variance and covariance terms have a first derivative only, and a second was asked for; "
                "call backward without create_graph=True."
            )
        z, mean, slope, gradient = ctx.saved_tensors
        found = torch.addcmul(gradient * for_covariance, z - mean, slope * for_variance)
        return found * ctx.processes, None, None, None


def variance_covariance(z: Tensor, rows: Rows, floor: float = 1.0, eps: float = 1e-4) -> tuple[Tensor, Tensor]:
    """Return the variance hinge and the covariance penalty of the whole batch, of which `z` (n, D) are own rows.

    Variance: mean_j relu(floor - sqrt(Var_j + eps)). Covariance: (1 / D) sum_{i != j} C_ij^2. Both divide by N - 1.
    Of one derivative only; a second is refused. Bardes, Ponce and LeCun (2022), equations 1 to 3.
    """
    with torch.autocast(z.device.type, enabled=False):
        variance, covariance = _VarianceCovariance.apply(wide(z), rows, floor, eps)
    return variance, covariance


def wide(z: Tensor) -> Tensor:
    """Return embeddings in float32 or better, in which their products neither overflow nor lose the loss."""
    return z if z.dtype == torch.float64 else z.float()


def _by_columns(own: Tensor, _: Tensor, __: Tensor, rows: Rows, wanted: bool) -> tuple[Tensor, Tensor]:
    """Return sum_{i != j} (Zc^T Zc)_ij^2 and the own rows of Zc off(Zc^T Zc), by the D x D matrix."""
    matrix = summed(symmetric_product(own.t()), rows)
    matrix.fill_diagonal_(0.0)
    return matrix.square().sum(), own @ matrix if wanted else own


def _by_rows(own: Tensor, centred: Tensor, squares: Tensor, rows: Rows, wanted: bool) -> tuple[Tensor, Tensor]:
    """Return the same by the own rows of the N x N matrix."""
    large = squares.topk(min(LARGE_COLUMNS, len(squares))).indices
    apart = centred.index_select(1, large)
    rest = centred.index_fill(1, large, 0.0)
    rest_squares = squares.index_fill(0, large, 0.0)
    mine = rest if rows.processes == 1 else rest[rows.own]
    matrix = symmetric_product(rest) if rows.processes == 1 else mine @ rest.t()
    across = apart.t() @ rest  # (large, D), zero in the columns taken out
    among = apart.t() @ apart
    among.fill_diagonal_(0.0)
    # The sum of squares by square().sum(): a dot product and a whole-matrix norm lose digits here.
    penalty = summed(matrix.square().sum(), rows) - rest_squares.square().sum()
    penalty = penalty + 2 * across.square().sum() + among.square().sum()
    if not wanted:
        return penalty, own
    gradient = (matrix @ rest).addcmul_(mine, rest_squares, value=-1)
    own_apart = apart if rows.processes == 1 else apart[rows.own]
    gradient.addmm_(own_apart, across)
    gradient.index_copy_(1, large, matrix @ apart + own_apart @ among)
    return penalty, gradient


def symmetric_product(x: Tensor) -> Tensor:
    """Return x x^T; of a large one only a triangle of blocks is multiplied out."""
    side = x.shape[0]
    if side < HALVES_FROM:
        return x @ x.t()
    product = x.new_empty(side, side)
    edges = [side * place // BLOCKS for place in range(BLOCKS + 1)]
    for first, last in pairwise(edges):
        # One block and all below it in its columns.
        product[first:, first:last] = x[first:] @ x[first:last].t()
        product[first:last, last:] = product[last:, first:last].t()
    return product
