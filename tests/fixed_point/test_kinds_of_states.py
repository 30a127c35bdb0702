"""Complex and mixed states, memory layouts, autocast and infinite gradients, through every adjoint."""

import warnings

import pytest
import torch
from torch import nn

import poise
from poise import GMRES, Anderson, Equilibrium, Implicit, JacobianFree, Neumann, Phantom, Picard, Reversible, Unrolled

TIGHT = {"rtol": 1e-12, "max_steps": 300}
EXACT = {
    "implicit": (Implicit(GMRES(rtol=1e-13)), Anderson(**TIGHT)),
    "implicit_anderson": (Implicit(Anderson(**TIGHT)), Anderson(**TIGHT)),
    "neumann": (Implicit(Neumann(terms=100)), Anderson(**TIGHT)),
    "phantom": (Phantom(steps=50), Anderson(**TIGHT)),
    "phantom_neumann": (Phantom(steps=80, damping=0.7, form="neumann"), Anderson(**TIGHT)),
    "unrolled": (Unrolled(), Picard(**TIGHT)),
    "unrolled_anderson": (Unrolled(), Anderson(rtol=None, max_steps=6)),
    "reversible": (Reversible(), Picard(damping=0.5, rtol=None, max_steps=8)),
}


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def complex_inputs():
    weight, x = 0.15 * draw(3, 3, dtype=torch.complex128), 0.3 * draw(2, 3, seed=1, dtype=torch.complex128)
    return x.requires_grad_(), weight.requires_grad_()


def complex_state(name, **options):
    adjoint, solver = EXACT[name]

    def solve(x, weight):
        """Not holomorphic: the derivative with respect to the conjugate counts."""
        return poise.fixed_point(
            lambda z, x: 0.2 * torch.sin(z) + z @ weight + 0.1 * z.conj() + x, torch.zeros_like(x), x,
            solver=solver, adjoint=adjoint, on_failure="ignore", check=False, **options,
        ).state  # fmt: skip

    return solve


@pytest.mark.parametrize("name", EXACT)
def test_complex_states(name):
    assert torch.autograd.gradcheck(complex_state(name), complex_inputs(), fast_mode=True)


def test_complex_states_in_second_order_and_forward_mode():
    x, weight = complex_inputs()
    assert torch.autograd.gradgradcheck(
        complex_state("implicit", parameters=[weight]), (x, weight), atol=1e-5, fast_mode=True
    )
    assert torch.autograd.gradcheck(complex_state("implicit"), (x, weight), check_forward_ad=True, fast_mode=True)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("name", EXACT)
def test_real_and_complex_parts_of_odd_width(name, rows):
    """The pairs of the second part begin at an odd number."""
    adjoint, solver = EXACT[name]
    x = (0.3 * draw(rows, 3, dtype=torch.complex128)).requires_grad_()

    def solve(x):
        return poise.fixed_point(
            lambda z, x: (0.3 * torch.tanh(z[0]) + 0.2 * z[1].real + x.real, 0.2 * z[1] * z[0] + x),
            (torch.zeros(rows, 3).double(), torch.zeros_like(x)), x, solver=solver, adjoint=adjoint,
            on_failure="ignore", check=False,
        ).state  # fmt: skip

    assert torch.autograd.gradcheck(solve, (x,), fast_mode=True)


LAYOUTS = {
    "transposed": lambda: draw(5, 4).t(),
    "strided": lambda: draw(4, 10)[:, ::2],
    "expanded_rows": lambda: draw(1, 5).expand(4, 5),
    "expanded_columns": lambda: draw(4, 1).expand(4, 5),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", EXACT)
def test_memory_layouts(name, layout):
    """Of the start, the context and the incoming gradient."""
    adjoint, solver = EXACT[name]
    weight = (0.2 * draw(5, 5, seed=2)).requires_grad_()

    def solved(make):
        leaf = LAYOUTS[layout]().requires_grad_()
        state = poise.fixed_point(
            lambda z, x: torch.tanh(z @ weight + x), make(LAYOUTS[layout]()), make(leaf), solver=solver,
            adjoint=adjoint, on_failure="ignore", check=False,
        ).state  # fmt: skip
        return state, *torch.autograd.grad(state, [leaf, weight], make(LAYOUTS[layout]()))

    for found, expected in zip(solved(lambda t: t), solved(lambda t: t.contiguous().clone()), strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=1e-12)


LOOSE = {
    "implicit": (Implicit(GMRES(rtol=1e-3)), Anderson(rtol=1e-2)),
    "implicit_anderson": (Implicit(Anderson(rtol=1e-2)), Anderson(rtol=1e-2)),
    "phantom": (Phantom(steps=4), Anderson(rtol=1e-2)),
    "phantom_neumann": (Phantom(steps=6, form="neumann"), Anderson(rtol=1e-2)),
    "jacobian_free": (JacobianFree(), Anderson(rtol=1e-2)),
    "unrolled": (Unrolled(), Picard(rtol=None, max_steps=8)),
    "unrolled_checkpointed": (Unrolled(checkpoint=True), Picard(rtol=None, max_steps=8)),
    "reversible": (Reversible(), Picard(damping=0.5, rtol=None, max_steps=10)),
}


def linear():
    torch.manual_seed(0)
    layer = nn.Linear(16, 16)
    nn.init.orthogonal_(layer.weight, gain=0.7)
    return layer, torch.randn(4, 16).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOOSE)
def test_a_backward_replays_the_autocast_of_its_forward(name, dtype):
    adjoint, solver = LOOSE[name]
    layer, x = linear()
    seen = []

    def f(z, x):
        out = layer(z)
        seen.append(out.dtype)
        return torch.tanh(out + x)

    def gradients(enabled, inside):
        seen.clear()
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            state = poise.fixed_point(f, torch.zeros(4, 16), x, solver=solver, adjoint=adjoint, check=False).state
            loss = state.float().square().sum()
        with torch.autocast("cpu", dtype=dtype, enabled=inside):
            found = torch.autograd.grad(loss, [x, layer.weight])
        assert set(seen) == {dtype if enabled else torch.float32}
        return found

    outside, exact = gradients(True, False), gradients(False, False)
    for a, b, c in zip(outside, gradients(True, True), exact, strict=True):
        assert torch.equal(a, b) and (a - c).norm() <= 0.02 * c.norm()
    for a, b in zip(gradients(False, True), exact, strict=True):
        assert (a - b).norm() <= 0.02 * b.norm()


def test_tangents_under_autocast():
    layer, x = linear()

    def solve(x):
        return poise.fixed_point(
            lambda z, x: torch.tanh(layer(z) + x).float(), torch.zeros(4, 16), x, solver=Anderson(rtol=1e-2),
            adjoint=Implicit(GMRES(rtol=1e-3, max_steps=12)), on_failure="ignore", check=False,
        ).state  # fmt: skip

    with torch.no_grad():
        _, exact = torch.func.jvp(solve, (x,), (x.cos(),))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            _, found = torch.func.jvp(solve, (x,), (x.cos(),))
    assert (found - exact).norm() <= 0.02 * exact.norm()


@pytest.mark.parametrize("name", LOOSE)
def test_infinite_gradients_reach_the_parameters(name):
    """Loss scaling looks for them there, and lowers its scale."""
    adjoint, solver = LOOSE[name]
    layer, x = linear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = poise.fixed_point(
            lambda z, x: torch.tanh(layer(z) + x), torch.zeros(4, 16), x, solver=solver, adjoint=adjoint, check=False
        ).state
        (state.sum() * float("inf")).backward()
    assert not layer.weight.grad.isfinite().any() and not x.grad.isfinite().any()


@pytest.mark.parametrize("name", [name for name in LOOSE if name != "jacobian_free"])
def test_bfloat16_states(name):
    adjoint, solver = LOOSE[name]
    layer, x = linear()

    def gradients(dtype):
        narrow = nn.Linear(16, 16).to(dtype)
        narrow.load_state_dict(layer.state_dict())
        leaf = x.detach().to(dtype).requires_grad_()
        state = poise.fixed_point(
            lambda z, x: torch.tanh(narrow(z) + x), torch.zeros(4, 16, dtype=dtype), leaf, solver=solver,
            adjoint=adjoint, check=False,
        ).state  # fmt: skip
        assert state.dtype == dtype
        return torch.autograd.grad(state.float().square().sum(), [leaf, narrow.weight])

    for found, expected in zip(gradients(torch.bfloat16), gradients(torch.float32), strict=True):
        assert (found - expected).norm() <= 0.05 * expected.norm()


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Linear(4, 4).double()
        nn.init.orthogonal_(self.w.weight, gain=0.6)

    def forward(self, z, x):
        return torch.tanh(self.w(z) + x)


@pytest.mark.parametrize("name", [name for name in EXACT if name not in ("unrolled_anderson", "reversible")])
def test_computed_weights_under_functional_call(name):
    """Fast weights of an inner step: what they were made from gets the gradient."""
    adjoint, solver = EXACT[name]
    layer, raw, x = Equilibrium(Cell(), solver, adjoint), draw(4, 4).requires_grad_(), draw(3, 4)

    def loss(solve):
        weights = {"cell.w.weight": 0.1 * raw, "cell.w.bias": raw[0].tanh()}
        return torch.autograd.grad(solve(weights).square().sum(), raw)[0]

    def plain(weights):
        weight, bias = weights.values()
        z = torch.zeros(3, 4).double()
        for _ in range(80):
            z = torch.tanh(z @ weight.T + bias + x)
        return z

    found = loss(lambda weights: torch.func.functional_call(layer, weights, (x,)))
    assert torch.allclose(found, loss(plain), rtol=1e-9, atol=1e-9)


def test_a_reversible_backward_after_functional_call_is_refused():
    """The cell has its own parameters again when the backward evaluates it."""
    adjoint, solver = EXACT["reversible"]
    layer, raw = Equilibrium(Cell(), solver, adjoint), draw(4, 4).requires_grad_()
    state = torch.func.functional_call(layer, {"cell.w.weight": 0.1 * raw}, (draw(3, 4),))
    with pytest.raises(RuntimeError, match=r"functional_call has put back .*use Implicit\(\)"):
        state.sum().backward()
