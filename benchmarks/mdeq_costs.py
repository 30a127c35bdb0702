"""What does multiscale DEQ cost: bytes of the block, the solver beside its cell, training time, one full picture?

`python -m benchmarks.mdeq_costs [--parts NAME ...] [--markdown] [--json FILE]` (about ten minutes on one thread; Linux;
a part alone, with `--parts`, leaves the others in the result as they were)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import command, full_picture, mdeq_training
from benchmarks.cells import Problem
from benchmarks.overhead import EVALUATIONS, measured
from benchmarks.peers import Torchdeq
from benchmarks.results import markdown
from poise import Phantom, Picard, Unrolled
from poise.cli.memory import keep_freed_memory
from poise.fixed_point import Adjoint
from poise.models import MDEQ
from poise.models.mdeq import ADJOINT, PRESETS, SOLVER
from poise.nn import activation_bytes
from poise.nn.parametrized import computed_weights, pinned

BUDGETS = (4, 8, 12, 24)
ADJOINTS: dict[str, Adjoint] = {"Implicit()": ADJOINT, "Phantom(2)": Phantom(2), "Phantom(3)": Phantom(3)}
BLOCKS = (("tiny", 16, 32), ("small", 16, 224), ("small", 2, 224))  # preset, how many pictures, of which side
SHARE_LIMIT, OVERHEAD_LIMIT = 0.12, 1.2
BYTES_RULE = (
    "Bytes of the distinct storages that the equilibrium block saves for the backward, its parameters and its input "
    "left out: presets at their initial weights in training mode, float32, Picard at a fixed budget, Phantom's "
    "recorded steps after it. The weights that normalisation computes, once a solve, count: they are held at any "
    "depth, and in a wide network with few pictures they weigh. Last column: the same block with weight_norm=False. "
    f"Limit for Implicit: {100 * SHARE_LIMIT:g} % of 12 unrolled."
)
OVERHEAD_RULE = (
    "CPU time of a solve over that of its evaluations alone: the cell of the preset small at its initial weights, in "
    "evaluation mode, its four scales for 16 pictures of 64x64 (finest scale 16x16), "
    f"{EVALUATIONS} evaluations under a tolerance that nothing meets, weights normalised once before; the median of "
    f"rounds in which all alternate. Limit for Anderson: {OVERHEAD_LIMIT:g}."
)
OURS = "Anderson(form='type2', history=5)"
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


@dataclass(frozen=True)
class Block:
    """The equilibrium block of a preset and its input."""

    model: MDEQ
    x: Tensor

    @staticmethod
    def of(
        preset: str, batch: int, side: int, adjoint: Adjoint, evaluations: int, *, weight_norm: bool = True
    ) -> Block:
        """Build the network, the same weights and pictures for every adjoint and budget."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            shape = replace(PRESETS[preset], weight_norm=weight_norm)
            solver = Picard(rtol=None, max_steps=evaluations)
            model = MDEQ(shape, classes=10, solver=solver, adjoint=adjoint)
            pictures = torch.randn(batch, shape.in_channels, side, side)
        return Block(model, model.stem(pictures).detach().requires_grad_())

    def nbytes(self) -> int:
        """Return the bytes that the block holds for its backward."""
        return activation_bytes(lambda: self.model.equilibrium(self.x), exclude=[self.x, *self.model.parameters()])


def block_bytes(
    blocks: Sequence[tuple[str, int, int]] = BLOCKS, budgets: Sequence[int] = BUDGETS
) -> list[dict[str, Any]]:
    """Return one entry for every block, adjoint and budget, with its share of 12 evaluations unrolled."""
    return [entry for preset, batch, side in blocks for entry in _of_block(preset, batch, side, budgets)]


def _of_block(preset: str, batch: int, side: int, budgets: Sequence[int]) -> list[dict[str, Any]]:
    def held(adjoint: Adjoint, evaluations: int, weight_norm: bool = True) -> int:
        return Block.of(preset, batch, side, adjoint, evaluations, weight_norm=weight_norm).nbytes()

    shared = {"preset": preset, "batch": batch, "side": side}
    whole, plain = (held(Unrolled(), 12, norm) for norm in (True, False))
    found = []
    for name, adjoint in ADJOINTS.items():
        without = held(adjoint, budgets[0], False) / plain
        for evaluations in budgets:
            nbytes = held(adjoint, evaluations)
            found.append({**shared, **_held(name, evaluations, nbytes, nbytes / whole, without)})
    return [*found, {**shared, **_held("Unrolled()", 12, whole, 1.0, 1.0)}]


def _held(adjoint: str, evaluations: int, nbytes: int, share: float, without: float) -> dict[str, Any]:
    return {
        "adjoint": adjoint,
        "evaluations": evaluations,
        "block_bytes": nbytes,
        "share_of_unrolled_12": round(share, 4),
        "share_without_weight_norm": round(without, 4),
    }


def small_cell(layout: str) -> Problem:
    """Return the fixed point of the preset small for 16 pictures of 64x64, in a memory layout."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = MDEQ("small", classes=10).eval().to(memory_format=LAYOUTS[layout])  # type: ignore[call-overload]
        x = model.stem(torch.randn(16, 3, 64, 64).contiguous(memory_format=LAYOUTS[layout]))
        cell = model.equilibrium.cell
        context = cell.inject(x)
        return Problem(layout, pinned(cell, computed_weights(cell)), context, cell.initial_state(context))


def overheads(rounds: int) -> list[dict[str, Any]]:
    """Return one entry for every layout and solver."""
    solvers = {OURS: SOLVER, "Picard()": Picard()}
    peers = {
        "anderson(m=6, lam=1e-4)": Torchdeq("anderson", {"m": 6, "lam": 1e-4}),
        "fixed_point_iter": Torchdeq("fixed_point_iter"),
    }
    return [entry for layout in LAYOUTS for entry in measured(small_cell(layout), rounds, solvers=solvers, peers=peers)]


def measure(rounds: int, parts: Sequence[str], known: dict[str, Any]) -> dict[str, Any]:
    """Measure these parts and return the result, the others as they are known."""
    measured: dict[str, Callable[[], dict[str, Any]]] = {
        "bytes": lambda: {"rule": BYTES_RULE, "blocks": block_bytes()},
        "overhead": lambda: {"rule": OVERHEAD_RULE, "solves": overheads(rounds)},
        "training": lambda: mdeq_training.measure(rounds),
        "picture": full_picture.measure,
    }
    found = {name: make() if name in parts else known.get(name) for name, make in measured.items()}
    return {"rounds": rounds, **{name: part for name, part in found.items() if part is not None}}


def bytes_table(content: dict[str, Any]) -> str:
    """Return the bytes as a Markdown table, the budgets of one adjoint in one row where they hold the same."""

    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for entry in content["blocks"]:
        key = tuple(entry[name] for name in ("preset", "batch", "side", "adjoint", "block_bytes"))
        groups.setdefault(key, []).append(entry)
    rows = []
    for (preset, batch, side, adjoint, nbytes), entries in groups.items():
        budgets = ", ".join(str(entry["evaluations"]) for entry in entries)
        shares = [f"{100 * entries[0][f'share_{of}']:.1f} %" for of in ("of_unrolled_12", "without_weight_norm")]
        rows.append([f"{preset}, {batch} of {side}x{side}", adjoint, budgets, f"{nbytes / 1e6:.1f}", *shares])
    header = ["preset, pictures", "adjoint", "evaluations", "block, MB", "of 12 unrolled", "unnormalised"]
    return markdown(header, rows, numbers=(3, 4, 5))


def overhead_table(content: dict[str, Any]) -> str:
    """Return the overheads as a Markdown table."""
    rows = [
        [
            entry["cell"],
            entry["library"],
            entry["solver"],
            f"{1e3 * entry['cell_seconds']:.1f}",
            f"{entry['overhead']:.2f}",
        ]
        for entry in content["solves"]
    ]
    return markdown(["layout", "library", "solver", "evaluation, ms", "overhead"], rows, numbers=(3, 4))


def bytes_verdict(content: dict[str, Any]) -> str:
    """Say what the implicit gradient holds against the limit, and whether it grows."""
    held: dict[str, list[dict[str, Any]]] = {}
    for entry in content["blocks"]:
        if entry["adjoint"] == "Implicit()":
            held.setdefault(f"{entry['preset']}, {entry['batch']} pictures", []).append(entry)
    said = []
    for name, entries in held.items():
        flat = "flat in evaluations" if len({entry["block_bytes"] for entry in entries}) == 1 else "not flat"
        said.append(f"{100 * max(entry['share_of_unrolled_12'] for entry in entries):.1f} % ({name}; {flat})")
    return f"Implicit() holds {', '.join(said)}; the limit is {100 * SHARE_LIMIT:g} %."


def overhead_verdict(content: dict[str, Any]) -> str:
    """Say how MDEQ's solver and torchdeq's stand against the limit."""
    said = [
        f"{entry['library']} {entry['overhead']:.2f} {entry['cell']}"
        for entry in content["solves"]
        if "anderson" in entry["solver"].lower()
    ]
    return f"Anderson: {', '.join(said)} (limit {OVERHEAD_LIMIT:g})."


SECTIONS = {
    "bytes": (bytes_table, bytes_verdict),
    "overhead": (overhead_table, overhead_verdict),
    "training": (mdeq_training.table, mdeq_training.verdict),
    "picture": (full_picture.table, full_picture.verdict),
}


def table(content: dict[str, Any]) -> str:
    """Return the four tables, each with its verdict after it."""
    sections = [(name, section) for name, section in SECTIONS.items() if name in content]
    return "\n\n".join(part for name, section in sections for part in (make(content[name]) for make in section))


def report(content: dict[str, Any]) -> tuple[str, ...]:
    """Return every table with its rule before it and its verdict after it."""
    sections = [(name, section) for name, section in SECTIONS.items() if name in content]
    return tuple(
        part
        for name, section in sections
        for part in (content[name]["rule"], *(make(content[name]) for make in section))
    )


def main() -> None:
    parser = command.parser(__doc__, "mdeq_costs", rounds=7)
    parser.add_argument("--parts", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), help="these parts only")
    options = parser.parse_args()
    known = json.loads(options.json.read_text()) if options.json.is_file() else {}
    keep_freed_memory()  # as every command does
    command.run(options, partial(measure, options.rounds, options.parts, known), table, report)


if __name__ == "__main__":
    main()
