"""What does training the block of an equilibrium language model cost beside its explicit peer, and what does it hold?

`python -m benchmarks.language_costs DEQ_RUN EXPLICIT_RUN [DEQ_RUN EXPLICIT_RUN ...] [--markdown] [--json FILE]` (runs
of `poise train language`; minutes)
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import command
from benchmarks.results import markdown
from benchmarks.runs import opened
from benchmarks.timing import alternate
from poise import Picard, Unrolled
from poise.configs.base import RegularizationConfig
from poise.nn import activation_bytes
from poise.tasks.language import LanguageTask
from poise.tasks.regularization import observed, penalty, solving
from poise.tasks.solving import equilibria

UNROLLED = 12  # evaluations of the network that the held bytes are compared with
TIME_LIMIT, BYTES_LIMIT, SHARE_LIMIT = 1.6, 0.12, 0.1
RULE = (
    "Milliseconds of CPU time of one training batch of the run, its weights trained, one thread, the median of rounds "
    "in which all alternate. Block: forward and backward from the embedded tokens to what the head reads, the Jacobian "
    "penalty among it at its expected cost (its frequency in the run). Vocabulary: embedding, head and loss, forward "
    "and backward. Held: bytes that the block keeps for the backward, parameters left out, and as a part of those of "
    f"the cell unrolled {UNROLLED} times. Limits: {TIME_LIMIT:g} times the peer's block, {BYTES_LIMIT:.0%} of the "
    f"unrolled, {SHARE_LIMIT:.0%} of a step for the penalty."
)


class Given(nn.Module):
    """Stands in for an embedding: returns what it was given."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the features, whatever the tokens."""
        return self.x


class Timed:
    """One run: its block and its vocabulary as calls on a training batch, where streams have a past already."""

    def __init__(self, run: Path) -> None:
        self.task: LanguageTask = opened(run)
        self.task.train()
        model: Any = self.task.model
        self.model = model
        self.memory = self.task.config.data.memory
        self.inputs, self.targets, _ = self.task.training_batch(1)
        with torch.no_grad():
            _, past = model.read(self.task.training_batch(0)[0], None, self.memory)
            self.past: Any = past if self.memory else None
            self.features, _ = model.read(self.inputs, self.past, self.memory)
            self.x = model.embedding(self.inputs)
        generator = torch.Generator().manual_seed(0)
        self.cotangents = [torch.randn(part.shape, generator=generator) for part in (self.features, self.x)]

    @contextmanager
    def embedded(self) -> Iterator[Tensor]:
        """Have the network read features that are embedded already."""
        vocabulary, x = self.model.embedding, self.x.clone().requires_grad_()
        self.model.embedding = Given(x)
        try:
            yield x
        finally:
            self.model.embedding = vocabulary

    def read(self) -> Tensor:
        """Return what the head reads."""
        return self.model.read(self.inputs, self.past, self.memory)[0]

    def block(self, penalised: bool = False) -> None:
        """Forward and backward of the hidden layers."""
        self.model.zero_grad()
        with self.embedded(), observed(self.model) as solves:
            features = self.read()
            loss = (features * self.cotangents[0]).sum()
            if penalised:
                always = self.task.config.regularization
                added = penalty(solves, _every_step(always), 0.0, torch.Generator())
                assert added is not None
                loss = loss + added
            loss.backward()

    def vocabulary(self) -> None:
        """Forward and backward of embedding, head and loss."""
        self.model.zero_grad()
        features = self.features.clone().requires_grad_()
        self.model.losses(features, self.targets).mean().backward()
        self.model.embedding(self.inputs).backward(self.cotangents[1])

    def held(self) -> int:
        """Return the bytes that the hidden layers hold for the backward."""
        with self.embedded() as x:
            return activation_bytes(self.read, [x, *self.model.parameters()])


def _every_step(regularization: RegularizationConfig) -> RegularizationConfig:
    return replace(regularization, jacobian_weight=1.0, jacobian_frequency=1.0, jacobian_final_weight=None)


def measure(runs: list[tuple[Path, Path]], rounds: int) -> dict[str, Any]:
    """Measure pairs of runs and return the result."""
    return {"rule": RULE, "pairs": [_pair(Timed(deq), Timed(explicit), rounds) for deq, explicit in runs]}


@dataclass(frozen=True)
class Step:
    """What a mean training step of an equilibrium costs, in milliseconds: block and vocabulary, beside other calls."""

    plain: float  # the block without the penalty
    added: float  # by the penalty, at a step that adds it
    frequency: float
    vocabulary: float
    others: dict[str, float]

    @property
    def block(self) -> float:
        """The block with the penalty at its expected cost."""
        return self.plain + self.frequency * self.added

    @property
    def penalty_share(self) -> float:
        """The part of the step that the penalty takes."""
        return self.frequency * self.added / (self.block + self.vocabulary)


def step_of(deq: Timed, rounds: int, **others: Callable[[], None]) -> Step:
    """Time a step of an equilibrium, alternating with other calls."""
    calls: dict[str, Callable[[], None]] = {
        "plain": deq.block,
        "penalised": partial(deq.block, penalised=True),
        "vocabulary": deq.vocabulary,
        **others,
    }
    medians = {name: 1e3 * statistics.median(times) for name, times in alternate(calls, rounds).items()}
    settings = deq.task.config.regularization
    return Step(
        medians["plain"],
        medians["penalised"] - medians["plain"],
        settings.jacobian_frequency if settings.jacobian_weight else 0.0,
        medians["vocabulary"],
        {name: medians[name] for name in others},
    )


def _pair(deq: Timed, explicit: Timed, rounds: int) -> dict[str, Any]:
    step = step_of(deq, rounds, block=explicit.block, explicit_vocabulary=explicit.vocabulary)
    (layer,) = equilibria(deq.model)
    with solving(layer, Picard(rtol=None, max_steps=UNROLLED, scope=layer.solver.scope), Unrolled()):
        unrolled = deq.held()
    networks = [
        _entry(deq, step.block, step.vocabulary)
        | {
            "block_without_penalty_milliseconds": round(step.plain, 2),
            "penalty_milliseconds": round(step.added, 2),
            "penalty_frequency": step.frequency,
            "penalty_share_of_step": round(step.penalty_share, 4),
            "held_of_unrolled": round(deq.held() / unrolled, 4),
        },
        _entry(explicit, step.others["block"], step.others["explicit_vocabulary"]),
    ]
    return {"networks": networks, "block_over_explicit": round(step.block / step.others["block"], 3)}


def _entry(timed: Timed, block: float, vocabulary: float) -> dict[str, Any]:
    hidden = [weight for name, weight in timed.model.named_parameters() if not name.startswith("embedding.")]
    return {
        "network": type(timed.model).__name__,
        "recipe": timed.task.config.recipe,
        "batch_tokens": timed.inputs.numel(),
        "parameters": sum(weight.numel() for weight in timed.model.parameters()),
        "block_parameters": sum(weight.numel() for weight in hidden),
        "block_milliseconds": round(block, 2),
        "vocabulary_milliseconds": round(vocabulary, 2),
        "held_bytes": timed.held(),
    }


def table(content: dict[str, Any]) -> str:
    """Return the costs as a Markdown table."""
    rows = []
    for pair in content["pairs"]:
        for entry in pair["networks"]:
            deq = "held_of_unrolled" in entry
            rows.append(
                [
                    entry["network"],
                    str(entry["recipe"]),
                    f"{entry['block_parameters']:,}",
                    f"{entry['block_milliseconds']:.0f}",
                    f"{pair['block_over_explicit']:.2f}" if deq else "1",
                    f"{entry['vocabulary_milliseconds']:.0f}",
                    f"{entry['held_bytes'] / 1e6:.1f}",
                    f"{entry['held_of_unrolled']:.1%}" if deq else "",
                    f"{entry['penalty_share_of_step']:.1%}" if deq else "",
                ]
            )
    header = ["network", "recipe", "block's parameters", "block, ms", "ratio", "vocabulary, ms", "held, MB"]
    return markdown([*header, f"of {UNROLLED} unrolled", "penalty"], rows, numbers=range(2, 9))


def report(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the rule and the table."""
    return RULE, table(content)


def main() -> None:
    parser = command.parser(__doc__, "language_costs", rounds=11)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="an equilibrium, then its peer")
    options = parser.parse_args()
    if len(options.runs) % 2:
        parser.error(f"{len(options.runs)} runs are no pairs; pass an explicit run after each equilibrium's.")
    pairs = list(zip(options.runs[::2], options.runs[1::2], strict=True))
    command.run(options, partial(measure, pairs, options.rounds), table, report, peer=False)


if __name__ == "__main__":
    main()
