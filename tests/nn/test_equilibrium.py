"""The layer: the same gradient in every way that PyTorch users use a module."""

import copy
import gc
import pickle
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

import poise
from poise import GMRES, Anderson, ConvergenceWarning, Equilibrium, Implicit, Picard
from tests.contracts.problems import flatten

EXACT = {"solver": Anderson(rtol=1e-12), "adjoint": Implicit(GMRES(rtol=1e-12))}


class Cell(nn.Module):
    """tanh(W z + U x), with the work on x hoisted into `inject`: its parameters reach the state through the context."""

    def __init__(self, n=5, gain=0.7):
        super().__init__()
        torch.manual_seed(0)
        self.w, self.u = nn.Linear(n, n).double(), nn.Linear(n, n).double()
        nn.init.orthogonal_(self.w.weight, gain=gain)

    def inject(self, x):
        return self.u(x)

    def forward(self, z, context):
        return torch.tanh(self.w(z) + context)


def layer(**options):
    return Equilibrium(Cell(), **{**EXACT, **options})


def inputs(batch=4):
    return torch.randn(batch, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gradients(layer, x=None):
    layer.zero_grad()
    layer(inputs() if x is None else x).square().sum().backward()
    return [parameter.grad.clone() for parameter in layer.parameters()]


def unrolled(layer, x=None):
    x = inputs() if x is None else x
    context, z = layer.cell.inject(x), torch.zeros_like(x)
    for _ in range(120):
        z = layer.cell(z, context)
    return torch.autograd.grad(z.square().sum(), list(layer.parameters()))


def assert_close(found, expected, atol=1e-8):
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=atol)


def test_gradient_is_the_unrolled_one_in_training_and_evaluation():
    model = layer()
    expected = unrolled(model)
    assert_close(gradients(model), expected)
    assert_close(gradients(model.eval()), expected)


def test_input_gradients_in_evaluation():
    model = layer().eval()
    x = inputs().requires_grad_()
    (found,) = torch.autograd.grad(model(x).sum(), x)
    assert found.abs().min() > 0


def test_frozen_parameters_still_give_the_input_its_gradient():
    model = layer().requires_grad_(False)
    x = inputs().requires_grad_()
    model(x).sum().backward()
    assert x.grad is not None and all(p.grad is None for p in model.parameters())
    assert not model(inputs()).requires_grad


def test_two_layers_share_one_cell_in_one_graph():
    cell = Cell()
    first, second = Equilibrium(cell, **EXACT), Equilibrium(cell, **EXACT)
    second(first(inputs())).square().sum().backward()
    found = [p.grad.clone() for p in cell.parameters()]
    z = inputs()
    for _ in range(2):
        context, state = cell.inject(z), torch.zeros_like(z)
        for _ in range(120):
            state = cell(state, context)
        z = state
    assert_close(found, torch.autograd.grad(z.square().sum(), list(cell.parameters())))


def test_two_calls_before_one_backward():
    model = layer()
    x, y = inputs(), inputs(2)
    (model(x).square().sum() + model(y).square().sum()).backward()
    expected = [a + b for a, b in zip(unrolled(model, x), unrolled(model, y), strict=True)]
    assert_close([p.grad for p in model.parameters()], expected)


def test_second_order_through_parameters_of_inject():
    """A gradient penalty: the weights of the injection reach the state through the context, a known input itself."""
    model = layer()
    x = inputs().requires_grad_()

    def penalty(state):
        (slope,) = torch.autograd.grad(state.square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), list(model.parameters()))

    found = penalty(model(x))
    context, z = model.cell.inject(x), torch.zeros_like(x)
    for _ in range(120):
        z = model.cell(z, context)
    assert_close(found, penalty(z), 1e-7)


@pytest.mark.parametrize("after_backward", [False, True])
def test_copies_and_pickles(after_backward):
    model = layer()
    expected = gradients(model)
    if not after_backward:
        model = layer()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_close(gradients(twin), expected)


def test_a_saved_layer_holds_only_parameters():
    model = layer()
    gradients(model)
    assert list(model.state_dict()) == [f"cell.{name}" for name, _ in model.cell.named_parameters()]


def test_the_eval_solver_replaces_the_solver_in_evaluation():
    model = layer(solver=Picard(rtol=None, max_steps=3), eval_solver=Anderson(rtol=1e-10))
    assert model.solve(inputs()).evaluations == 3
    solution = model.eval().solve(inputs())
    assert solution.ok and solution.residual.max() <= 1e-10


def test_a_failing_layer_warns_once_and_counts():
    model = layer(solver=Picard(max_steps=2))
    with pytest.warns(ConvergenceWarning, match="Later ones are counted"):
        model(inputs())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(inputs())
    assert model.counters.forward.statuses == {"BUDGET": 8} and model.counters.forward.solves == 2


def test_cells_are_checked_at_the_first_solve_only():
    calls = []

    class Counted(nn.Module):
        def forward(self, z, x):
            calls.append(len(z))
            return 0.5 * z + x

    model = Equilibrium(Counted(), Picard(rtol=None, max_steps=4))
    with torch.no_grad():
        model(torch.randn(3, 2))
        assert calls == [3] * 4 + [1, 1] + [3, 3]  # the solve, one sample alone twice, contexts kept and exchanged
        model(torch.randn(3, 2))
    assert len(calls) == 4 + 4 + 4


def test_inject_makes_a_cell_of_any_module():
    block = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
    nn.init.orthogonal_(block[0].weight, gain=0.8)
    x = torch.randn(3, 6)
    state = Equilibrium(poise.nn.inject(block), Anderson(rtol=1e-6))(x)
    assert torch.allclose(state, block(state + x), atol=1e-5)


def test_tuple_states_and_a_start_of_ones_own():
    class Two(nn.Module):
        def initial_state(self, x):
            return torch.zeros_like(x), x.new_zeros(len(x), 2)

        def forward(self, z, x):
            return 0.5 * z[0] + x, 0.1 * z[1] + z[0][:, :2]

    model = Equilibrium(Two(), Anderson(rtol=1e-6))
    solution = model.solve(torch.ones(3, 4))
    assert torch.allclose(flatten(solution.state)[:, :4], torch.full((3, 4), 2.0), atol=1e-4)
    assert model.solve(torch.ones(3, 4), solution.state).evaluations == 1


def test_a_cell_without_a_start_is_refused_in_one_sentence():
    class NoStart(nn.Module):
        def inject(self, x):
            return {"x": x}

        def forward(self, z, context):
            return 0.5 * z + context["x"]

    with pytest.raises(TypeError, match="NoStart has no initial_state.*pass z0"):
        Equilibrium(NoStart())(torch.zeros(2, 3))
    with pytest.raises(TypeError, match="solver='anderson' is no Solver"):
        Equilibrium(NoStart(), "anderson")


def _ddp(rank, port, out):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(layer())
    x = inputs(6)[rank::2]
    model(x).square().sum().backward()
    if rank == 0:
        torch.save([p.grad for p in model.parameters()], out)
    # The group's threads must have ended before the process does: nobody may still use it, nor hold it.
    dist.barrier()
    del model
    gc.collect()
    dist.destroy_process_group()


@pytest.mark.slow
def test_the_gradient_under_ddp(tmp_path):
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    mp.spawn(_ddp, (port, str(tmp_path / "grads.pt")), nprocs=2)
    found = torch.load(tmp_path / "grads.pt", weights_only=True)
    assert_close(found, [g / 2 for g in unrolled(layer(), inputs(6))])  # DDP averages over processes
