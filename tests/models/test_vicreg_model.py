"""The two branches: what they share, what they may differ in, and both views of an equilibrium in one solve."""

import copy

import pytest
import torch
from torch import nn

from poise import GMRES, Anderson, Implicit
from poise.data import Composed, Noise, Shift
from poise.models import DenseEncoder, DEQDenseEncoder, Expander, VICReg, resnet18
from poise.objectives import VICRegLoss

TIGHT = {"solver": Anderson(rtol=1e-10), "adjoint": Implicit(GMRES(rtol=1e-10))}


def equilibrium():
    torch.manual_seed(0)
    return DEQDenseEncoder(10, 16, 6, **TIGHT).double()


def expander(*sizes):
    return Expander(sizes or (6, 12, 12, 9)).double()


def vectors(batch=8, width=10, seed=0):
    return torch.randn(batch, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_expander_is_its_formula():
    model = expander(6, 12, 7, 9)
    x = vectors(width=6)
    h = x
    for weight in (model[0].weight, model[3].weight):
        h = h @ weight.T
        h = ((h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt()).relu()
    assert torch.allclose(model(x), h @ model[6].weight.T, atol=1e-10)
    assert [name for name, _ in model.named_parameters() if "bias" in name] == ["1.bias", "4.bias"]  # of batch norm
    assert len(model) == 7 and model.sizes == (6, 12, 7, 9)


def test_an_expander_without_batch_norm_keeps_samples_apart():
    model = Expander((6, 12, 9), normalised=False).double().train()
    x = vectors(width=6)
    assert torch.allclose(model(x)[:1], model(x[:1]), atol=1e-12)
    assert not any(isinstance(layer, nn.BatchNorm1d) for layer in model) and model[0].bias is not None


def test_shared_branches_are_one_network():
    model = VICReg(DenseEncoder((10, 16, 6)).double(), expander()).eval()
    first, second = vectors(), vectors(seed=1)
    z1, z2 = model(first, second)
    assert torch.equal(z1, model.expander(model.encoder(first)))
    assert torch.equal(z2, model.expander(model.encoder(second)))
    assert torch.equal(model.features(second), model.features(second, branch=1))
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for part in (model.encoder, model.expander) for p in part.parameters()
    )


def test_equilibrium_views_go_through_one_solve_and_come_out_as_alone():
    model = VICReg(equilibrium(), expander())
    model(vectors(32), vectors(32, seed=1))  # settles the batch norm
    model.eval()
    tally = model.encoder.equilibrium.counters.forward
    tally.reset()
    first, second = vectors(), 3 * vectors(seed=1)
    z1, z2 = model(first, second)
    assert tally.solves == 1 and tally.samples == 16
    assert torch.allclose(z1, model.expander(model.encoder(first)), rtol=0, atol=1e-8)
    assert torch.allclose(z2, model.expander(model.encoder(second)), rtol=0, atol=1e-8)


def test_views_of_two_sizes_are_solved_apart():
    class Means(nn.Module):
        """Pictures of any size to ten numbers, then an equilibrium encoder."""

        def __init__(self):
            super().__init__()
            self.inner = equilibrium()
            self.encode_views = self.inner.encode_views

        def forward(self, x):
            return self.inner(x.mean(dim=1))

    model = VICReg(Means(), expander())
    z1, z2 = model(vectors(8 * 3).reshape(8, 3, 10), vectors(8 * 2).reshape(8, 2, 10))
    assert z1.shape == z2.shape == (8, 9)


@pytest.mark.parametrize("shared_expander", [True, False])
def test_branches_of_two_kinds_of_input(shared_expander):
    """Pictures by a convolutional network, vectors by an equilibrium."""
    pictures = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    encoder = resnet18(width=2, stem="stride2").double()
    other = DEQDenseEncoder(10, 16, encoder.features, **TIGHT).double()
    model = VICReg(encoder, expander(16, 12, 9), other, None if shared_expander else expander(16, 7, 9))
    z1, z2 = model(pictures, vectors())
    VICRegLoss()(z1, z2).total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    assert torch.equal(model.features(pictures), encoder(pictures))
    assert torch.equal(model.features(vectors(), branch=1), other(vectors()))


def test_a_copy_has_weights_of_its_own():
    encoder = DenseEncoder((10, 16, 6)).double()
    model = VICReg(encoder, expander(), copy.deepcopy(encoder)).eval()
    x = vectors()
    with torch.no_grad():
        for parameter in model.other_encoder.parameters():
            parameter.mul_(2)
    assert not torch.allclose(model.features(x, 0), model.features(x, 1))


def test_an_empty_module_is_another_encoder():
    """Which has a length of zero and is false."""
    model = VICReg(nn.Linear(10, 10).double(), expander(10, 9), nn.Sequential()).eval()
    assert torch.equal(model.features(vectors(), branch=1), vectors())


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    model = VICReg(DEQDenseEncoder(10, 16, 6), Expander((6, 12, 9)))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    x = torch.randn(64, 10)
    losses = []
    for _ in range(40):
        z1, z2 = model(x + 0.1 * torch.randn_like(x), x + 0.1 * torch.randn_like(x))
        loss = VICRegLoss()(z1, z2).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda: (DenseEncoder((10, 16, 6)), Expander((7, 9))), "returns 6 features and the expander takes 7"),
        (lambda: (nn.Linear(10, 6), Expander((6, 9)), None, Expander((6, 8))), "end in 9 and 8 dimensions"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        VICReg(*arguments())


def test_calls_that_mean_nothing_are_refused():
    model = VICReg(nn.Conv2d(1, 6, 3), Expander((6, 9)))
    with pytest.raises(ValueError, match=r"returned \(2, 6, 2, 2\); pool or flatten"):
        model.features(torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match="branch=2"):
        model.features(torch.zeros(2, 1, 4, 4), branch=2)
    with pytest.raises(ValueError, match=r"sizes=\(3,\)"):
        Expander((3,))


def test_a_series_and_its_spectrum_find_each_other():
    """Two kinds of input with an encoder each: after training, a series is nearest to its own spectrum."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    view = Composed((Shift(8, wrap=True), Noise(0.1)))

    def drawn(batch):
        frequency = torch.rand(batch, 2, 1, generator=generator) * 12 + 2
        phase = torch.rand(batch, 2, 1, generator=generator) * 2 * torch.pi
        series = torch.sin(2 * torch.pi * frequency * torch.linspace(0, 1, 64) + phase).sum(dim=1)
        return view(series, generator), torch.log1p(torch.fft.rfft(series).abs())

    model = VICReg(
        DenseEncoder((64, 128, 64, 32)), Expander((32, 64)), DenseEncoder((33, 128, 64, 32)), Expander((32, 64))
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(250):
        terms = VICRegLoss()(*model(*drawn(128)))
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        first, second = model(*drawn(50))
    nearest = torch.cdist(first, second).argmin(dim=1)
    assert (nearest == torch.arange(50)).double().mean() > 0.8  # by chance: 0.02
