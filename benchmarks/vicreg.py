"""What does the VICReg loss cost beside its formula as published? Time and peak bytes, forward and backward.

`python -m benchmarks.vicreg [--rounds N] [--markdown] [--json FILE]` (about 8 minutes on one thread).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import command
from benchmarks.live_bytes import LiveBytes
from benchmarks.results import markdown
from benchmarks.timing import Call, alternate
from poise.objectives import VICRegLoss

SHAPES = ((256, 2048), (256, 8192), (1024, 8192), (2048, 8192))
STEP = (256, 2048, 8192)  # batch, features, width of the expander
RULE = (
    "Two views from N(0, 1) in float32, loss and gradient, alternating in one process on one thread, medians of "
    "processor time. The published formula makes both D x D covariance matrices and leaves the gradient to autograd. "
    "Peak: the most bytes alive after any operation, the views themselves left out. The whole step is an expander "
    "2048-8192-8192-8192 with batch normalisation, forward, loss and backward, without an encoder or an optimiser."
)

Loss = Callable[[Tensor, Tensor], Tensor]


def published(first: Tensor, second: Tensor) -> Tensor:
    """Return the loss by its equations, 25 s + 25 v + c with the mean of v and the sum of c over the views."""
    rows, width = first.shape
    total = 25 * (first - second).square().mean()
    diagonal = torch.eye(width, dtype=torch.bool)
    for z in (first, second):
        centred = z - z.mean(dim=0)
        deviation = (centred.var(dim=0) + 1e-4).sqrt()
        matrix = centred.t() @ centred / (rows - 1)
        total = total + 25 * torch.relu(1 - deviation).mean() / 2
        total = total + matrix.masked_fill(diagonal, 0.0).square().sum() / width
    return total


def ours(first: Tensor, second: Tensor) -> Tensor:
    """Return the same by `VICRegLoss`."""
    return VICRegLoss()(first, second).total


LOSSES: dict[str, Loss] = {"poise": ours, "published": published}


def measure(rounds: int) -> dict[str, Any]:
    """Return seconds and peak bytes of each loss at each shape, and of the whole step with each."""
    return {
        "rule": RULE,
        "rounds": rounds,
        "losses": [_loss(*shape, rounds) for shape in SHAPES],
        "step": _step(rounds),
    }


def _loss(batch: int, width: int, rounds: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(batch, width, generator=generator).requires_grad_() for _ in range(2)]

    def call(loss: Loss) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss(*views), views)

    return {
        "batch": batch,
        "width": width,
        **_compared({name: partial(call, loss) for name, loss in LOSSES.items()}, rounds),
    }


def _step(rounds: int) -> dict[str, Any]:
    batch, features, width = STEP
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    sizes = (features, width, width)
    layers = [
        layer
        for a, b in zip(sizes, (width, width), strict=False)
        for layer in (nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU())
    ]
    expander = nn.Sequential(*layers, nn.Linear(width, width, bias=False))
    x = [torch.randn(batch, features, generator=generator) for _ in range(2)]
    parameters = list(expander.parameters())

    def call(loss: Loss) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss(expander(x[0]), expander(x[1])), parameters)

    return {
        "batch": batch,
        "width": width,
        **_compared({name: partial(call, loss) for name, loss in LOSSES.items()}, rounds),
    }


def _compared(calls: dict[str, Call], rounds: int) -> dict[str, Any]:
    seconds = alternate(calls, rounds)
    found: dict[str, Any] = {}
    for name, call in calls.items():
        live = LiveBytes(0, within=True)
        with live:
            call()
        found[name] = {"seconds": statistics.median(seconds[name]), "peak_bytes": live.peak}
    found["speed_up"] = found["published"]["seconds"] / found["poise"]["seconds"]
    found["bytes_ratio"] = found["poise"]["peak_bytes"] / found["published"]["peak_bytes"]
    return found


def table(content: dict[str, Any]) -> str:
    """Return one line a shape, and the whole step."""

    def line(name: str, entry: dict[str, Any]) -> list[str]:
        return [
            name,
            f"{1e3 * entry['poise']['seconds']:,.0f}",
            f"{1e3 * entry['published']['seconds']:,.0f}",
            f"{entry['speed_up']:.1f}",
            f"{entry['poise']['peak_bytes'] / 2**20:,.0f}",
            f"{entry['published']['peak_bytes'] / 2**20:,.0f}",
        ]

    lines = [line(f"loss, {entry['batch']} x {entry['width']}", entry) for entry in content["losses"]]
    lines.append(line(f"step, {content['step']['batch']} x {content['step']['width']}", content["step"]))
    header = ["", "poise, ms", "published, ms", "times faster", "poise, MiB", "published, MiB"]
    return markdown(header, lines, numbers=range(1, 6))


def main() -> None:
    options = command.parser(__doc__, "vicreg", rounds=3).parse_args()
    command.run(
        options, partial(measure, options.rounds), table, lambda content: (content["rule"], table(content)), peer=False
    )


if __name__ == "__main__":
    main()
