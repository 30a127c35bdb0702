"""Which tables do the documents quote? Those that this script makes of `results/`, between markers it can rewrite.

`python -m benchmarks.tables` prints them; `--write README.md` (or `docs/measurements.md`) puts each between its
`<!-- table: NAME -->` and the next `<!-- end -->`; `--check README.md` fails where one differs.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    causality,
    decoding,
    evaluations,
    hard_puzzles,
    jacobian_penalty,
    jax_solvers,
    language_costs,
    mdeq_costs,
    mdeq_runs,
    memory,
    puzzle_costs,
    reasoner_gradients,
    reasoners,
    results,
    rows,
    solver_tables,
    tinyshakespeare,
    vicreg,
    vicreg_cifar,
    vicreg_digits,
    vicreg_kinds,
    wikitext2,
)

MARKED = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)


def _with_verdict(content: dict[str, Any]) -> str:
    return f"{evaluations.table(content)}\n\n{evaluations.verdict(content)}"


def _with_machine(table: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], str]:
    def block(content: dict[str, Any]) -> str:
        where = content["environment"]
        threads = "one thread" if where["threads"] == 1 else f"{where['threads']} threads"
        return f"{table(content)}\n\nMeasured on {where['cpu']}, {threads}, torch {where['torch']}."

    return block


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "evaluations": _with_verdict,
    "solvers": _with_machine(solver_tables.table),
    "jax_solvers": _with_machine(jax_solvers.table),
    "rows": rows.table,
    "memory": _with_machine(memory.table),
    "mdeq_runs": _with_machine(mdeq_runs.table),
    "mdeq_costs": _with_machine(mdeq_costs.table),
    "vicreg": _with_machine(vicreg.table),
    "vicreg_digits": _with_machine(vicreg_digits.table),
    "vicreg_kinds": vicreg_kinds.table,
    "vicreg_cifar": _with_machine(vicreg_cifar.table),
    "tinyshakespeare": _with_machine(tinyshakespeare.table),
    "decoding": _with_machine(decoding.table),
    "causality": causality.table,
    "wikitext2": _with_machine(lambda content: f"{wikitext2.table(content)}\n\n{wikitext2.verdict(content)}"),
    "reasoners": _with_machine(lambda content: f"{reasoners.table(content)}\n\n{reasoners.verdict(content)}"),
    "reasoner_gradients": _with_machine(
        lambda content: f"{reasoner_gradients.table(content)}\n\n{reasoner_gradients.verdict(content)}"
    ),
    "hard_puzzles": _with_machine(lambda content: f"{hard_puzzles.table(content)}\n\n{hard_puzzles.verdict(content)}"),
    "puzzle_costs": _with_machine(puzzle_costs.table),
    "language_costs": _with_machine(language_costs.table),
    "jacobian_penalty": _with_machine(jacobian_penalty.table),
}


def generate(name: str) -> str:
    """Return a table by name; raise LookupError where it is unknown or was not measured."""
    if name not in TABLES:
        raise LookupError(f"there is no table {name!r}; a document may quote {', '.join(TABLES)}.")
    content = results.read(name)
    if content is None:
        raise LookupError(f"results/{name}.json has not been measured; run python -m benchmarks.{name}.")
    return TABLES[name](content)


def rewrite(text: str, make: Callable[[str], str] = generate) -> str:
    """Return a text with a fresh table between each pair of markers."""
    opened, closed = text.count("<!-- table:"), len(MARKED.findall(text))
    if opened != closed:
        raise LookupError(f"{opened} tables are opened but {closed} are named and closed; end each with <!-- end -->.")
    return MARKED.sub(lambda found: f"{found[1]}\n{make(found['name'])}\n\n{found[4]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--write", type=Path, metavar="FILE", help="put the tables between the markers of a file")
    action.add_argument("--check", type=Path, metavar="FILE", help="fail where a table between the markers differs")
    options = parser.parse_args()
    file: Path | None = options.write or options.check
    if file is None:
        measured = [name for name in TABLES if results.read(name) is not None]
        print("\n\n".join(f"{name}\n\n{generate(name)}" for name in measured))
        return
    text = file.read_text(encoding="utf-8")
    try:
        fresh = rewrite(text)
    except LookupError as error:
        sys.exit(f"{file.name}: {error.args[0]}")
    if options.check and fresh != text:
        sys.exit(f"{file.name} quotes tables that are not those of benchmarks/results; run with --write {file.name}.")
    if options.write:
        file.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main()
