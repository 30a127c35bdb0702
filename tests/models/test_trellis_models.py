"""DEQ-TrellisNet and its explicit peer."""

import pytest
import torch

from poise import GMRES, Anderson, Implicit
from poise.models import DEQTrellisNet, TrellisNet

MODELS = [DEQTrellisNet, TrellisNet]
EXACT = {"solver": Anderson(scope="prefix", rtol=1e-12, max_steps=200), "adjoint": Implicit(GMRES(rtol=1e-12))}


def make(kind, **options):
    torch.manual_seed(0)
    return kind(30, 12, **options)


def tokens(batch=2, length=12):
    return torch.randint(30, (batch, length), generator=torch.Generator().manual_seed(0))


def peer_of(model, **options):
    """The explicit net with the weights of a DEQ."""
    peer = make(TrellisNet, **options).to(model.embedding.weight.dtype)
    peer.load_state_dict({name.replace("equilibrium.cell.", "layer."): w for name, w in model.state_dict().items()})
    return peer


@pytest.mark.parametrize("options", [{}, {"d_hidden": 20, "d_out": 7}, {"weight_norm": False, "dropout": 0.2}])
@pytest.mark.parametrize("kind", MODELS)
def test_shapes_and_gradients_at_every_parameter(kind, options):
    model = make(kind, **options)
    logits = model(tokens())
    assert logits.shape == (2, 12, 30)
    logits.logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("kind", MODELS)
def test_is_causal_to_the_last_bit(kind):
    model = make(kind)
    before, changed = tokens(), tokens()
    changed[:, 7:] = 3
    with torch.no_grad():
        assert torch.equal(model(before)[:, :7], model(changed)[:, :7])
        assert not torch.equal(model(before)[:, 7:], model(changed)[:, 7:])


@pytest.mark.parametrize("options", [{}, {"d_hidden": 16, "d_out": 5}])
def test_the_equilibrium_is_its_peer_of_very_many_layers(options):
    model = make(DEQTrellisNet, **options, **EXACT).double()
    peer = peer_of(model, n_layers=120, **options)
    expected, found = peer(tokens()), model(tokens())
    assert torch.allclose(found, expected, rtol=0, atol=1e-10)
    weight = torch.randn_like(expected)
    for logits in (expected, found):
        (logits * weight).sum().backward()
    for (name, a), (_, b) in zip(sorted(model.named_parameters()), sorted_as_deq(peer), strict=True):
        assert (a.grad - b.grad).norm() <= 1e-8 * (1 + b.grad.norm()), name
    shallow = peer_of(model, n_layers=1, **options)
    assert not torch.allclose(shallow(tokens()), expected, atol=1e-3)


def sorted_as_deq(peer):
    return sorted((name.replace("layer.", "equilibrium.cell."), p) for name, p in peer.named_parameters())


def test_both_have_the_same_parameters_at_any_depth():
    count = lambda model: sum(p.numel() for p in model.parameters())  # noqa: E731
    sizes = {count(make(DEQTrellisNet)), *(count(make(TrellisNet, n_layers=n)) for n in (1, 12))}
    assert len(sizes) == 1
    d, h = 128, 256
    found = count(DEQTrellisNet(65, d, weight_norm=False))
    assert found == 65 * d + 2 * d + 4 * h * (2 * d + 1) + 4 * h * 2 * h < 800_000


@pytest.mark.parametrize("d_out", [None, 5])
@pytest.mark.parametrize("kind", MODELS)
def test_the_head_reads_the_last_features_by_the_embedding(kind, d_out):
    model = make(kind, d_hidden=16, d_out=d_out)
    h = torch.randn(2, 3, 16)
    read = h[..., 16 - (d_out or 12) :]
    expected = read @ (model.projection.weight.T if d_out else torch.eye(12)) @ model.embedding.weight.T
    assert torch.allclose(model.head(h), expected, atol=1e-5)


def test_a_text_goes_on_from_what_was_remembered():
    model = make(DEQTrellisNet, **EXACT).double()
    whole = model(tokens())
    first = model.solve(tokens()[:, :5])
    past = model.equilibrium.cell.remember(first.state, first.context)
    second = model.solve(tokens()[:, 5:], past=past)
    found = torch.cat([model.head(first.state[0]), model.head(second.state[0])], dim=1)
    assert torch.allclose(found, whole, rtol=0, atol=1e-10)


def test_an_earlier_solution_is_a_start():
    model = make(DEQTrellisNet)
    solution = model.solve(tokens())
    again = model.solve(tokens(), solution)
    assert again.evaluations == 1 < solution.evaluations <= 8
    assert torch.allclose(model(tokens(), solution.state), model(tokens()), atol=1e-3)


@pytest.mark.parametrize("kind", MODELS)
def test_dropout_masks_are_drawn_once_a_forward(kind):
    model = make(kind, dropout=0.3)
    assert not torch.allclose(model(tokens()), model(tokens()))
    assert torch.equal(model.eval()(tokens()), model(tokens()))


def test_normalised_weights_are_computed_once_for_all_layers():
    model, calls = make(TrellisNet), []
    model.layer.hidden.parametrizations["weight"][0].register_forward_hook(lambda *_: calls.append(1))
    model(tokens()).sum().backward()
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [(DEQTrellisNet, {"d_out": 25}, "d_out=25 is no part of d_hidden=24 features; pass"),
     (TrellisNet, {"d_hidden": 8}, "d_out=12 is no part of d_hidden=8"),
     (TrellisNet, {"n_layers": 0}, "n_layers=0 leaves the state at zero"),
     (DEQTrellisNet, {"dropout": 1.0}, "dropout=1.0")],
)  # fmt: skip
def test_wrong_sizes_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        make(kind, **options)
