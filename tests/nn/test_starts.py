"""Several starts a sample: each solved as alone, counted together, and one chosen."""

import pytest
import torch
from torch import nn

from poise import Anderson, Implicit, Picard, Status
from poise.nn import Equilibrium

ROOTS = 2.0


class Wells(nn.Module):
    """z -> a step towards the nearer of two fixed points, +x and -x; slower near zero."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.5))

    def initial_state(self, x):
        return 0.1 * x

    def forward(self, z, x):
        return z + self.rate * (torch.sign(z) * x.abs() - z)


class Drawn(Wells):
    """A cell that says how its starts are drawn."""

    def random_state(self, x, generator):
        return x * torch.randint(2, x.shape, generator=generator).mul(2).sub(1)


def layer(kind=Wells, **options):
    return Equilibrium(kind(), Picard(rtol=1e-6, max_steps=60, **options), Implicit())


def inputs(batch=5):
    return 1 + torch.rand(batch, 1, generator=torch.Generator().manual_seed(0))


def test_every_start_is_solved_as_it_would_be_alone():
    x, wells = inputs(), layer()
    given = [x.clone(), -3 * x, 0.2 * x]
    found = wells.solve(x, given, starts=3)
    for place, z0 in enumerate(given):
        alone = wells.solve(x, z0)
        assert torch.equal(found.starts.states[:, place], alone.state)
        assert torch.equal(found.starts.steps[:, place], alone.steps)
        assert torch.equal(found.starts.residual[:, place], alone.residual)
        assert torch.equal(found.starts.status[:, place], alone.status)
    assert found.state.shape == x.shape and found.status.shape == (5,)


def test_the_answer_of_most_starts_is_chosen():
    x = inputs()
    found = layer().solve(x, [x, -x, 2 * x, -4 * x, 3 * x], starts=5)
    assert torch.allclose(found.state, x, rtol=1e-4)
    assert found.starts.votes.tolist() == [[3, 2, 3, 2, 3]] * 5
    assert torch.allclose(found.starts.agreement, torch.full((5,), 8 / 20))
    assert found.starts.chosen.tolist() == [0] * 5  # of the three, the one that began at its answer


@pytest.mark.parametrize("choose", ["evaluations", "residual"])
def test_other_choices(choose):
    x = inputs()
    given = [9 * x, -x, 5 * x]  # the second begins at a fixed point, and is outvoted
    found = layer().solve(x, given, starts=3, choose=choose)
    assert torch.allclose(found.state, -x) and found.starts.chosen.tolist() == [1] * 5
    assert torch.equal(found.steps, found.starts.steps[:, 1])


def test_answers_are_what_is_read_off():
    x = inputs()
    given = [x, 2 * x, -x]
    read = lambda z: torch.zeros(len(z), 2, dtype=torch.long)  # noqa: E731  all answers are one
    found = layer().solve(x, given, starts=3, read=read)
    assert found.starts.votes.tolist() == [[3, 3, 3]] * 5 and found.starts.agreement.tolist() == [1.0] * 5
    unequal = layer().solve(x, given, starts=3, read=lambda z: torch.arange(len(z)))
    assert unequal.starts.votes.tolist() == [[1, 1, 1]] * 5 and unequal.starts.agreement.tolist() == [0.0] * 5


def test_a_solve_that_breaks_is_never_the_answer():
    class Broken(Wells):
        def forward(self, z, x):
            return torch.where(z < 0, float("nan"), super().forward(z, x))

    x = inputs()
    wells = layer(Broken)
    wells.on_failure = "ignore"
    for choose in ("agreement", "evaluations", "residual"):
        found = wells.solve(x, [-x, -x, 7 * x], starts=3, choose=choose)
        assert found.ok and torch.allclose(found.state, x, rtol=1e-4)
        assert (found.starts.status[:, :2] == Status.NONFINITE).all()


def test_starts_are_given_then_drawn():
    x = inputs()

    def solve(seed=0, z0=None, kind=Wells, starts=4):
        # A budget of one evaluation returns f(z0), which tells the starts apart.
        wells = Equilibrium(kind(), Picard(rtol=None, max_steps=1))
        return wells.solve(x, z0, starts=starts, generator=torch.Generator().manual_seed(seed)).starts.states

    first, again, other = solve(), solve(), solve(seed=1)
    assert torch.equal(first, again) and not torch.equal(first[:, 1:], other[:, 1:])
    image = lambda z: z + 0.5 * (torch.sign(z) * x - z)  # noqa: E731
    assert torch.allclose(first[:, 0], image(0.1 * x))  # the cell's own start
    assert len(first.unique()) == first.numel()
    given = solve(z0=[2 * x, 3 * x])
    assert torch.allclose(given[:, 0], image(2 * x)) and torch.allclose(given[:, 1], image(3 * x))
    assert torch.equal(given[:, 2:], first[:, 1:3])
    drawn = solve(kind=Drawn, z0=[])
    assert torch.allclose(drawn.abs(), x.unsqueeze(1).expand_as(drawn))


def test_the_gradient_is_that_of_the_chosen_start():
    x = inputs().requires_grad_()
    found = layer().solve(x, [x.detach(), -x.detach(), -2 * x.detach()], starts=3)
    (gradient,) = torch.autograd.grad(found.state.sum(), x)
    assert torch.allclose(found.state, -x, rtol=1e-4) and torch.allclose(gradient, torch.full_like(x, -1), atol=1e-4)


def test_states_of_several_parts_and_a_mask():
    class Pair(nn.Module):
        def initial_state(self, x):
            return torch.zeros_like(x), torch.zeros(len(x), 2, 3)

        def forward(self, z, x):
            return 0.5 * z[0] + x, 0.5 * z[1] + 1

    x = inputs(2)
    valid = (torch.ones(2, 1, dtype=torch.bool), torch.ones(2, 2, 3, dtype=torch.bool))
    found = Equilibrium(Pair(), Anderson()).solve(x, starts=3, valid=valid, generator=torch.Generator().manual_seed(0))
    assert [part.shape for part in found.starts.states] == [(2, 3, 1), (2, 3, 2, 3)]
    assert found.starts.agreement.tolist() == [1.0, 1.0]
    assert torch.allclose(found.state[0], 2 * x, rtol=1e-3) and torch.allclose(found.state[1], torch.tensor(2.0))


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"starts": 0}, ValueError, "starts=0 solves nothing"),
        ({"starts": 2.0}, TypeError, "starts=2.0"),
        ({"starts": 2, "choose": "luck"}, ValueError, "choose='luck' is unknown"),
        ({"starts": 1, "z0": [torch.ones(5, 1)] * 2}, ValueError, "z0 holds 2 starts, but starts=1"),
        ({"starts": 2, "z0": [torch.ones(5, 1), torch.ones(5, 2)]}, ValueError, "give states of one shape"),
    ],
)
def test_what_has_no_meaning_is_refused(options, kind, message):
    with pytest.raises(kind, match=message):
        layer().solve(inputs(), **options)


def test_an_initializer_proposes_the_first_start_and_an_earlier_solution_may_be_one():
    class Doubled(nn.Module):
        def forward(self, x):
            return 2 * x

    x = inputs()
    wells = Equilibrium(Wells(), Picard(rtol=None, max_steps=1), initializer=Doubled())
    image = lambda z: z + 0.5 * (torch.sign(z) * x - z)  # noqa: E731
    proposed = wells.solve(x, starts=2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(proposed.starts.states[:, 0], image(2 * x))
    earlier = wells.solve(x, -3 * x)
    found = wells.solve(x, earlier, starts=2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(found.starts.states[:, 0], -2 * x + 0.5 * (2 * x - x))
