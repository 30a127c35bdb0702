"""Encoders: peers of one size, features of one shape, and several views in one solve that answers each alone."""

import copy

import pytest
import torch

from poise import GMRES, Anderson, Implicit
from poise.models import ConvEncoder, DenseEncoder, DEQConvEncoder, DEQDenseEncoder, resnet18

TIGHT = {"solver": Anderson(rtol=1e-10), "adjoint": Implicit(GMRES(rtol=1e-10))}
DEQS = ("dense", "conv")


def deq(kind):
    torch.manual_seed(0)
    made = DEQDenseEncoder(27, 16, 6, **TIGHT) if kind == "dense" else DEQConvEncoder(3, 8, 6, groups=4, **TIGHT)
    return made.double()


def views(kind, *sizes):
    generator = torch.Generator().manual_seed(1)
    shape = (3, 3, 3) if kind == "dense" else (3, 12, 12)
    return [(1 + i) * torch.randn(n, *shape, generator=generator, dtype=torch.float64) for i, n in enumerate(sizes)]


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("equilibrium", "explicit"),
    [
        (lambda: DEQDenseEncoder(144, 256, 128), lambda: DenseEncoder((144, 256, 256, 128))),
        (lambda: DEQConvEncoder(3, 64), lambda: ConvEncoder(3, 64)),
        (lambda: DEQConvEncoder(1, 32, 64, strides=(2,)), lambda: ConvEncoder(1, 32, 64, strides=(2,))),
        (lambda: DEQConvEncoder(3, 160), lambda: resnet18(width=16, stem="stride2")),
    ],
)
def test_peers_have_equally_many_parameters(equilibrium, explicit):
    assert size(equilibrium()) / size(explicit()) == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: DenseEncoder((48, 16, 16, 10)), (3, 4, 4)),
        (lambda: DEQDenseEncoder(48, 16, 10), (3, 4, 4)),
        (lambda: ConvEncoder(3, 8, n_blocks=2), (3, 16, 16)),
        (lambda: DEQConvEncoder(3, 8), (3, 16, 16)),
        (lambda: ConvEncoder(3, 8, 5, strides=(1,)), (3, 8, 8)),
        (lambda: DEQConvEncoder(3, 8, 5, strides=(1,)), (3, 8, 8)),
    ],
)
def test_features_and_gradients_at_every_parameter(make, shape):
    model = make()
    features = model(torch.randn(6, *shape))
    assert features.shape == (6, model.features)
    features.sin().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("kind", DEQS)
def test_views_in_one_solve_are_those_encoded_alone(kind):
    model = deq(kind)
    model(views(kind, 32)[0])  # settles the batch norm
    model.eval()
    first, second = views(kind, 5, 3)
    before = model.equilibrium.counters.forward.solves
    one, two = model.encode_views(first, second)
    assert model.equilibrium.counters.forward.solves == before + 1
    assert torch.allclose(one, model(first), rtol=0, atol=1e-8)
    assert torch.allclose(two, model(second), rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", DEQS)
def test_in_training_each_view_has_its_own_batch_statistics(kind):
    together, apart = deq(kind), deq(kind)
    first, second = views(kind, 7, 9)
    found = together.encode_views(first, second)
    expected = apart(first), apart(second)
    for one, two in zip(found, expected, strict=True):
        assert torch.allclose(
            one, two, rtol=0, atol=1e-4 if kind == "dense" else 1e-8
        )  # W's bound moves once, not twice
    for name, buffer in together.named_buffers():
        if "running" in name or "tracked" in name:
            assert torch.equal(buffer, apart.get_buffer(name)), name
    pooled = deq(kind)(torch.cat([first, second]))
    assert (pooled - torch.cat(found)).abs().max() > 1e-2  # joint statistics are another thing


@pytest.mark.parametrize("kind", DEQS)
def test_the_gradient_of_one_solve_is_the_sum_of_the_two(kind):
    together = deq(kind).eval()
    apart = copy.deepcopy(together)
    first, second = views(kind, 4, 4)
    one, two = together.encode_views(first, second)
    (one * two).sum().backward()
    (apart(first) * apart(second)).sum().backward()
    for p, q in zip(together.parameters(), apart.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-6, atol=1e-8)


def test_sizes_without_a_layer_are_refused():
    with pytest.raises(ValueError, match=r"sizes=\(4,\)"):
        DenseEncoder((4,))


@pytest.mark.parametrize("make", [ConvEncoder, DEQConvEncoder])
@pytest.mark.parametrize("strides", [(), (2, 0)])
def test_strides_that_name_no_convolution_are_refused(make, strides):
    with pytest.raises(ValueError, match="name no convolution; pass one of at least 1"):
        make(3, 8, strides=strides)
