"""Linear systems (I - J^T) u = b whose answers are known from dense solves."""

import torch

from poise.fixed_point.linear import Product


class Rows(Product):
    """u -> J^T u by dense matrices, rows of which can be left out."""

    selectable = True

    def __init__(self, matrices, count=None):
        super().__init__()
        self.matrices, self.count = matrices, count or self.count

    def __call__(self, u):
        assert len(u) == len(self.matrices)
        self.count.evaluations += 1
        self.count.rows += len(u)
        return (self.matrices @ u.unsqueeze(2)).squeeze(2)

    def select(self, index):
        return Rows(self.matrices[index], self.count)


def system(batch, n, contraction, seed, dtype=torch.float64):
    """A map of spectral radius below one with complex eigenvalues, and a right-hand side, for every sample."""
    generator = torch.Generator().manual_seed(seed)
    matrices = torch.randn(batch, n, n, generator=generator, dtype=torch.float64)
    matrices = contraction * matrices / torch.linalg.matrix_norm(matrices, 2).reshape(-1, 1, 1)
    b = torch.randn(batch, n, generator=generator, dtype=torch.float64)
    return matrices.to(dtype), b.to(dtype), torch.linalg.solve(torch.eye(n).double() - matrices, b)
