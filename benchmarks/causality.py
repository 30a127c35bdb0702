"""How far does a later token move earlier predictions, where solvers mix by sample and where they mix by prefix?

`python -m benchmarks.causality --run RUN [--markdown] [--json FILE]` (a run of `poise train language`; a minute)
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import command
from benchmarks.decoding import written
from benchmarks.results import markdown
from benchmarks.runs import opened
from poise import Anderson, Broyden, Status
from poise.fixed_point import Solver
from poise.tasks.regularization import solving

TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
RULES: dict[str, type[Anderson] | type[Broyden]] = {"Anderson": Anderson, "Broyden": Broyden}
SCOPES = ("sample", "prefix")
WINDOWS, LENGTH = 16, 64
RULE = (
    f"{WINDOWS} windows of {LENGTH} tokens that the model wrote are solved twice, the last token of each changed "
    "in between. Leak: the largest change of a logit at the positions before, where a causal model has none. "
    "Evaluations: for a window, the mean. The solver's options are its defaults but for scope and tolerance, at most "
    "100 evaluations."
)


@torch.no_grad()
def measure(run: Path) -> dict[str, Any]:
    """Measure a run of a network with an equilibrium, and return the result."""
    task = opened(run)
    model: Any = task.model.eval()
    if not task.solves:
        raise SystemExit(f"the network of {run} solves nothing; pass a run of a DEQ.")
    tokens = written(model, WINDOWS * LENGTH)[:, : WINDOWS * LENGTH].view(WINDOWS, LENGTH)
    changed = tokens.clone()
    changed[:, -1] = (changed[:, -1] + 1) % task.tokenizer.vocab_size
    rows = []
    for name, rule in RULES.items():
        for scope in SCOPES:
            for rtol in TOLERANCES:
                solver: Solver = rule(scope=scope, rtol=rtol, max_steps=100)  # type: ignore[arg-type]
                with solving(model.equilibrium, solver):
                    one, other = model.solve(tokens), model.solve(changed)
                before, after = (model.head(_features(solution.state))[:, :-1] for solution in (one, other))
                rows.append(
                    {
                        "solver": name,
                        "scope": scope,
                        "rtol": rtol,
                        "leak": float((before - after).abs().max()),
                        "evaluations": round(float(one.steps.double().mean()), 2),
                        "converged": int((one.status == Status.CONVERGED).sum()),
                    }
                )
    return {"rule": RULE, "model": task.identity(), "rows": rows}


def _features(state: Any) -> torch.Tensor:
    return state[0] if isinstance(state, tuple) else state


def table(content: dict[str, Any]) -> str:
    """Return the leaks as a Markdown table."""
    rows = [
        [
            row["solver"],
            f"{row['rtol']:.0e}",
            *(
                text
                for scope in SCOPES
                for one in content["rows"]
                if (one["solver"], one["scope"], one["rtol"]) == (row["solver"], scope, row["rtol"])
                for text in (f"{one['leak']:.1e}" if one["leak"] else "0", f"{one['evaluations']:.1f}")
            ),
        ]
        for row in content["rows"]
        if row["scope"] == SCOPES[0]
    ]
    header = ["solver", "rtol", "by sample: leak", "evaluations", "by prefix: leak", "evaluations"]
    return markdown(header, rows, numbers=range(1, 6))


def report(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the rule and the table."""
    return RULE, table(content)


def main() -> None:
    parser = command.parser(__doc__, "causality")
    parser.add_argument("--run", type=Path, required=True, help="folder of a language run")
    options = parser.parse_args()
    command.run(options, partial(measure, options.run), table, report, peer=False)


if __name__ == "__main__":
    main()
