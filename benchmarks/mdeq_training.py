"""What does it cost to train multiscale DEQ on a picture, beside explicit networks of as many parameters?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.results import markdown
from benchmarks.timing import alternate
from poise import Implicit, JacobianFree, Phantom, Picard
from poise.fixed_point import Adjoint, Solver
from poise.models import MDEQ, MultiscaleNet, resnet18
from poise.models.mdeq import ADJOINT, PRESETS, SOLVER
from poise.nn import jacobian_penalty

BATCH, SIDE, CLASSES = 64, 32, 10
PENALTY_WEIGHT = 0.4
# How often the penalty is applied as published: multiscale DEQ on CIFAR-10, the transformer on WikiText-103.
FREQUENCIES = (0.02, 0.35)
SHARES = (*FREQUENCIES, 1.0)
PEER = "MultiscaleNet, 4 layers"
LIMIT = 2.0
RULE = (
    f"Milliseconds of CPU time a picture: forward, loss and backward on {BATCH} pictures of {SIDE}x{SIDE}, {CLASSES} "
    "classes, float32, channels-last, one thread, no optimiser, freed memory kept by the process as `poise train` has "
    "it; the median of rounds in which all alternate. MDEQ is "
    "the preset tiny with 8 evaluations of its cell in the forward, those that Phantom and JacobianFree record among "
    "them. The peer has the same stem, channels and heads and as many parameters, in four layers of expansion 1. "
    "Dropout is off, since a mask costs what a convolution does and the peer draws four times as many; the last column "
    f"has the preset's, without the penalty. Penalty: {PENALTY_WEIGHT} times the Jacobian penalty, one draw, at the "
    "state without its graph; at a frequency, its expected cost: "
    f"{FREQUENCIES[0]} was published for CIFAR-10, {FREQUENCIES[1]} for WikiText-103. Limit: {LIMIT:g} times the peer."
)


@dataclass(frozen=True)
class Variant:
    """A gradient, and the evaluations of the solve before it."""

    name: str
    adjoint: Adjoint
    evaluations: int
    plain: bool = False  # Picard's iteration in place of Anderson's

    def build(self, dropout: float) -> MDEQ:
        """Return the network of the preset."""
        chosen: Solver = Picard() if self.plain else SOLVER
        solver = replace(chosen, rtol=None, max_steps=self.evaluations)
        shape = replace(PRESETS["tiny"], dropout=dropout)
        return MDEQ(shape, classes=CLASSES, solver=solver, adjoint=self.adjoint)


VARIANTS = (
    Variant("JacobianFree(), 7 + 1", JacobianFree(), 7),
    Variant("JacobianFree(), Picard, 7 + 1", JacobianFree(), 7, plain=True),
    Variant("Phantom(2), 6 + 2", Phantom(2), 6),
    Variant("Phantom(3), 5 + 3", Phantom(3), 5),
    Variant("Phantom(2, form='neumann'), 7 + 1", Phantom(2, form="neumann"), 7),
    Variant("Phantom(3, form='neumann'), 7 + 1", Phantom(3, form="neumann"), 7),
    Variant("Implicit(), 8", ADJOINT, 8),
)


def explicit(dropout: float) -> dict[str, nn.Module]:
    """Return the explicit networks by name."""
    shape = replace(PRESETS["tiny"], expansion=1, dropout=dropout)
    return {
        PEER: MultiscaleNet(shape, layers=4, classes=CLASSES),
        "ResNet-18, width 8": resnet18(width=8, stem="cifar", n_classes=CLASSES),
    }


def step(network: nn.Module, x: Tensor, labels: Tensor, *, penalised: bool = False) -> Callable[[], None]:
    """Return forward and backward of one training step; `penalised`: with the Jacobian penalty of an `MDEQ`."""

    def run() -> None:
        network.zero_grad()
        if isinstance(network, MDEQ):
            solution = network.solve(x)
            logits = network.heads(solution.state, x.shape[-2:]).classes
            assert logits is not None
            loss = F.cross_entropy(logits, labels)
            if penalised:
                state = tuple(part.detach() for part in solution.state)
                penalty = jacobian_penalty(network.equilibrium.cell, state, solution.context)
                loss = loss + PENALTY_WEIGHT * penalty
        else:
            loss = F.cross_entropy(network.classify(x) if isinstance(network, MultiscaleNet) else network(x), labels)
        loss.backward()

    return run


def measure(rounds: int) -> dict[str, Any]:
    """Time every network without dropout, and its plain step with that of the preset; return one entry each."""
    medians, networks = _timed(rounds, 0.0)
    found = [_entry(name, network, medians) for name, network in networks.items()]
    dropped, _ = _timed(rounds, PRESETS["tiny"].dropout, penalised=False)
    for entry in found:
        entry["ratio_with_dropout"] = round(dropped[entry["network"]] / dropped[PEER], 3)
    return {"rule": RULE, "networks": found}


def _timed(rounds: int, dropout: float, *, penalised: bool = True) -> tuple[dict[str, float], dict[str, nn.Module]]:
    """Return the median seconds of every call, and the networks."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = {variant.name: variant.build(dropout) for variant in VARIANTS} | explicit(dropout)
        x = torch.randn(BATCH, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
        labels = torch.randint(CLASSES, (BATCH,))
        calls = {}
        for name, network in networks.items():
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            calls[name] = step(network, x, labels)
            if penalised and isinstance(network, MDEQ):
                calls[f"{name}, penalised"] = step(network, x, labels, penalised=True)
        found = alternate(calls, rounds)
    return {name: statistics.median(times) for name, times in found.items()}, networks


def _entry(name: str, network: nn.Module, medians: dict[str, float]) -> dict[str, Any]:
    peer, seconds = medians[PEER], medians[name]
    always = medians.get(f"{name}, penalised")
    products = None
    if isinstance(network, MDEQ) and isinstance(network.equilibrium.adjoint, Implicit):
        products = network.equilibrium.counters.backward.mean_evaluations
    return {
        "network": name,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "backward_products": products,
        "milliseconds": round(1e3 * seconds / BATCH, 3),
        "ratio": round(seconds / peer, 3),
        "ratio_penalised": None
        if always is None
        else {str(share): round((seconds + share * (always - seconds)) / peer, 3) for share in SHARES},
    }


def table(content: dict[str, Any]) -> str:
    """Return the times as a Markdown table."""

    def line(entry: dict[str, Any]) -> list[str]:
        ratios = [f"{entry['ratio']:.2f}"]
        found = entry["ratio_penalised"]
        ratios += ["" if found is None else f"{found[str(share)]:.2f}" for share in SHARES]
        figures = [f"{entry['parameters']:,}", f"{entry['milliseconds']:.2f}", *ratios]
        return [entry["network"], *figures, f"{entry['ratio_with_dropout']:.2f}"]

    penalties = [f"penalty at {share:g}" for share in FREQUENCIES]
    header = ["network", "parameters", "ms a picture", "times the peer", *penalties, "at every step"]
    header.append("with dropout")
    return markdown(header, map(line, content["networks"]), numbers=range(1, len(header)))


def verdict(content: dict[str, Any]) -> str:
    """Say which gradients stay within the limit, at which frequency of the penalty."""
    said = []
    for share in map(str, SHARES):
        within = [
            entry["network"].rpartition(", ")[0]
            for entry in content["networks"]
            if (entry["ratio_penalised"] or {}).get(share, math.inf) <= LIMIT
        ]
        said.append(f"at frequency {share}, {' and '.join(within) or 'none'}")
    dropped = [
        f"{entry['network'].rpartition(', ')[0]} {entry['ratio_with_dropout']:.2f}"
        for entry in content["networks"]
        if entry["ratio_penalised"] and entry["ratio_with_dropout"] <= LIMIT
    ]
    return (
        f"Within {LIMIT:g} times the peer with the penalty and without dropout: {'; '.join(said)}. "
        f"With dropout and without the penalty: {', '.join(dropped) or 'none'}."
    )
