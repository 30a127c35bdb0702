"""Anderson and Broyden against dense algebra: the textbook formulas, step by step."""

import itertools

import pytest
import torch

import poise
from poise import Anderson, Broyden
from tests.contracts.problems import dense


def iterates(case, solver):
    """The states that a solver has the cell evaluate."""
    seen = []

    def f(z, x):
        seen.append(z[0].clone())
        return case.f(z, x)

    poise.fixed_point(f, case.z0, case.x, solver=solver, check=False)
    return seen


@pytest.mark.parametrize("history", [3, 20])
def test_broyden_is_the_good_update_of_the_pairs_it_keeps(history):
    """B is rebuilt from the identity by rank-one updates with the last pairs, the sign of the first one included."""
    case = dense(batch=1, n=6, gain=0.9)
    found = iterates(case, Broyden(rtol=None, max_steps=9, history=history))
    z, pairs = case.z0[0], []

    def residual(z):
        return z - case.f(z.unsqueeze(0), case.x)[0].detach()

    for step in range(9):
        assert torch.allclose(found[step], z, atol=1e-8), step
        matrix = torch.eye(6, dtype=torch.float64)
        for s, y in pairs[-history:]:
            matrix = matrix + torch.outer(y - matrix @ s, s) / (s @ s)
        following = z - torch.linalg.solve(matrix, residual(z))
        pairs.append((following - z, residual(following) - residual(z)))
        z = following


@pytest.mark.parametrize("form", ["type1", "type2"])
@pytest.mark.parametrize("damping", [1.0, 0.7])
@pytest.mark.parametrize(("history", "period"), [(2, 1), (4, 1), (2, 2), (4, 2), (5, 2), (4, 3), (3, 3), (2, 3)])
def test_anderson_is_the_multisecant_formula(form, damping, history, period):
    """Mixing at every so many evaluations, with every difference, also where the ring wraps in between."""
    case, steps = dense(batch=1, n=16, gain=0.9), 9
    solver = Anderson(rtol=None, max_steps=steps, history=history, form=form, damping=damping, period=period)
    found = iterates(case, solver)
    zs, gs = [], []
    z = case.z0[0]
    for step in range(steps):
        assert torch.allclose(found[step], z, atol=1e-6), step
        g = case.f(z.unsqueeze(0), case.x)[0].detach() - z
        zs.append(z)
        gs.append(g)
        if step == 0 or step % min(period, history):
            z = z + damping * g
            continue
        dx = torch.stack([b - a for a, b in itertools.pairwise(zs)][-history:], dim=1)
        dg = torch.stack([b - a for a, b in itertools.pairwise(gs)][-history:], dim=1)
        left = dx if form == "type1" else dg
        gamma = torch.linalg.lstsq(left.T @ dg, (left.T @ g).unsqueeze(1), driver="gelsd").solution.squeeze(1)
        z = z + damping * g - (dx + damping * dg) @ gamma


def test_history_is_gone_after_the_solve():
    import gc
    import weakref

    case = dense(batch=2, n=64)
    kept = []

    class Watched(Anderson):
        def step(self, z, fz, memory, f, valid=None):
            following, memory = super().step(z, fz, memory, f, valid)
            kept.append(weakref.ref(memory.df))
            return following, memory

    solution = poise.fixed_point(case.f, case.z0, case.x.requires_grad_(), solver=Watched())
    gc.collect()
    assert kept and all(reference() is None for reference in kept)
    assert solution.state.requires_grad
