"""The scan of a linear recurrence, against the loop."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from poise.nn.scan import linear_scan


@given(length=st.integers(1, 40), seed=st.integers(0, 99))
def test_the_scan_is_its_recurrence(length, seed):
    source = torch.Generator().manual_seed(seed)
    draw = lambda n: torch.randn(2, n, 3, generator=source, dtype=torch.float64).requires_grad_()  # noqa: E731
    leaves = decay, update, start = draw(length), draw(length), draw(1)
    c, expected = start[:, 0], []
    for t in range(length):
        c = decay[:, t] * c + update[:, t]
        expected.append(c)
    found, expected = linear_scan(decay, update, start), torch.stack(expected, dim=1)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)
    gradients = (torch.autograd.grad(out.sin().sum(), leaves) for out in (found, expected))
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-7)
