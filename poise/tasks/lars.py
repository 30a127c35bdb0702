"""LARS: momentum whose step is scaled, matrix by matrix, to the size of the weights it moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class LARS(Optimizer):
    """v <- momentum v + q (g + weight_decay w), w <- w - lr v, with q = trust_coefficient |w| / |g + weight_decay w|.

    `named_parameters`: as a module's method of that name returns them. `excluded`: names of those that have neither
    decay nor scaling (q = 1); None excludes what has one dimension or none, as biases and norms. Where |w| or the
    denominator is zero, q is 1. The names are kept in the optimiser's state, so that it is saved and loaded as plain
    values.

    You, Gitman and Ginsburg (2017), "Large batch training of convolutional networks", algorithm 1; momentum after the
    scaling and excluded weights as in Bardes, Ponce and LeCun (2022).
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        trust_coefficient: float = 1e-3,
        excluded: Iterable[str] | None = None,
    ) -> None:
        given = list(named_parameters)
        if not lr >= 0 or not weight_decay >= 0 or not trust_coefficient > 0 or not 0 <= momentum < 1:
            raise ValueError(
                f"LARS(lr={lr}, momentum={momentum}, weight_decay={weight_decay}, trust_coefficient="
                f"{trust_coefficient}) does not descend; pass lr and weight_decay of at least 0, a momentum in [0, 1) "
                "and a trust_coefficient above 0."
            )
        names = [name for name, weight in given if weight.ndim <= 1] if excluded is None else list(excluded)
        unknown = sorted(set(names) - {name for name, _ in given})
        if unknown:
            raise ValueError(f"excluded names {unknown[0]!r}, which is no parameter; pass names of named_parameters().")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "excluded": names,
        }
        super().__init__(given, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move all weights that have a gradient once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            excluded = set(group["excluded"])
            for name, weight in zip(group["param_names"], group["params"], strict=True):
                if weight.grad is None:
                    continue
                update = weight.grad if name in excluded else _scaled(group, weight, weight.grad)
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].mul_(group["momentum"]).add_(update)
                weight.sub_(state["momentum"], alpha=group["lr"])
        return loss


def _scaled(group: dict[str, Any], weight: Tensor, gradient: Tensor) -> Tensor:
    """Return q (g + weight_decay w), without a wait for the device."""
    update = gradient.add(weight, alpha=group["weight_decay"])
    size, length = torch.linalg.vector_norm(weight), torch.linalg.vector_norm(update)
    ratio = group["trust_coefficient"] * size / length
    return update * torch.where((size > 0) & (length > 0), ratio, 1.0)
