"""What does a training step hold for its backward, at which effective depth, and how long does it take?

`python -m benchmarks.memory [--markdown] [--json FILE]` (about a minute on one thread)
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import command
from benchmarks.results import markdown
from poise import Implicit, Phantom, Picard, Unrolled
from poise.fixed_point import Adjoint
from poise.models import DEQTransformer
from poise.nn import activation_bytes

BATCH, LENGTH, VOCABULARY = 12, 64, 65
RULE = (
    "A DEQ-Transformer on characters (width 180, 6 heads, 2 layers in the tied block) at its "
    f"initial weights, {BATCH} x {LENGTH} tokens, float32, Picard at a fixed budget of evaluations. Block: bytes of "
    "the distinct storages that the equilibrium block saves for the backward, its parameters and its input left out. "
    "Step: the same of embedding, block, head and loss, parameters left out. Seconds: CPU time of forward and backward "
    "of the whole step on one thread, the median of rounds in which the variants alternate."
)


@dataclass(frozen=True)
class Variant:
    """An adjoint at a budget of evaluations; Phantom records its own steps after them."""

    name: str
    adjoint: Adjoint
    evaluations: int


VARIANTS = (
    Variant("Implicit()", Implicit(), 4),
    Variant("Implicit()", Implicit(), 12),
    Variant("Implicit()", Implicit(), 40),
    Variant("Phantom(2)", Phantom(2), 12),
    Variant("Unrolled()", Unrolled(), 4),
    Variant("Unrolled()", Unrolled(), 12),
    Variant("Unrolled()", Unrolled(), 40),
    Variant("Unrolled(checkpoint=True)", Unrolled(checkpoint=True), 12),
)


@dataclass(frozen=True)
class Step:
    """One training step of the language model without its optimiser."""

    model: DEQTransformer
    tokens: Tensor
    targets: Tensor

    @staticmethod
    def of(variant: Variant) -> Step:
        """Build the model, the same weights and tokens for every variant."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            solver = Picard(rtol=None, max_steps=variant.evaluations, scope="prefix")
            model = DEQTransformer(VOCABULARY, 180, 6, n_layers=2, solver=solver, adjoint=variant.adjoint)
            tokens = torch.randint(VOCABULARY, (BATCH, LENGTH + 1))
        return Step(model, tokens[:, :-1], tokens[:, 1:])

    def loss(self) -> Tensor:
        """Return the mean cross entropy."""
        return F.cross_entropy(self.model(self.tokens).flatten(0, 1), self.targets.flatten())

    def run(self) -> None:
        """Run forward and backward."""
        self.model.zero_grad()
        self.loss().backward()

    def block_bytes(self) -> int:
        """Return the bytes that the equilibrium block holds."""
        x = self.model.embedding(self.tokens).detach().requires_grad_()
        return activation_bytes(lambda: self.model.equilibrium(x), exclude=[x, *self.model.parameters()])

    def step_bytes(self) -> int:
        """Return the bytes that the whole step holds."""
        return activation_bytes(self.loss, exclude=self.model.parameters())


def measure(rounds: int = 9) -> dict[str, Any]:
    """Measure every variant and return the result."""
    steps = [Step.of(variant) for variant in VARIANTS]
    seconds: list[list[float]] = [[] for _ in steps]
    for step in steps:
        step.run()  # warm
    for _ in range(rounds):
        for step, times in zip(steps, seconds, strict=True):
            start = time.process_time()
            step.run()
            times.append(time.process_time() - start)
    found: list[dict[str, Any]] = []
    for variant, step, times in zip(VARIANTS, steps, seconds, strict=True):
        implicit = isinstance(variant.adjoint, Implicit)
        found.append(
            {
                "adjoint": variant.name,
                "evaluations": variant.evaluations,
                "backward_products": step.model.equilibrium.counters.backward.mean_evaluations if implicit else None,
                "block_bytes": step.block_bytes(),
                "step_bytes": step.step_bytes(),
                "cpu_seconds": round(statistics.median(times), 4),
                "fastest_cpu_seconds": round(min(times), 4),
            }
        )
    reference = _entry(found, "Unrolled()", 12)["block_bytes"]
    for entry in found:
        entry["share_of_unrolled_12"] = round(entry["block_bytes"] / reference, 4)
    return {"rule": RULE, "rounds": rounds, "variants": found}


def _entry(found: list[dict[str, Any]], adjoint: str, evaluations: int) -> dict[str, Any]:
    return next(entry for entry in found if (entry["adjoint"], entry["evaluations"]) == (adjoint, evaluations))


def table(content: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""

    def line(entry: dict[str, Any]) -> list[str]:
        block, step = (f"{entry[key] / 1e6:.1f}" for key in ("block_bytes", "step_bytes"))
        share = f"{100 * entry['share_of_unrolled_12']:.1f} %"
        return [entry["adjoint"], str(entry["evaluations"]), block, share, step, f"{1e3 * entry['cpu_seconds']:.0f}"]

    header = ["adjoint", "evaluations", "block, MB", "of 12 unrolled", "whole step, MB", "CPU, ms"]
    return markdown(header, map(line, content["variants"]), numbers=range(1, 6))


def report(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the rule, the table and what the implicit gradient holds."""
    held = _entry(content["variants"], "Implicit()", 12)
    ratio = f"Implicit() holds {100 * held['share_of_unrolled_12']:.1f} % of the block unrolled 12 times."
    return RULE, table(content), ratio


def main() -> None:
    options = command.parser(__doc__, "memory", rounds=9).parse_args()
    command.run(options, partial(measure, options.rounds), table, report, peer=False)


if __name__ == "__main__":
    main()
