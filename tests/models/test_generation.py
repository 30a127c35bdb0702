"""Decoding: new positions are solved against the equilibria of those before, with the answers of a whole solve."""

import pytest
import torch

from poise import Anderson
from poise.models import DEQTransformer, DEQTrellisNet, TransformerLM, TrellisNet, generate, stream

VOCABULARY = 30


def mixed(model):
    """Return a model whose convolution has left its identity."""
    if model.convolution.width > 1:
        torch.nn.init.normal_(model.convolution.weight)
    return model


def deq(rtol=1e-6, **options):
    torch.manual_seed(0)
    solver = Anderson(scope="prefix", rtol=rtol, max_steps=200)
    return mixed(DEQTransformer(VOCABULARY, 24, 4, n_layers=2, solver=solver, **options).eval())


def surrounded(**options):
    return deq(n_before=1, n_after=1, convolution=3, **options)


def explicit(**options):
    torch.manual_seed(0)
    return mixed(TransformerLM(VOCABULARY, 24, 4, n_layers=3, **options).eval())


def convolved(**options):
    return explicit(convolution=4, **options)


def deq_trellis():
    torch.manual_seed(0)
    return DEQTrellisNet(VOCABULARY, 16, solver=Anderson(scope="prefix", rtol=1e-6, max_steps=200)).eval()


def trellis():
    torch.manual_seed(0)
    return TrellisNet(VOCABULARY, 16, n_layers=4).eval()


TRANSFORMERS = pytest.mark.parametrize("make", [deq, surrounded, explicit, convolved])
MODELS = pytest.mark.parametrize("make", [deq, surrounded, explicit, convolved, deq_trellis, trellis])


def tokens(batch=2, length=12, seed=0):
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def decoded(model, text, **options):
    """Return the logits of every position, each decoded after those before it."""
    past, found = None, []
    for place in range(text.shape[1]):
        state, past = model.decode(text[:, place : place + 1], past, **({} if place else options))
        found.append(model.head(state))
    return torch.cat(found, dim=1)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (make, options)
        for make in (deq, surrounded, explicit, convolved)
        for options in ({}, {"norm": "pre"}, {"span": 5})
    ]
    + [(deq_trellis, {}), (trellis, {})],
)
def test_decoding_equals_a_whole_solve(make, options):
    model, text = make(**options), tokens(2, 40)
    with torch.no_grad():
        whole = model(text)
    assert (decoded(model, text) - whole).abs().max() <= 1e-4
    state, past = model.decode(text[:, :17])
    rest, _ = model.decode(text[:, 17:], past)
    assert (model.head(torch.cat([state, rest], dim=1)) - whole).abs().max() <= 1e-4


@TRANSFORMERS
def test_a_window_is_local_attention(make):
    text = tokens(2, 30)
    with torch.no_grad():
        local = make(span=7)(text)
    found = decoded(make(), text, window=7)
    assert (found - local).abs().max() <= 1e-4 and (found - make()(text)).abs().max() > 5e-4


def test_a_cache_keeps_what_its_window_needs():
    model, past = explicit(), None
    for place in range(20):
        _, past = model.decode(tokens(2, 20)[:, place : place + 1], past, **({} if place else {"window": 7}))
    assert past.positions.tolist() == [[14, 15, 16, 17, 18, 19]] * 2 and past.keys[0].shape[2] == 6


@MODELS
def test_prompts_of_different_lengths_are_decoded_as_each_alone(make):
    model, text = make(), tokens(3, 9)
    lengths = torch.tensor([9, 4, 1])
    together = generate(model, text, 12, lengths=lengths, temperature=0, window=11)
    for row, length in enumerate(lengths.tolist()):
        alone = generate(model, text[row : row + 1, :length], 12, temperature=0, window=11)
        assert torch.equal(together[row], alone[0])
        padded = text.clone()
        padded[row, length:] = 7  # what stands in the padding does not matter
        assert torch.equal(generate(model, padded, 12, lengths=lengths, temperature=0, window=11)[row], alone[0])


@MODELS
def test_sampling(make):
    model, prompt = make(), tokens(2, 5)
    draw = lambda seed, **options: generate(  # noqa: E731
        model, prompt, 20, window=8, generator=torch.Generator().manual_seed(seed), **options
    )
    assert draw(0).shape == (2, 20) and not torch.equal(draw(0)[0], draw(0)[1])
    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))
    assert torch.equal(draw(0, temperature=0), draw(1, temperature=0))
    assert torch.equal(draw(0, top_k=1), draw(0, temperature=0))
    assert generate(model, prompt, 0).shape == (2, 0)
    first = next(stream(model, prompt, 20, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(first, draw(0)[:, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "choose nothing"),
        ({"top_k": 0}, "choose nothing"),
        ({"window": 0}, "choose nothing"),
        ({"lengths": torch.tensor([3, 6])}, r"lengths=\[3, 6\] of prompts in 5 columns"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        generate(explicit(), tokens(2, 5), 3, **options)


def test_an_empty_prompt_is_refused():
    with pytest.raises(ValueError, match=r"of shape \(batch, length\), not \(1, 0\)"):
        generate(explicit(), tokens(1, 5)[:, :0], 3)
