"""Memory: a text in segments has the equilibrium of the whole, and one stream says nothing to another."""

import pytest
import torch

from poise import Anderson, Implicit, Unrolled
from poise.fixed_point.linear import GMRES
from poise.models import DEQTransformer, DEQTrellisNet, TransformerLM, TrellisNet

SOLVER = Anderson(scope="prefix", rtol=1e-11, max_steps=300)


def deq(adjoint=Implicit(GMRES(rtol=1e-12)), **options):
    torch.manual_seed(0)
    return DEQTransformer(30, 24, 4, n_layers=2, solver=SOLVER, adjoint=adjoint, **options).double()


def surrounded(**options):
    return deq(n_before=1, n_after=2, **options)


def explicit(**options):
    torch.manual_seed(0)
    return TransformerLM(30, 24, 4, n_layers=3, **options).double()


def deq_trellis():
    torch.manual_seed(0)
    return DEQTrellisNet(30, 16, solver=SOLVER).double()


def trellis():
    torch.manual_seed(0)
    return TrellisNet(30, 16, n_layers=4).double()


TRANSFORMERS = pytest.mark.parametrize("make", [deq, surrounded, explicit])
MODELS = pytest.mark.parametrize("make", [deq, surrounded, explicit, deq_trellis, trellis])


def tokens(batch=2, length=24, seed=0):
    return torch.randint(30, (batch, length), generator=torch.Generator().manual_seed(seed))


def in_segments(model, text, length, memory):
    past, states = None, []
    for start in range(0, text.shape[1], length):
        state, past = model.read(text[:, start : start + length], past, memory)
        states.append(state)
    return torch.cat(states, dim=1)


@pytest.mark.parametrize(
    ("make", "options"),
    [(make, {"norm": norm}) for make in (deq, surrounded, explicit) for norm in ("post", "pre")]
    + [(deq_trellis, {}), (trellis, {})],
)
def test_a_memory_of_everything_gives_the_states_of_the_whole_text(make, options):
    model, text = make(**options), tokens()
    whole, _ = model.read(text, None, 0)
    assert torch.allclose(in_segments(model, text, 8, 24), whole, rtol=0, atol=1e-8)
    assert not torch.allclose(in_segments(model, text, 8, 0), whole, rtol=0, atol=1e-3)


@TRANSFORMERS
def test_local_attention_needs_no_more_memory_than_its_span(make):
    model, text = make(span=4), tokens()
    whole, _ = model.read(text, None, 0)
    assert torch.allclose(in_segments(model, text, 6, 3), whole, rtol=0, atol=1e-8)
    assert not torch.allclose(in_segments(model, text, 6, 2), whole, rtol=0, atol=1e-4)


@TRANSFORMERS
def test_a_span_is_what_a_position_can_see(make):
    """Through the layers what is seen spreads, so one layer tells: the last of 12 positions, a span of 4."""
    model = TransformerLM(30, 24, 4, n_layers=1, span=4).double() if make is explicit else make(span=4)
    one, other = tokens(1, 12), tokens(1, 12)
    other[:, 8] = (one[:, 8] + 1) % 30
    far = one.clone()
    far[:, 7] = (one[:, 7] + 1) % 30
    last = [model.read(text, None, 0)[0][:, -1] for text in (one, other, far)]
    assert not torch.equal(last[0], last[1])
    if make is explicit:
        assert torch.equal(last[0], last[2])


@MODELS
def test_a_stream_says_nothing_to_another(make):
    model, text = make(), tokens(3, 24)
    changed = text.clone()
    changed[1] = (changed[1] + 1) % 30
    before, after = (in_segments(model, one, 6, 12) for one in (text, changed))
    assert torch.allclose(before[::2], after[::2], rtol=0, atol=1e-9)
    assert not torch.allclose(before[1], after[1], atol=1e-2)


def test_the_gradient_through_a_memory_is_that_of_the_unrolled_layer():
    """The memory's projections are differentiated, the memory itself is not."""
    text, found = tokens(2, 12), {}
    for name, adjoint in (("implicit", Implicit(GMRES(rtol=1e-12))), ("unrolled", Unrolled())):
        model = deq(adjoint=adjoint)
        _, past = model.read(text[:, :6], None, 6)
        assert not any(part.requires_grad for part in past.inputs)
        past = type(past)(tuple(part.requires_grad_() for part in past.inputs))
        state, _ = model.read(text[:, 6:], past, 0)
        weights = [model.cell.blocks[0].qkv.weight, model.cell.blocks[1].up.weight, *past.inputs]
        found[name] = torch.autograd.grad(state.sin().sum(), weights)
    for one, other in zip(*found.values(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-8) and one.abs().max() > 1e-3


@MODELS
def test_later_tokens_move_nothing_with_a_memory(make):
    model, text = make(), tokens(2, 24)
    changed = text.clone()
    changed[:, 20:] = 3
    before, after = (in_segments(model, one, 8, 8) for one in (text, changed))
    assert torch.equal(before[:, :20], after[:, :20]) and not torch.equal(before[:, 20:], after[:, 20:])
