"""DEQ-Transformer and its explicit peer."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import poise
from poise import Anderson, Phantom, Picard
from poise.models import DEQTransformer, TransformerLM


def deq(**options):
    torch.manual_seed(0)
    return DEQTransformer(30, 24, 4, n_layers=1, **options)


def adaptive(**options):
    return deq(cutoffs=(5, 12), div_value=2.0, **options)


def surrounded(**options):
    return deq(n_before=1, n_after=2, convolution=3, **options)


MODELS = [
    deq,
    adaptive,
    surrounded,
    lambda: TransformerLM(30, 24, 4, n_layers=2),
    lambda: TransformerLM(30, 24, 4, n_layers=2, cutoffs=(5, 12), div_value=2.0),
]


def tokens(batch=2, length=12):
    return torch.randint(30, (batch, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("make", MODELS)
def test_shapes_and_gradients_at_every_parameter(make):
    model = make()
    logits = model(tokens())
    assert logits.shape == (2, 12, 30)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("make", MODELS)
def test_is_causal_to_the_last_bit(make):
    model = make().eval()
    before, changed = tokens(), tokens()
    changed[:, 7:] = 3
    with torch.no_grad():
        assert torch.equal(model(before)[:, :7], model(changed)[:, :7])
        assert not torch.equal(model(before)[:, 7:], model(changed)[:, 7:])


@pytest.mark.parametrize("make", MODELS)
def test_losses_are_the_cross_entropy_of_the_logits(make):
    model = make().eval()
    with torch.no_grad():
        state, _ = model.read(tokens(), None, 0)
        losses = model.losses(state, tokens())
        expected = cross_entropy(model(tokens()).double().flatten(0, 1), tokens().flatten(), reduction="none")
    assert losses.shape == (2, 12) and torch.allclose(losses.flatten().double(), expected, atol=1e-5)


@pytest.mark.parametrize("make", MODELS)
def test_fresh_tables_and_matrices_are_of_one_size(make):
    for name, weight in make().named_parameters():
        if weight.ndim == 2:
            assert weight.std().item() == pytest.approx(0.02, rel=0.25), name


@pytest.mark.parametrize("make", [deq, MODELS[2]])
def test_one_table_is_saved_under_the_name_of_an_embedding(make):
    assert [name for name in make().state_dict() if name.startswith("embedding")] == ["embedding.weight"]


def test_parameters_of_the_two_match():
    count = lambda model: sum(p.numel() for p in model.parameters())  # noqa: E731
    assert count(DEQTransformer(65, 180, 6, n_layers=2)) <= 800_000
    assert abs(count(TransformerLM(65, 128, 4, n_layers=4)) / count(DEQTransformer(65, 180, 6)) - 1) < 0.02


def test_fresh_weights_contract():
    solution = deq().solve(tokens(8, 32))
    assert solution.ok and solution.evaluations <= 8


def test_the_state_is_a_fixed_point_of_the_cell():
    model = deq(solver=Anderson(rtol=1e-6, scope="prefix")).eval()
    with torch.no_grad():
        state = model.solve(tokens()).state
        image = model.equilibrium.cell(state, model.equilibrium.cell.inject(model.embedding(tokens())))
    assert (image - state).norm() <= 1e-5 * image.norm()


def test_dropout_masks_are_drawn_once_a_solve():
    model = deq(dropout=0.3).train()
    first, second = model.solve(tokens()), model.solve(tokens())
    assert first.ok and second.ok  # a mask drawn at every evaluation would not converge
    assert not torch.allclose(first.state, second.state)
    assert torch.equal(model.eval()(tokens()), model(tokens()))


def test_second_order_through_attention():
    model = deq(solver=Anderson(rtol=1e-10, scope="prefix"), adjoint=poise.Implicit(poise.GMRES(rtol=1e-10))).double()
    embedded = model.embedding(tokens()).detach().requires_grad_()
    direction = torch.randn(embedded.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def slope(x):
        x = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(model.equilibrium(x).sin().sum(), x, create_graph=True)
        return g, x

    g, x = slope(embedded)
    (found,) = torch.autograd.grad((g * direction).sum(), x)
    h = 1e-4
    expected = (slope(embedded + h * direction)[0] - slope(embedded - h * direction)[0]).detach() / (2 * h)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())


def test_training_and_evaluation_agree_on_a_fixed_budget():
    model = deq(solver=Picard(rtol=None, max_steps=3, scope="prefix"), adjoint=Phantom(steps=2))
    with_graph = model(tokens())
    with torch.no_grad():
        assert torch.equal(model.eval()(tokens()), with_graph)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"n_heads": 5}, "d_model=24 is not a multiple of n_heads=5"), ({"n_heads": 8}, "a head has 3; use an even"),
     ({"n_layers": 0}, "n_layers=0"), ({"dropout": 1.0}, "dropout=1.0"),
     ({"convolution": 0}, "convolution of width 0 reads nothing")],
)  # fmt: skip
def test_wrong_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DEQTransformer(30, 24, **{"n_heads": 4, **options})


@pytest.mark.parametrize("make", [surrounded, lambda **options: TransformerLM(30, 24, 4, n_layers=2, **options)])
def test_variational_dropout_treats_all_positions_alike(make):
    """A text of one token repeated looks the same at every position but to dropout that differs between them."""
    same = torch.full((3, 12), 7)
    for variational, alike in ((True, True), (False, False)):
        torch.manual_seed(0)
        states, _ = make(dropout=0.5, variational=variational).train().read(same, None, 0)
        assert torch.allclose(states, states[:, :1].expand_as(states), atol=1e-4) == alike
        assert not torch.allclose(states[0], states[1], atol=1e-2)  # samples have masks of their own


def test_the_first_evaluation_attends_to_earlier_positions():
    model = deq(solver=Picard(rtol=None, max_steps=1)).eval()
    changed = tokens()
    changed[:, 0] += 1
    with torch.no_grad():
        assert not torch.allclose(model(tokens())[:, -1], model(changed % 30)[:, -1], atol=1e-7)
