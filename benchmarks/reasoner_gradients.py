"""Which gradient teaches a reasoner to find answers by iteration: one step, a few, the implicit one, or all of them?

`python -m benchmarks.reasoner_gradients RUN [RUN ...] [--instances 500] [--markdown] [--json FILE]` (runs of `poise
train reason` that differ in their adjoint and in how many steps they were trained; minutes)
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.reasoners import measure
from benchmarks.results import markdown

RULE = (
    "Networks that differ in how the equilibrium is differentiated alone (and in the settings named), on fresh test "
    "puzzles of four sizes, solved from zeros within 200 evaluations; exact match. Evaluations, converged, starts "
    "agree: on minimal puzzles. CPU: seconds of the training steps, one thread beside another process. Seed 0."
)


def table(content: dict[str, Any]) -> str:
    """Return one line a run as a Markdown table, the dearest first."""
    rows = []
    for kind in sorted(content["kinds"].values(), key=lambda kind: -kind["train_cpu_seconds"]):
        hardest = kind["sizes"][-1]
        rows.append(
            [
                kind["network"],
                f"{kind['steps']:,}",
                f"{kind['train_cpu_seconds']:.0f}",
                *(f"{size['solved']:.1%}" for size in kind["sizes"]),
                f"{hardest['evaluations']:.0f}",
                f"{hardest['converged']:.1%}",
                f"{hardest['agreement']:.1%}",
            ]
        )
    sizes = [size["name"] for size in next(iter(content["kinds"].values()))["sizes"]]
    header = ["gradient", "steps", "CPU, s", *sizes, "evaluations", "converged", "starts agree"]
    return markdown(header, rows, numbers=range(1, len(header)))


def report(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the rule and the table."""
    return RULE, table(content)


def main() -> None:
    parser = command.parser(__doc__, "reasoner_gradients")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--instances", type=int, default=500, help="fresh puzzles of each size (default 500)")
    parser.add_argument("--compared", type=int, default=100, help="of them solved from several starts (default 100)")
    options = parser.parse_args()
    run = partial(measure, options.runs, options.instances, options.compared)
    command.run(options, lambda: {**run(), "rule": RULE}, table, report, peer=False)


if __name__ == "__main__":
    main()
