"""Memory does not grow with the number of evaluations."""

import weakref

import pytest
import torch

from poise import Implicit, Phantom, Picard, Unrolled
from poise.models import DEQTransformer
from poise.nn import activation_bytes


def test_counts_distinct_storages():
    x = torch.randn(10, 10, requires_grad=True)
    assert activation_bytes(lambda: x.exp()) == 400
    assert activation_bytes(lambda: (x * x.t()).sum()) == 400  # one storage, saved twice
    assert activation_bytes(lambda: x.exp().sin().exp(), exclude=[x]) == 800  # exp and sin share one
    assert activation_bytes(lambda: x.detach() + 1) == 0


def test_nothing_of_the_graph_outlives_the_count():
    x = torch.randn(10, requires_grad=True)
    made = []

    def run():
        y = x.exp()  # exp saves its own output
        made.append(weakref.ref(y))
        return y.sum()

    activation_bytes(run)
    assert made[0]() is None


def test_gradients_taken_while_counting_are_those_of_the_graph():
    x = torch.tensor([0.5, 2.0], requires_grad=True)
    found = []

    def run():
        (slope,) = torch.autograd.grad((x.exp() * x).sum(), x, create_graph=True)
        found.extend(torch.autograd.grad(slope.sum(), x))

    activation_bytes(run)
    torch.testing.assert_close(found[0], (x.exp() * (x + 2)).detach())


@pytest.fixture
def block_bytes():
    torch.manual_seed(0)
    model = DEQTransformer(65, 32, 4, n_layers=2)
    tokens = torch.randint(65, (4, 32))

    def measure(adjoint, evaluations):
        model.equilibrium.solver = Picard(rtol=None, max_steps=evaluations, scope="prefix")
        model.equilibrium.adjoint = adjoint
        embedded = model.embedding(tokens).detach().requires_grad_()
        return activation_bytes(lambda: model.equilibrium(embedded), exclude=[*model.parameters(), embedded])

    return measure


def test_implicit_holds_one_evaluation_at_any_depth(block_bytes):
    held = {block_bytes(Implicit(), evaluations) for evaluations in (4, 12, 40)}
    assert len(held) == 1
    assert held.pop() <= 0.12 * block_bytes(Unrolled(), 12)


def test_phantom_holds_its_steps_and_checkpointing_its_states(block_bytes):
    assert block_bytes(Phantom(2), 4) == block_bytes(Phantom(2), 40)
    assert block_bytes(Phantom(2), 4) < 2.2 * block_bytes(Phantom(1), 4)
    assert block_bytes(Unrolled(checkpoint=True), 12) < 0.3 * block_bytes(Unrolled(), 12)
