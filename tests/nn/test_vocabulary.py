"""Full and adaptive vocabularies against plain loops in float64, and what a large one costs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

import poise
from poise.nn import AdaptiveVocabulary, TiedVocabulary, build_vocabulary

WIDTH = 12
KINDS = [(), (4,), (3, 5, 11)]  # cutoffs of a vocabulary of 17


@st.composite
def vocabularies(draw):
    """An adaptive vocabulary in float64 with weights of order 1."""
    n_clusters = draw(st.integers(1, 3))
    bounds = draw(st.lists(st.integers(1, 30), min_size=n_clusters + 1, max_size=n_clusters + 1, unique=True))
    *cutoffs, vocab_size = sorted(bounds)
    made = build_vocabulary(vocab_size, WIDTH, tuple(cutoffs), draw(st.sampled_from([1, 1.5, 2.0])))
    return ordered(made.double(), draw(st.integers(0, 5)))


def ordered(vocabulary, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for weight in vocabulary.parameters():
        nn.init.normal_(weight, std=0.5, generator=generator)
    return vocabulary


def clusters(vocabulary):
    """First token, projection and table of every cluster, as the published formulas name them."""
    softmax = vocabulary.softmax
    return [(low, softmax.tail[i][0].weight, softmax.tail[i][1].weight) for i, low in enumerate(softmax.cutoffs[:-1])]


def dense_vectors(vocabulary):
    """The embedding of every token, one after another (Baevski and Auli 2019, section 3; Dai et al.'s scale)."""
    rows = list(vocabulary.softmax.head.weight[: vocabulary.softmax.cutoffs[0]])
    for _, projection, table in clusters(vocabulary):
        rows += [sum(vector[j] * projection[j] for j in range(len(vector))) for vector in table]
    return torch.stack(rows) * WIDTH**0.5


def dense_probabilities(vocabulary, state):
    """p(token) = p(cluster) p(token | cluster) for one state (Grave et al. 2017, section 4.3)."""
    first = vocabulary.softmax.cutoffs[0]
    scores = torch.exp(vocabulary.softmax.head.weight @ state)
    scores = scores / scores.sum()
    found = [scores[:first]]
    for i, (_, projection, table) in enumerate(clusters(vocabulary)):
        inner = torch.exp(table @ (projection @ state))
        found.append(scores[first + i] * inner / inner.sum())
    return torch.cat(found)


@given(vocabularies(), st.integers(0, 5))
def test_the_adaptive_vocabulary_is_the_dense_two_level_softmax(vocabulary, seed):
    vectors = dense_vectors(vocabulary)
    tokens = torch.arange(len(vectors))
    states = torch.randn(len(vectors), WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    dense = torch.stack([dense_probabilities(vocabulary, state) for state in states])
    logits = vocabulary.logits(states)
    assert torch.allclose(vocabulary(tokens), vectors, rtol=0, atol=1e-12)
    assert torch.allclose(logits, dense.log(), rtol=0, atol=1e-12)
    assert torch.allclose(logits.exp().sum(-1), torch.ones(len(states), dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.allclose(vocabulary.losses(states, tokens), -dense.log()[tokens, tokens], rtol=0, atol=1e-12)


def test_one_cluster_of_equal_vectors_is_a_full_softmax():
    """Where a cluster's n tokens score alike and the cluster log n more, the two levels are one softmax."""
    full, adaptive = TiedVocabulary(9, WIDTH).double(), AdaptiveVocabulary(9, WIDTH, (5,), 1).double()
    state = torch.randn(WIDTH, dtype=torch.float64)
    with torch.no_grad():
        ordered(full).weight[5:] = torch.randn(WIDTH, dtype=torch.float64)
        adaptive.softmax.head.weight[:5] = full.weight[:5]
        adaptive.softmax.head.weight[5] = full.weight[5] + state / state.square().sum() * torch.log(torch.tensor(4.0))
        adaptive.softmax.tail[0][0].weight.copy_(torch.eye(WIDTH))
        adaptive.softmax.tail[0][1].weight.copy_(full.weight[5:])
    assert torch.allclose(adaptive.logits(state), full.logits(state).log_softmax(-1), rtol=0, atol=1e-6)
    assert torch.allclose(adaptive(torch.arange(9)) / WIDTH**0.5, full(torch.arange(9)), rtol=0, atol=1e-12)


def test_the_full_vocabulary_is_one_table():
    vocabulary = TiedVocabulary(17, WIDTH)
    tokens, states = torch.randint(17, (2, 5)), torch.randn(2, 5, WIDTH)
    table = vocabulary.state_dict()["weight"]
    probabilities = torch.softmax(states.double() @ table.double().T, -1)
    assert list(vocabulary.state_dict()) == ["weight"] and table.std() == pytest.approx(0.02, rel=0.2)
    assert torch.equal(vocabulary(tokens), table[tokens])
    assert torch.allclose(vocabulary.logits(states), states @ table.T)
    expected = -probabilities.log().gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    assert torch.allclose(vocabulary.losses(states, tokens).double(), expected, atol=1e-6)


def test_one_table_draws_as_many_numbers_as_an_embedding():
    """So a seed gives the weights after it as ever."""
    found = []
    for kind in (nn.Embedding, TiedVocabulary):
        torch.manual_seed(3)
        kind(17, WIDTH)
        found.append(torch.randn(()))
    assert torch.equal(*found)


@pytest.mark.parametrize("cutoffs", KINDS)
def test_both_kinds_take_any_shape_and_agree_with_their_own_logits(cutoffs):
    vocabulary = ordered(build_vocabulary(17, WIDTH, cutoffs, 2.0))
    assert isinstance(vocabulary, AdaptiveVocabulary if cutoffs else TiedVocabulary)
    for shape in ((), (1,), (0,), (0, 3), (2, 5), (2, 3, 4)):
        tokens = torch.randint(17, shape)
        states = torch.randn(*shape, WIDTH)
        logits, losses = vocabulary.logits(states), vocabulary.losses(states, tokens)
        assert vocabulary(tokens).shape == states.shape
        assert logits.shape == (*shape, 17) and losses.shape == shape
        picked = logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        assert torch.allclose(losses, -picked, atol=2e-6)


@pytest.mark.parametrize("cutoffs", KINDS)
def test_gradients_are_those_of_finite_differences(cutoffs):
    vocabulary = ordered(build_vocabulary(17, 4, cutoffs, 1.5).double())
    names, weights = zip(*vocabulary.named_parameters(), strict=True)
    tokens, targets = torch.tensor([[0, 3, 16], [12, 4, 7]]), torch.tensor([[2, 11, 12], [5, 16, 0]])

    class Both(nn.Module):
        """One weight moves what enters and what is predicted."""

        def __init__(self):
            super().__init__()
            self.vocabulary = vocabulary

        def forward(self, states):
            mixed = states + torch.tanh(self.vocabulary(tokens))
            return self.vocabulary.losses(mixed, targets), self.vocabulary.logits(mixed)

    def outputs(states, *values):
        given = {f"vocabulary.{name}": value for name, value in zip(names, values, strict=True)}
        return functional_call(both, given, (states,))

    both = Both()
    states = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(outputs, (states, *weights))


def test_a_vocabulary_holds_nothing_twice_and_every_weight_has_a_gradient():
    vocabulary = AdaptiveVocabulary(17, 16, (3, 5, 11), 2.0)
    # Shortlist and three clusters; then for each cluster of n tokens and h features a projection and a table.
    expected = (3 + 3) * 16 + sum(h * (16 + n) for h, n in ((8, 2), (4, 6), (2, 6)))
    assert sum(weight.numel() for weight in vocabulary.parameters()) == expected
    tokens = torch.tensor([[0, 1, 2]])  # none of a cluster
    vocabulary.losses(vocabulary(tokens), tokens).sum().backward()
    assert all(weight.grad is not None for weight in vocabulary.parameters())


def test_a_token_moves_its_own_rows_alone():
    vocabulary = ordered(AdaptiveVocabulary(17, WIDTH, (3, 5, 11), 2.0))
    vocabulary(torch.tensor([12, 4])).sum().backward()
    moved = {name: weight.grad.flatten(1).any(dim=1).nonzero().flatten().tolist() for name, weight in
             vocabulary.named_parameters() if "0.weight" not in name}  # fmt: skip
    assert moved == {"softmax.head.weight": [], "softmax.tail.0.1.weight": [1], "softmax.tail.1.1.weight": [],
                     "softmax.tail.2.1.weight": [1]}  # fmt: skip


def test_fresh_tokens_of_every_cluster_pass_a_layer_norm_at_full_size():
    vocabulary = AdaptiveVocabulary(2000, 128, (500, 1000, 1500), 4.0)
    assert all(weight.std().item() == pytest.approx(0.02, rel=0.25) for weight in vocabulary.parameters())
    seen = nn.LayerNorm(128)(vocabulary(torch.arange(2000)))
    sizes = [part.std().item() for part in seen.split(500)]
    assert min(sizes) > 0.75 and sizes[0] > 0.99


@pytest.mark.parametrize("cutoffs", KINDS)
@pytest.mark.parametrize("token", [-1, 17, 40])
def test_what_is_no_token_is_refused(cutoffs, token):
    vocabulary = build_vocabulary(17, WIDTH, cutoffs, 2.0)
    with pytest.raises(IndexError):
        vocabulary(torch.tensor([0, token, 16]))
    with pytest.raises((IndexError, RuntimeError)):
        vocabulary.losses(torch.zeros(3, WIDTH), torch.tensor([0, token, 16]))


@pytest.mark.parametrize("cutoffs", KINDS)
def test_losses_are_float32_or_better_in_half_precision(cutoffs):
    vocabulary = ordered(build_vocabulary(17, WIDTH, cutoffs, 2.0))
    states, targets = torch.randn(6, WIDTH), torch.tensor([0, 3, 4, 9, 12, 16])
    expected = vocabulary.losses(states, targets)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = vocabulary.losses(states.bfloat16(), targets)
        assert vocabulary.logits(states.bfloat16()).shape == (6, 17) and vocabulary(targets).shape == (6, WIDTH)
    vocabulary.bfloat16()
    narrow = vocabulary.losses(states.bfloat16(), targets)
    assert vocabulary.logits(states.bfloat16()).shape == (6, 17) and vocabulary(targets).dtype == torch.bfloat16
    for found in (mixed, narrow):
        assert found.dtype == torch.float32 and torch.allclose(found, expected, atol=0.1)
    narrow.sum().backward()
    assert all(weight.grad.dtype == torch.bfloat16 for weight in vocabulary.parameters())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [({"cutoffs": (5, 5)}, ValueError, r"cutoffs=\(5, 5\) cut no vocabulary of 17 tokens .* from 1 to 16"),
     ({"cutoffs": (7, 5)}, ValueError, r"cutoffs=\(7, 5\)"), ({"cutoffs": (0, 5)}, ValueError, r"cutoffs=\(0, 5\)"),
     ({"cutoffs": (5, 17)}, ValueError, r"cutoffs=\(5, 17\)"), ({"cutoffs": (-3,)}, ValueError, r"cutoffs=\(-3,\)"),
     ({"cutoffs": (2.5,)}, TypeError, "cutoffs=2.5.* whole number"),
     ({"cutoffs": (5,), "div_value": 0.5}, ValueError, "div_value=0.5 would widen"),
     ({"cutoffs": (5,), "div_value": float("nan")}, ValueError, "div_value=nan"),
     ({"cutoffs": (5, 9)}, ValueError, "div_value=4.0 leaves cluster 2 no feature of d_model=12")],
)  # fmt: skip
def test_bad_clusters_are_refused_in_one_sentence(options, error, message):
    with pytest.raises(error, match=message) as caught:
        build_vocabulary(17, WIDTH, **options)
    assert str(caught.value).count(".\n") == 0 and str(caught.value).endswith(".")


@pytest.mark.parametrize("cutoffs", KINDS)
def test_states_without_their_targets_are_refused(cutoffs):
    with pytest.raises(ValueError, match=r"states of shape \(2, 3, 12\) do not fit targets of shape \(3, 2\)"):
        build_vocabulary(17, WIDTH, cutoffs, 2.0).losses(torch.zeros(2, 3, WIDTH), torch.zeros(3, 2, dtype=torch.long))


LARGE = """
import torch
from benchmarks.full_picture import peak_bytes
from poise.nn import build_vocabulary

torch.set_num_threads(1)
vocab_size, cutoffs = 267_735, (20_000, 40_000, 200_000)
vocabulary = build_vocabulary(vocab_size, 128, cutoffs)
optimizer = torch.optim.AdamW(vocabulary.parameters())
tokens, targets = (vocab_size ** torch.rand(2, 12, 64) - 1).long()  # Zipf's law
losses = vocabulary.losses(torch.tanh(vocabulary(tokens)), targets)
losses.mean().backward()
optimizer.step()
with torch.no_grad():
    sums = vocabulary.logits(torch.randn(2, 128)).exp().sum(-1)
# Fresh weights hardly tell tokens apart: an even choice of the head's 20,003 rows, then one within the cluster.
inner = torch.tensor([1.0, 20_000, 160_000, 67_735])[torch.bucketize(targets, torch.tensor(cutoffs), right=True)]
print((losses - (20_003 * inner).log()).abs().max().item(), (sums - 1).abs().max().item(), peak_bytes())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_vocabulary_of_wikitext_103_trains_in_2_gigabytes():
    """One matrix (tokens, vocab_size) has 0.8 GB, and a step with the full softmax makes at least three."""
    root = Path(poise.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True, cwd=root,
                          env=os.environ | {"PYTHONPATH": str(root)})  # fmt: skip
    far, error, peak = map(float, done.stdout.split())
    assert far < 1 and error < 1e-4 and peak < 2e9
