"""What every view does first: look at what it was given, and draw one parameter for each sample.

As many numbers are drawn whatever the samples hold, so that a sample's view does not depend on its neighbours. They are
drawn where the generator is and moved to the samples: one CPU generator gives the same views on every device.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

View = Callable[[Tensor, torch.Generator], Tensor]


def uniform(low: float, high: float, batch: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Return a number in [low, high] for each sample, (B,), on the device and in the precision of `like`."""
    return (low + (high - low) * _unit((batch,), generator)).to(like)


def chosen(probability: float, batch: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Return whether each sample is chosen, (B,) bool, on the device of `like`."""
    return (_unit((batch,), generator) < probability).to(like.device)


def below(bound: Tensor, generator: torch.Generator) -> Tensor:
    """Return an integer in [0, bound) for each bound, of its shape, int64."""
    # A number just below 1 may be rounded up to the bound.
    places = (_unit(bound.shape, generator).to(bound.device) * bound).long()
    return torch.minimum(places, bound - 1)


def orders(length: int, batch: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Return a permutation for each sample, (B, length), on the device of `like`."""
    return _unit((batch, length), generator).argsort(dim=1).to(like.device)


def attempts(low: float, high: float, batch: int, number: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Return so many numbers in [low, high] for each sample, (B, number), on the device of `like`."""
    return (low + (high - low) * _unit((batch, number), generator)).to(like.device)


def per_sample(parameter: Tensor, like: Tensor) -> Tensor:
    """Return a parameter (B,) shaped so that it multiplies samples (B, ...)."""
    return parameter.view(-1, *(1,) * (like.dim() - 1))


def pictures(view: str, x: Tensor, channels: int | None = None) -> Tensor:
    """Return pictures (B, C, H, W) as floating point: bytes are divided by 255, half precision becomes single.

    Raises ValueError for anything else, or where the view needs another number of channels.
    """
    if x.dim() != 4 or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise ValueError(
            f"{view} got {_kind(x)} of shape {tuple(x.shape)}; pass pictures (B, C, H, W) in uint8, or in floating "
            "point from 0 to 1."
        )
    if channels is not None and x.shape[1] != channels:
        raise ValueError(f"{view} needs pictures of {channels} channels and got {x.shape[1]}; leave it out for these.")
    if x.dtype == torch.uint8:
        return x.float() / 255
    return x if x.dtype == torch.float64 else x.float()


def unit_pictures(view: str, x: Tensor, channels: int | None = None) -> Tensor:
    """Return `pictures(...)`; raise ValueError where they leave [0, 1], to which this view clamps."""
    given = pictures(view, x, channels)
    if x.dtype != torch.uint8 and x.numel():
        low, high = (float(end) for end in torch.aminmax(given))
        # The comparison is false for NaN as well.
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"{view} got pictures from {low:g} to {high:g}; pass uint8, or floating point from 0 to 1 "
                "(normalise last)."
            )
    return given


def label_maps(view: str, labels: Tensor, x: Tensor) -> Tensor:
    """Return the label maps (B, H, W) of pictures (B, C, H, W); raise ValueError where they are none."""
    if labels.dtype not in (torch.uint8, torch.int64) or labels.shape != (len(x), *x.shape[2:]):
        raise ValueError(
            f"{view} got labels {_kind(labels)} of shape {tuple(labels.shape)} for pictures of shape "
            f"{tuple(x.shape)}; pass uint8 or int64 of shape (B, H, W)."
        )
    return labels


def looked_up(x: Tensor, rows: Tensor, columns: Tensor, outside: float) -> Tensor:
    """Return the pixels of `x` (B, C, H, W) in `rows` (B, h) and `columns` (B, w), (B, C, h, w).

    What lies in no row or column of a picture is `outside`.
    """
    channels, height, width = x.shape[1:]
    rows, columns = rows[:, None, :, None], columns[:, None, None, :]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    places = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)  # (B, 1, h, w)
    found = x.flatten(2).gather(2, places.flatten(2).expand(-1, channels, -1))
    return torch.where(inside, found.unflatten(2, places.shape[2:]), outside)


def floating(view: str, x: Tensor) -> None:
    """Raise ValueError unless `x` is floating point of shape (B, ...) with something for each sample."""
    if x.dim() < 2 or not x.is_floating_point():
        raise ValueError(f"{view} got {_kind(x)} of shape {tuple(x.shape)}; pass floating point of shape (B, ...).")


def check_range(view: str, name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raise ValueError unless low <= value <= high."""
    if not low <= value <= high:
        asked = f"at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
        raise ValueError(f"{view} got {name}={value!r}; it must be {asked}.")


def check_pair(view: str, name: str, pair: tuple[float, float], low: float, high: float = float("inf")) -> None:
    """Raise ValueError unless low <= pair[0] <= pair[1] <= high."""
    if len(pair) != 2 or not low <= pair[0] <= pair[1] <= high:
        bound = "" if high == float("inf") else f" up to {high:g}"
        raise ValueError(f"{view} got {name}={pair!r}; pass two numbers from {low:g}{bound}, the smaller first.")


def _unit(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _kind(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
