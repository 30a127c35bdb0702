"""What does a cache of equilibria buy in decoding, and does it change the answer?

`python -m benchmarks.decoding --run RUN [--markdown] [--json FILE]` (a run of `poise train language`; a minute)
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import command
from benchmarks.results import markdown
from benchmarks.runs import opened
from benchmarks.timing import alternate
from poise.models import stream
from poise.tasks.language import LanguageTask

PLACES = (64, 128, 256, 512)
COMPARED, TOLERANCE = 256, 1e-6
FLATNESS_LIMIT, SPEEDUP_LIMIT, DIFFERENCE_LIMIT = 1.5, 10.0, 1e-4
RULE = (
    "Milliseconds of CPU time for the next token after so many, one text that the model wrote itself, one thread, the "
    "run's own solver of validation; the median of rounds in which all alternate. Cached: the new position is solved "
    "for against keys and values of the equilibria before it. Whole: all positions are solved for again. Logits: the "
    f"largest difference between the two over {COMPARED} tokens, float32, both at rtol {TOLERANCE:g}. Every position "
    f"sees all before it. Limits: {FLATNESS_LIMIT:g} from {PLACES[0]} to {PLACES[-1]}, {SPEEDUP_LIMIT:g} times at "
    f"{PLACES[-1]}, {DIFFERENCE_LIMIT:g}."
)


@torch.no_grad()
def measure(run: Path, rounds: int, places: tuple[int, ...] = PLACES, compared: int = COMPARED) -> dict[str, Any]:
    """Measure a run and return the result."""
    task = opened(run)
    model: Any = task.model.eval()
    text = written(model, max(*places, compared) + 1)
    calls, evaluations = {}, {}
    for place in places:
        _, past = model.decode(text[:, :place])
        calls[f"cached {place}"] = partial(model.decode, text[:, place : place + 1], past)
        calls[f"whole {place}"] = partial(model, text[:, : place + 1])
    counters = getattr(getattr(model, "equilibrium", None), "counters", None)
    for name, call in calls.items():
        before = counters.forward.evaluations if counters else 0
        call()
        evaluations[name] = counters.forward.evaluations - before if counters else None
    medians = {name: statistics.median(times) for name, times in alternate(calls, rounds).items()}
    rows: list[dict[str, Any]] = [
        {
            "tokens_before": place,
            "cached_milliseconds": round(1e3 * medians[f"cached {place}"], 3),
            "whole_milliseconds": round(1e3 * medians[f"whole {place}"], 3),
            "cached_evaluations": evaluations[f"cached {place}"],
            "whole_evaluations": evaluations[f"whole {place}"],
        }
        for place in places
    ]
    first, last = rows[0], rows[-1]
    return {
        "rule": RULE,
        "model": task.identity() | {"parameters": sum(parameter.numel() for parameter in model.parameters())},
        "rows": rows,
        "flatness_512_over_64": round(last["cached_milliseconds"] / first["cached_milliseconds"], 3),
        "speedup_at_512": round(last["whole_milliseconds"] / last["cached_milliseconds"], 2),
        "largest_logit_difference": largest_difference(task, text[:, :compared]),
    }


def written(model: Any, length: int) -> Tensor:
    """Return so many tokens (1, length) that a model writes after its first one."""
    prompt = torch.zeros((1, 1), dtype=torch.long)
    tokens = list(stream(model, prompt, length - 1, generator=torch.Generator().manual_seed(0)))
    return torch.cat([prompt, torch.stack(tokens, dim=1)], dim=1)


@torch.no_grad()
def largest_difference(task: LanguageTask, text: Tensor) -> float:
    """Return how far the logits of token-by-token decoding are from those of one solve, at a small tolerance."""
    model: Any = task.model
    layer = getattr(model, "equilibrium", None)
    if layer is not None:
        layer.eval_solver = replace(layer.solver_in_use, rtol=TOLERANCE, max_steps=200)
    whole, past, largest = model(text), None, 0.0
    for place in range(text.shape[1]):
        state, past = model.decode(text[:, place : place + 1], past)
        largest = max(largest, float((model.head(state)[:, 0] - whole[:, place]).abs().max()))
    return largest


def table(content: dict[str, Any]) -> str:
    """Return the times as a Markdown table."""
    rows = [
        [
            str(row["tokens_before"]),
            f"{row['cached_milliseconds']:.2f}",
            f"{row['whole_milliseconds']:.1f}",
            f"{row['whole_milliseconds'] / row['cached_milliseconds']:.1f}",
        ]
        for row in content["rows"]
    ]
    return markdown(["tokens before", "cached, ms", "whole, ms", "times faster"], rows, numbers=range(4))


def report(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the rule, the table and the three figures."""
    return (
        RULE,
        table(content),
        f"512 over 64: {content['flatness_512_over_64']:.2f}; at 512: {content['speedup_at_512']:.1f} times faster; "
        f"largest difference of logits {content['largest_logit_difference']:.1e}.",
    )


def main() -> None:
    parser = command.parser(__doc__, "decoding", rounds=15)
    parser.add_argument("--run", type=Path, required=True, help="folder of a language run")
    options = parser.parse_args()
    command.run(options, partial(measure, options.run, options.rounds), table, report, peer=False)


if __name__ == "__main__":
    main()
