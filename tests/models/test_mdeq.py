"""MDEQ and its explicit peers: published sizes, two heads on one trunk, and each sample by itself."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from poise import GMRES, Anderson, Implicit, Picard, Unrolled
from poise.models import MDEQ, Architecture, MultiscaleNet, resnet18
from poise.models.mdeq import PRESETS
from poise.models.multiscale import ClassificationHead, SegmentationHead

SMALL = Architecture((8, 16), expansion=2, head_width=2, head_features=12)
TIGHT = {"solver": Anderson(rtol=1e-10, max_steps=200), "adjoint": Implicit(GMRES(rtol=1e-10))}


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


def both(architecture=SMALL, **options):
    torch.manual_seed(0)
    return MDEQ(architecture, classes=5, pixel_classes=3, **{**TIGHT, **options}).double()


def pictures(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(
    ("preset", "heads", "published", "deviation"),
    [
        ("tiny", {"classes": 10}, 0.17e6, 0.02),
        ("cifar", {"classes": 10}, 10e6, 0.01),
        ("small", {"classes": 1000}, 18e6, 0.02),
        ("large", {"classes": 1000}, 63e6, 0.02),
        ("xl", {"classes": 1000}, 81e6, 0.01),
        # Trunks that are larger than the published totals, as the docstring says.
        ("small", {"pixel_classes": 19}, 7.8e6, 0.15),
        ("large", {"pixel_classes": 19}, 53e6, 0.06),
        ("xl", {"pixel_classes": 19}, 71e6, 0.13),
    ],
)
def test_presets_have_the_published_parameters(preset, heads, published, deviation):
    with torch.device("meta"):
        model = MDEQ(preset, **heads)
    assert size(model) / published == pytest.approx(1, abs=deviation)


@pytest.mark.parametrize(("preset", "evaluations"), [("tiny", 15), ("cifar", 22)])
def test_an_untrained_preset_finds_its_equilibrium(preset, evaluations):
    solution = MDEQ(preset).solve(torch.randn(2, 3, 32, 32))
    assert solution.ok and solution.evaluations <= evaluations


def test_peers_have_equally_many_parameters():
    model = MDEQ("tiny", classes=10)
    explicit = MultiscaleNet(replace(PRESETS["tiny"], expansion=1), layers=4, classes=10)
    assert size(explicit) / size(model) == pytest.approx(1, abs=0.04)
    assert size(resnet18(width=8, stem="cifar", n_classes=10)) / size(model) == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("make", [MDEQ, MultiscaleNet])
@pytest.mark.parametrize(("shape", "downsamplings"), [((1, 9, 14), 0), ((4, 21, 13), 1), ((3, 33, 30), 2)])
def test_heads_answer_for_pictures_of_any_size(make, shape, downsamplings):
    channels, *side = shape
    architecture = replace(SMALL, in_channels=channels, downsamplings=downsamplings)
    model = make(architecture, classes=5, pixel_classes=3)
    x = torch.randn(2, *shape)
    scales = model.scales(x)
    sides = [math.ceil(each / 2**downsamplings) for each in side]
    assert scales[0].shape == (2, 8, *sides) and scales[1].shape == (2, 16, *(math.ceil(each / 2) for each in sides))
    predictions = model(x)
    assert predictions.classes.shape == (2, 5) and predictions.pixels.shape == (2, 3, *side)
    assert make(architecture, pixel_classes=3)(x).classes is None is make(architecture, classes=5)(x).pixels


@pytest.mark.parametrize("make", [lambda **heads: MDEQ(SMALL, **heads), lambda **heads: MultiscaleNet(SMALL, **heads)])
def test_one_trunk_learns_from_both_losses(make):
    model = make(classes=5, pixel_classes=3)
    x = torch.randn(4, 3, 16, 16)
    predictions = model(x)
    loss = F.cross_entropy(predictions.classes, torch.arange(4))
    loss = loss + F.cross_entropy(predictions.pixels, torch.randint(3, (4, 16, 16)))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_forward_is_one_solve_and_its_heads():
    model = both().eval()
    x = pictures(2, 3, 8, 8)
    predictions = model(x)
    assert model.equilibrium.counters.forward.solves == 1
    solution = model.solve(x)
    again = model.heads(solution.state, x.shape[-2:])
    for found in (again.classes, model.classify(x)):
        assert torch.equal(found, predictions.classes)
    for found in (again.pixels, model.segment(x)):
        assert torch.equal(found, predictions.pixels)
    assert solution.ok


def test_a_picture_does_not_depend_on_its_neighbours():
    model = both().eval()
    x = pictures(4, 3, 9, 8) * torch.tensor([0.5, 1, 3, 10.0]).view(-1, 1, 1, 1)
    together = model(x)
    for i in range(4):
        alone = model(x[i : i + 1])
        assert torch.allclose(alone.classes[0], together.classes[i], rtol=0, atol=1e-8)
        assert torch.allclose(alone.pixels[0], together.pixels[i], rtol=0, atol=1e-8)


def test_a_few_recorded_steps_train_it_shallow():
    model = both(solver=Picard(rtol=None, max_steps=3), adjoint=Unrolled()).eval()
    x = pictures(2, 3, 8, 8)
    context = model.equilibrium.cell.inject(model.stem(x))
    z = model.equilibrium.cell.initial_state(context)
    for _ in range(3):
        z = model.equilibrium.cell(z, context)
    expected = torch.autograd.grad(model.classifier(z).logsumexp(1).sum(), list(model.stem.parameters()))
    found = torch.autograd.grad(model.classify(x).logsumexp(1).sum(), list(model.stem.parameters()))
    for one, two in zip(found, expected, strict=True):
        assert torch.allclose(one, two, rtol=0, atol=1e-10)
    model.equilibrium.solver, model.equilibrium.adjoint = TIGHT["solver"], TIGHT["adjoint"]
    deep = model.scales(x)
    assert model.solve(x).ok and max((a - b).abs().max() for a, b in zip(deep, z, strict=True)) > 1e-2


def test_channels_last_changes_no_number():
    model = both().eval()
    x = pictures(2, 3, 9, 8)
    expected = model(x)
    model.to(memory_format=torch.channels_last)
    found = model(x.to(memory_format=torch.channels_last))
    assert torch.allclose(found.classes, expected.classes, atol=1e-9)
    assert torch.allclose(found.pixels, expected.pixels, atol=1e-9)


def test_the_classification_head_sums_scales_on_the_way_down():
    torch.manual_seed(0)
    head = ClassificationHead((4, 4, 8), classes=3, width=2, features=5).double().eval()
    scales = [pictures(2, 4, 8, 8), pictures(2, 4, 4, 4), pictures(2, 8, 2, 2)]
    wide = [increase(part) for increase, part in zip(head.increase, scales, strict=True)]
    assert [part.shape[1] for part in wide] == [8, 16, 32]
    second = wide[1] + head.down[0](wide[0])
    pooled = head.final(wide[2] + head.down[1](second)).flatten(2).mean(2)
    assert torch.allclose(head(tuple(scales)), pooled @ head.linear.weight.T + head.linear.bias, atol=1e-12)


def test_the_segmentation_head_sees_every_scale_at_every_pixel():
    torch.manual_seed(0)
    head = SegmentationHead((4, 8), classes=3).double().eval()
    fine, coarse = pictures(1, 4, 6, 6), pictures(1, 8, 3, 3)
    before = head((fine, coarse), (6, 6))
    changed = coarse.clone()
    changed[..., 0, 0] += 1
    difference = (head((fine, changed), (6, 6)) - before).abs().sum(dim=(0, 1)) > 1e-12
    assert difference[:2, :2].all() and not difference[3:, 3:].any()  # bilinear: two fine pixels and one beyond
    assert head((fine, coarse), (11, 13)).shape == (1, 3, 11, 13)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: MDEQ("huge"), "architecture='huge' is no preset; pass one of tiny, cifar, small, large, xl, or an"),
        (lambda: MDEQ("tiny", classes=0), r"MDEQ\(classes=0\) tells nothing apart; pass at least 1"),
        (lambda: MultiscaleNet(SMALL, 0), r"MultiscaleNet\(layers=0\) has no block; pass at least 1"),
        (lambda: MDEQ(replace(SMALL, downsamplings=3)), "downsamplings=3 of the stem's two convolutions; pass 0, 1"),
        (lambda: MDEQ(SMALL, classes=2).segment(torch.zeros(1, 3, 8, 8)), "no segmentation head; make it with pixel_c"),
        (lambda: MDEQ(SMALL, pixel_classes=2).classify(torch.zeros(1, 3, 8, 8)), "no classification head; make it"),
    ],
)
def test_what_cannot_be_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
