"""The short convolution of embedded tokens."""

import pytest
import torch
import torch.nn.functional as F

from poise.nn.convolution import ShortConvolution


def drawn(width=4, d_model=6):
    torch.manual_seed(0)
    convolution = ShortConvolution(d_model, width).double()
    if width > 1:
        torch.nn.init.normal_(convolution.weight)
    return convolution, torch.randn(3, 9, d_model, dtype=torch.float64)


def test_it_is_a_causal_depthwise_convolution():
    convolution, x = drawn()
    kernel = convolution.weight[0].T.flip(1).unsqueeze(1)  # PyTorch's first tap is the oldest position
    expected = F.conv1d(F.pad(x.transpose(1, 2), (3, 0)), kernel, groups=6).transpose(1, 2)
    assert torch.allclose(convolution(x)[0], expected, atol=1e-12)


def test_it_begins_as_the_identity():
    x = torch.randn(2, 5, 3)
    assert torch.equal(ShortConvolution(3, 3)(x)[0], x)
    found, tail = ShortConvolution(3, 1)(x)
    assert found is x and tail is None and not list(ShortConvolution(3, 1).parameters())


@pytest.mark.parametrize("cut", [1, 2, 5, 8])
def test_a_text_in_pieces_is_the_text(cut):
    convolution, x = drawn()
    whole, end = convolution(x)
    first, tail = convolution(x[:, :cut])
    second, last = convolution(x[:, cut:], tail)
    assert torch.equal(torch.cat([first, second], dim=1), whole) and torch.equal(last, end)
    assert not tail.requires_grad


def test_what_is_padded_is_not_remembered():
    convolution, x = drawn()
    lengths = torch.tensor([9, 4, 1])
    padded = x.clone()
    for row, length in enumerate(lengths.tolist()):
        padded[row, length:] = 100.0
    _, tails = convolution(padded, lengths=lengths)
    for row, length in enumerate(lengths.tolist()):
        assert torch.equal(tails[row : row + 1], convolution(x[row : row + 1, :length])[1])


@pytest.mark.parametrize(("width", "kind"), [(0, ValueError), (2.5, TypeError)])
def test_no_width(width, kind):
    with pytest.raises(kind, match="width"):
        ShortConvolution(4, width)
