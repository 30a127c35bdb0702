"""ResNets: the published sizes, what each stem does, and a head only where one is asked for."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from poise.models import resnet18, resnet34, resnet50
from poise.models.resnet import BasicBlock, Bottleneck, Projection, ResNet


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("make", "published", "features"),
    [(resnet18, 11_689_512, 512), (resnet34, 21_797_672, 512), (resnet50, 25_557_032, 2048)],
)
def test_published_parameter_counts(make, published, features):
    with torch.device("meta"):  # counts and shapes need no numbers
        model, encoder = make(n_classes=1000), make()
        assert size(model) == published
        assert encoder.features == features and size(encoder) == published - 1000 * (features + 1)
        assert model(torch.empty(2, 3, 64, 64)).shape == (2, 1000)
        assert encoder(torch.empty(2, 3, 64, 64)).shape == (2, features)


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 8), ("cifar", 32), ("stride2", 16)])
def test_stems_keep_their_resolution(stem, side):
    model = resnet18(width=4, in_channels=1, stem=stem)
    assert model.stem(torch.randn(2, 1, 32, 32)).shape == (2, 4, side, side)
    features = model(torch.randn(2, 1, 32, 32))
    assert features.shape == (2, model.features) and model.features == 32


def normalised(x, norm):
    return (x - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt() * norm.weight[
        :, None, None
    ] + norm.bias[:, None, None]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
def test_a_block_is_its_formula(kind, stride):
    block = kind(4, 6, stride).double().eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight.data, module.bias.data):
                tensor.normal_()
            module.running_var.uniform_(0.5, 2)
    convs = [module for module in block.residual if isinstance(module, nn.Conv2d)]
    norms = [module for module in block.residual if isinstance(module, nn.BatchNorm2d)]
    strides = [stride, 1] if kind is BasicBlock else [1, stride, 1]
    x = torch.randn(2, 4, 7, 7, dtype=torch.float64)
    h = x
    for place, (conv, norm) in enumerate(zip(convs, norms, strict=True)):
        h = normalised(F.conv2d(h, conv.weight, stride=strides[place], padding=conv.weight.shape[-1] // 2), norm)
        h = h.relu() if place < len(convs) - 1 else h
    projected = normalised(F.conv2d(x, block.shortcut[0].weight, stride=stride), block.shortcut[1])
    assert torch.allclose(block(x), (projected + h).relu(), atol=1e-12)


def test_zero_init_residual_begins_as_the_shortcuts():
    model = resnet50(width=4, stem="cifar", zero_init_residual=True)
    x = torch.randn(2, 3, 8, 8)
    h = model.stem(x)
    for block in model.blocks:
        h = block.shortcut(h).relu()
    assert torch.allclose(model(x), h.mean(dim=(2, 3)), atol=1e-6)
    plain = resnet50(width=4, stem="cifar")
    assert all(block.residual[-1].weight.min() == 1 for block in plain.blocks)


def test_gradients_reach_every_parameter():
    model = ResNet(BasicBlock, (1, 1, 1, 1), width=4, n_classes=3, stem="cifar")
    model(torch.randn(4, 3, 16, 16)).logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_what_is_no_network_is_refused():
    with pytest.raises(ValueError, match="stem='cifar10' is unknown; pass 'imagenet', 'cifar' or 'stride2'"):
        resnet18(stem="cifar10")
    with pytest.raises(ValueError, match="width=0"):
        resnet18(width=0)


@pytest.mark.parametrize("channels", [2, 3, 7, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_projection_is_the_strided_convolution_and_so_is_its_gradient(channels, stride):
    torch.manual_seed(0)
    projection = Projection(channels, 5, stride).double()
    x, weight = torch.randn(2, channels, 9, 8, dtype=torch.float64), projection.weight.detach().clone().requires_grad_()
    found, wanted = projection(x), F.conv2d(x, weight, stride=stride)
    assert torch.allclose(found, wanted, rtol=1e-12, atol=1e-12)
    cotangent = torch.randn_like(wanted)
    found.backward(cotangent)
    wanted.backward(cotangent)
    assert torch.allclose(projection.weight.grad, weight.grad, rtol=1e-12, atol=1e-12)


def test_narrow_networks_train_in_channels_last():
    """Strided 1x1 convolutions of so few channels wrote past their gradient: garbage, or the end of the process."""
    torch.manual_seed(0)
    plain = resnet18(width=4, stem="cifar", n_classes=3)
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    x, labels = torch.randn(4, 3, 32, 32), torch.randint(3, (4,))
    for model, pictures in ((plain, x), (last, x.contiguous(memory_format=torch.channels_last))):
        for _ in range(3):
            model.zero_grad()
            F.cross_entropy(model(pictures), labels).backward()
    for one, other in zip(plain.parameters(), last.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-4)
