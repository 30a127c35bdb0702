"""Halves of tests that show a peer's defect run where the peer is installed and are skipped by name elsewhere."""

from types import SimpleNamespace

import pytest


@pytest.fixture
def torchdeq():
    name = "torchdeq is not installed (pip install --no-deps torchdeq==0.1.0)"
    package = pytest.importorskip("torchdeq", reason=name)
    solver = pytest.importorskip("torchdeq.solver", reason=name)
    loss = pytest.importorskip("torchdeq.loss", reason=name)

    def solve(key, f, z0, **options):
        """Return the state, torchdeq's record and the evaluations made."""
        made = 0

        def counted(z):
            nonlocal made
            made += 1
            return f(z)

        state, _, record = solver.get_solver(key)(counted, z0, **options)
        return state, record, made

    return SimpleNamespace(
        get_deq=package.get_deq,
        register_solver=solver.register_solver,
        solve=solve,
        power_method=loss.power_method,
        fp_correction=loss.fp_correction,
    )
