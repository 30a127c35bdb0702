"""What a solve leaves in memory, seen where memory is allocated: what C++ holds is seen as well."""

import gc

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import poise
from poise import Anderson, BiCGSTAB, Broyden, Implicit, JacobianFree, Phantom, Picard, Reversible, Unrolled
from tests.contracts.problems import dense

ADJOINTS = {
    "implicit": (Anderson(rtol=1e-6), Implicit()),
    "bicgstab": (Anderson(rtol=1e-6), Implicit(BiCGSTAB())),
    "reuse": (Broyden(rtol=1e-6), Implicit(reuse=True)),
    "phantom": (Anderson(rtol=1e-6), Phantom(3)),
    "phantom_neumann": (Anderson(rtol=1e-6), Phantom(3, damping=0.7, form="neumann")),
    "jacobian_free": (Anderson(rtol=1e-6), JacobianFree()),
    "unrolled": (Anderson(rtol=1e-6), Unrolled()),
    "unrolled_checkpointed": (Anderson(rtol=1e-6), Unrolled(checkpoint=True)),
    "reversible": (Picard(damping=0.5, rtol=1e-6), Reversible()),
}


class Allocations(TorchDispatchMode):
    """Watches every storage that an operation returns."""

    def __init__(self):
        super().__init__()
        self.storages = {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                known = self.storages.get(storage._cdata)
                if known is None or known[0].expired():  # else it is seen once more
                    self.storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return out

    def alive(self, smallest, beside):
        """The bytes of the storages still alive, of those not smaller and not belonging to one of the tensors."""
        gc.collect()
        left_out = {tensor.untyped_storage()._cdata for tensor in beside if tensor is not None}
        return sum(
            size
            for place, (storage, size) in self.storages.items()
            if size >= smallest and place not in left_out and not storage.expired()
        )


def solved(name, dtype, batch):
    solver, adjoint = ADJOINTS[name]
    case = dense(batch=batch, n=128)  # so wide that no record of a solve is as large as a state
    weight = case.parameters[0].detach().to(dtype).requires_grad_()
    x = case.x.detach().to(dtype).requires_grad_()
    z0 = case.z0.to(dtype)

    def run():
        solution = poise.fixed_point(
            lambda z, x: torch.tanh(z @ weight.T + x), z0, x, solver=solver, adjoint=adjoint, check=False
        )
        return solution.state

    return run, (z0, x, weight)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ADJOINTS)
def test_after_the_backward_the_state_alone_is_left(name, dtype, batch):
    run, given = solved(name, dtype, batch)
    with Allocations() as seen:
        state = run()
        assert seen.alive(state.nbytes, [state, *given]) > 0  # what the backward needs
        state.square().sum().backward()
    assert seen.alive(state.nbytes, [state, *given, *(tensor.grad for tensor in given)]) == 0
    assert state.untyped_storage().nbytes() == state.nbytes


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ADJOINTS)
def test_without_gradients_the_state_alone_is_left(name, dtype, batch):
    run, given = solved(name, dtype, batch)
    with torch.no_grad(), Allocations() as seen:
        state = run()
    assert seen.alive(state.nbytes, [state, *given]) == 0
    assert state.untyped_storage().nbytes() == state.nbytes


@pytest.mark.parametrize("name", ADJOINTS)
def test_a_retained_graph_keeps_what_it_needs_and_lets_it_go(name):
    run, given = solved(name, torch.float64, 4)
    with Allocations() as seen:
        state = run()
        loss = state.square().sum()
        first = torch.autograd.grad(loss, given[1:], retain_graph=True)
        second = torch.autograd.grad(loss, given[1:])
    assert all(map(torch.equal, first, second))
    assert seen.alive(state.nbytes, [state, *given, *first, *second]) == 0
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, given[1:])
