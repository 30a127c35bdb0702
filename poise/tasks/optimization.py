"""What moves the weights: Muon for matrices with AdamW for the rest, or what else is named, and its schedule."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from poise.configs.base import OptimizerConfig
from poise.nn.stacked import StackedLinear
from poise.tasks.lars import LARS

# Jordan et al. (2024): a quintic that takes singular values to 0.7 .. 1.2 in five steps.
QUINTIC = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
SAMPLES = 256  # a step, for which steps are given where they grow with the batch


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """Return the optimizer that the settings name, over all weights that want a gradient."""
    if config.name == "lars":
        return LARS(
            [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad],
            config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            trust_coefficient=config.trust_coefficient,
        )
    matrices, rest = split_parameters(model)
    adamw = {"lr": config.lr, "betas": config.betas, "eps": config.eps, "weight_decay": config.weight_decay}
    if config.name == "adamw":
        return AdamW([*matrices, *rest], **adamw)  # type: ignore[arg-type]
    muon = {
        "lr": config.matrix_lr,
        "momentum": config.momentum,
        "weight_decay": config.matrix_weight_decay,
        "orthogonal": True,
        "maps": maps_of(model, matrices),
    }
    groups = [{"params": matrices, **muon}, {"params": rest, **adamw, "orthogonal": False}]
    return Muon([group for group in groups if group["params"]])


def scaled_to_batch(config: OptimizerConfig, samples: int) -> OptimizerConfig:
    """Return the settings with the steps for so many samples, where they are asked to grow with the batch."""
    if config.lr_scaling == "none":
        return config
    factor = samples / SAMPLES
    return replace(config, lr=config.lr * factor, matrix_lr=config.matrix_lr * factor, lr_scaling="none")


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the matrices that map hidden features to hidden features, and all other weights.

    Tables, which have rows for tokens or classes, go with the rest, as norms and biases do. A convolution's kernel
    counts as the matrix from its patch to its output. What has one row or one column is no matrix: the lengths that
    weight normalisation keeps, (features, 1, 1, 1), are gains.
    """
    tables = {id(weight) for name, module in model.named_modules() for weight in _tables(name, module)}
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    matrices = [weight for weight in weights if _is_matrix(weight) and id(weight) not in tables]
    chosen = {id(weight) for weight in matrices}
    return matrices, [weight for weight in weights if id(weight) not in chosen]


def maps_of(model: nn.Module, weights: Iterable[Tensor]) -> list[int]:
    """Return how many matrices, below each other, each weight holds: those of queries, keys and values are three."""
    stacked = {
        id(weight): module.maps
        for module in model.modules()
        if isinstance(module, StackedLinear)
        for weight in module.parameters()
    }
    return [stacked.get(id(weight), 1) for weight in weights]


def _tables(name: str, module: nn.Module) -> Iterator[Tensor]:
    """Yield the weights of an embedding, of a module called `head`, and of the clusters of an adaptive softmax."""
    if isinstance(module, nn.Embedding) or name.rpartition(".")[2] == "head":
        yield from module.parameters()
    elif isinstance(module, nn.AdaptiveLogSoftmaxWithLoss):
        yield from module.head.parameters()
        for cluster in module.tail:
            _, table = cluster.parameters()  # what comes before it maps features to features
            yield table


def _is_matrix(weight: Tensor) -> bool:
    return weight.ndim >= 2 and len(weight) > 1 and weight[0].numel() > 1


def warmup_cosine(optimizer: Optimizer, config: OptimizerConfig, max_steps: int) -> LambdaLR:
    """Return the schedule of all groups: linear warm-up, then a cosine to `final_lr_ratio` at the last step."""

    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        progress = min(1.0, (step - config.warmup_steps) / max(1, max_steps - config.warmup_steps))
        floor = config.final_lr_ratio
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


class Muon(Optimizer):
    """Muon on the groups that are marked `orthogonal`, AdamW on the others, in one optimizer with plain state.

    A matrix moves by the orthogonalised Nesterov momentum of its gradient, times max(1, rows / columns) ** 0.5, with
    decoupled weight decay. A group's `maps` says how many matrices each of its weights holds, below each other; each is
    orthogonalised by itself. Keller Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks".
    `torch.optim.Muon` orthogonalises in bfloat16, which is 17 times slower on a CPU; here it happens in float32.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        defaults = {
            "lr": 0.02,
            "momentum": 0.95,
            "weight_decay": 0.0,
            "betas": (0.9, 0.95),
            "eps": 1e-8,
            "orthogonal": True,
            "maps": None,  # one matrix a weight
        }
        super().__init__(groups, defaults)
        for group in self.param_groups:
            maps, weights = group["maps"], group["params"]
            if maps is None:
                continue
            if len(maps) != len(weights) or any(len(w) % n for w, n in zip(weights, maps, strict=True)):
                rows = [len(weight) for weight in weights]
                raise ValueError(
                    f"maps={maps} cannot be of weights with {rows} rows; pass one number for each, a divisor."
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move all weights that have a gradient once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["orthogonal"]:
                self._orthogonal_step(group)
            else:
                for weight in group["params"]:
                    if weight.grad is not None:
                        self._adamw_step(group, weight)
        return loss

    def _orthogonal_step(self, group: dict[str, Any]) -> None:
        decay, momentum = 1 - group["lr"] * group["weight_decay"], group["momentum"]
        batches: dict[tuple[Any, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for weight, maps in zip(group["params"], group.get("maps") or [1] * len(group["params"]), strict=True):
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            state["momentum"].lerp_(weight.grad, 1 - momentum)
            moved = torch.lerp(weight.grad, state["momentum"], momentum)
            for matrix, update in zip(weight.chunk(maps), moved.flatten(1).float().chunk(maps), strict=True):
                wide = update if update.shape[0] <= update.shape[1] else update.mT
                batches[(*wide.shape, wide.device)].append((matrix, update))
        # Matrices of one shape, tall ones turned, are orthogonalised in one batch of products.
        for (rows, *_), pairs in batches.items():
            wide = torch.stack([update if update.shape[0] == rows else update.mT for _, update in pairs])
            for (matrix, update), direction in zip(pairs, orthogonalise(wide), strict=True):
                turned = direction if update.shape[0] == rows else direction.mT
                scale = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                matrix.mul_(decay).sub_(turned.reshape(matrix.shape).to(matrix.dtype), alpha=group["lr"] * scale)

    def _adamw_step(self, group: dict[str, Any], weight: Tensor) -> None:
        """Kingma and Ba (2015) with the decoupled decay of Loshchilov and Hutter (2019)."""
        gradient = weight.grad
        assert gradient is not None
        state = self.state[weight]
        if not state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["step"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        size = (state["square"] / (1 - second ** state["step"])).sqrt_().add_(group["eps"])
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.addcdiv_(state["mean"], size, value=-group["lr"] / (1 - first ** state["step"]))


def orthogonalise(matrices: Tensor) -> Tensor:
    """Return float32 matrices (batch, rows, columns), rows <= columns, with singular values near 1.

    The iteration X <- (a I + b X X^T + c (X X^T)^2) X only ever multiplies X from the left, so its factors are gathered
    among the small square matrices and applied once: 28 instead of 45 products of rows^3 where columns are 4 rows.
    """
    a, b, c = QUINTIC
    x = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-7)
    if x.shape[1] * 2 > x.shape[2]:  # nearly square: the plain iteration has fewer products
        for _ in range(NEWTON_SCHULZ_STEPS):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x
    gram = x @ x.mT
    factor: Tensor | None = None
    for step in range(NEWTON_SCHULZ_STEPS):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=-2, dim2=-1).add_(a)
        factor = polynomial if factor is None else polynomial @ factor
        if step < NEWTON_SCHULZ_STEPS - 1:
            gram = polynomial @ gram @ polynomial
    assert factor is not None
    return factor @ x
