"""What do the times say? Ratios, their geometric means, and the tables of `results/solvers.json`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.peers import power
from benchmarks.results import markdown

MEMORY = ("history_bytes", "kept_bytes", "peak_bytes")  # shown in states of the whole batch

Entry = dict[str, Any]
Content = dict[str, Any]


@dataclass(frozen=True)
class Duel:
    """One case: the fastest of each library and poise's default; None where nobody of it reached the accuracy."""

    direction: str
    cell: str
    tolerance: float
    ours: Entry | None
    default: Entry | None
    theirs: Entry | None

    @property
    def ratio(self) -> float | None:
        """Seconds of poise's fastest over those of torchdeq's fastest."""
        return _ratio(self.ours, self.theirs)

    @property
    def default_ratio(self) -> float | None:
        """Seconds of poise's default over those of torchdeq's fastest."""
        return _ratio(self.default, self.theirs)


def best(entries: Iterable[Entry], library: str) -> Entry | None:
    """Return the fastest entry of a library, or None where none was timed."""
    timed = [entry for entry in entries if entry["library"] == library and "seconds" in entry]
    return min(timed, key=lambda entry: entry["seconds"]) if timed else None


def duels(entries: Iterable[Entry]) -> list[Duel]:
    """Return the cases of a result in the order they were measured, by direction."""
    cases: dict[tuple[str, str, float], list[Entry]] = {}
    for entry in entries:
        cases.setdefault((entry["direction"], entry["cell"], entry["tolerance"]), []).append(entry)
    found = []
    for case, here in cases.items():
        default = next((entry for entry in here if entry["default"] and "seconds" in entry), None)
        found.append(Duel(*case, best(here, "poise"), default, best(here, "torchdeq")))
    order = ("forward", "backward", "step", "costly")
    return sorted(found, key=lambda duel: order.index(duel.direction))


def geometric_mean(values: Iterable[float | None]) -> float | None:
    """Return the geometric mean of the ratios there are, or None where there is none."""
    known = [value for value in values if value is not None]
    return math.exp(sum(map(math.log, known)) / len(known)) if known else None


def summary(content: Content) -> dict[str, float | None]:
    """Return what the whole bench comes to, by name."""
    all_duels = duels([*content["solves"], *content["steps"]])
    # A fixed budget is the oracle's choice: a user who tests instead has these.
    tested = duels(entry for entry in content["steps"] if entry["own_rtol"] is not None)

    def over(chosen: Callable[[Duel], bool], ratio: Callable[[Duel], float | None]) -> list[float | None]:
        return [ratio(duel) for duel in all_duels if chosen(duel)]

    def tight(duel: Duel) -> bool:
        return duel.direction == "forward" and duel.tolerance == 1e-6

    def worst(values: list[float | None]) -> float | None:
        return max((value for value in values if value is not None), default=None)

    fastest: Callable[[Duel], float | None] = lambda duel: duel.ratio  # noqa: E731
    default: Callable[[Duel], float | None] = lambda duel: duel.default_ratio  # noqa: E731
    return {
        "forward to 1e-6, fastest against fastest, geometric mean": geometric_mean(over(tight, fastest)),
        "forward to 1e-6, fastest against fastest, geometric mean without hard": geometric_mean(
            over(lambda d: tight(d) and d.cell != "hard", fastest)
        ),
        "forward to 1e-6, fastest against fastest, largest": worst(over(tight, fastest)),
        "forward to 1e-6, default against fastest, geometric mean": geometric_mean(over(tight, default)),
        "forward to 1e-6, default against fastest, largest": worst(over(tight, default)),
        "forward to either, default against fastest, largest": worst(over(lambda d: d.direction == "forward", default)),
        "forward to 1e-3, fastest against fastest, geometric mean": geometric_mean(
            over(lambda d: d.direction == "forward" and d.tolerance == 1e-3, fastest)
        ),
        "backward to 1e-6, fastest against fastest, geometric mean": geometric_mean(
            over(lambda d: d.direction == "backward" and d.tolerance == 1e-6, fastest)
        ),
        "training step, fastest against fastest, geometric mean": geometric_mean(
            over(lambda d: d.direction == "step", fastest)
        ),
        "training step, the same without fixed budgets": geometric_mean(duel.ratio for duel in tested),
        "training step, default against fastest, geometric mean": geometric_mean(
            over(lambda d: d.direction == "step", default)
        ),
    }


def table(content: Content) -> str:
    """Return one line a case: the fastest of each library, and how poise's default compares."""

    def line(duel: Duel) -> list[str]:
        return [
            duel.direction,
            duel.cell,
            power(duel.tolerance),
            *_shown(duel.ours),
            *_shown(duel.theirs),
            _number(duel.ratio),
            _number(duel.default_ratio),
        ]

    header = ["", "cell", "to", "poise, ms", "by", "torchdeq, ms", "by", "ratio", "default's"]
    return markdown(header, map(line, duels([*content["solves"], *content["steps"]])), numbers=(3, 5, 7, 8))


def everything(content: Content) -> str:
    """Return every contestant of every case."""

    def line(entry: Entry) -> list[str]:
        states = entry.get("state_bytes", 0)
        products = f" + {entry['products']}" if entry["direction"] == "step" else ""
        return [
            entry["direction"],
            entry["cell"],
            power(entry["tolerance"]),
            f"{entry['library']}, {entry['solver']}",
            f"{entry['evaluations']}{products}" if entry["reached"] or not entry["tuned"] else "none",
            f"{entry['rows']:,}" if entry["reached"] else "",
            f"{1e3 * entry['seconds']:.2f}" if "seconds" in entry else "",
            f"{entry['overhead']:.2f}" if "seconds" in entry and entry["direction"] != "step" else "",
            f"{entry['error']:.1e}",
            *(
                f"{entry[key] / states:.0f}" if key in entry else ""
                for key in ("history_bytes", "kept_bytes", "peak_bytes")
            ),
        ]

    header = [
        "", "cell", "to", "solver", "evaluations", "rows", "ms", "over cell", "error", "history", "kept", "peak",
    ]  # fmt: skip
    entries = (*content["solves"], *content["steps"], *content["mixed"]["races"])
    return markdown(header, map(line, entries), numbers=range(4, 12))


def overhead_table(content: Content) -> str:
    """Return time over that of the evaluations alone, with the floor that memory sets."""

    def line(entry: Entry) -> list[str]:
        floor = f"{entry['floor']:.2f}" if "floor" in entry else ""
        return [entry["cell"], f"{entry['library']}, {entry['solver']}", f"{entry['overhead']:.2f}", floor]

    return markdown(["cell", "solver", "overhead", "floor"], map(line, content["overhead"]), numbers=(2, 3))


def floors(content: Content) -> str:
    """Say what the floors are made of."""
    return "\n".join(
        f"{entry['solver']} on {entry['cell']} moves {entry['floor_bytes'] / 1e6:.1f} MB besides its evaluations; at "
        f"{entry['copy_bandwidth'] / 1e9:.1f} GB/s of copying a buffer of its size that is "
        f"{100 * (entry['floor'] - 1):.0f} % of the evaluations' time."
        for entry in content["overhead"]
        if entry.get("floor_bytes")
    )


def mixed_table(content: Content) -> str:
    """Return the batches of mixed difficulty with a costly cell."""

    def line(duel: Duel) -> list[str]:
        rows = [f"{entry['rows']:,}" if entry else "none" for entry in (duel.ours, duel.theirs)]
        return [duel.cell, *_shown(duel.ours), rows[0], *_shown(duel.theirs), rows[1], _number(duel.ratio)]

    header = ["batch", "poise, ms", "by", "rows", "torchdeq, ms", "by", "rows", "ratio"]
    return markdown(header, map(line, duels(content["mixed"]["races"])), numbers=(1, 3, 4, 6, 7))


def report(content: Content) -> list[str]:
    """Return the whole report: rule, every figure, the tables, and what it comes to."""
    backward = [
        f"Backward of the {entry['cell']} batch: {entry['rows']:,} rows of products, {entry['ratio']:.2f} of the "
        f"{entry['whole_batch']:,} that products of the whole batch would be."
        for entry in content["mixed"]["backward"]
    ]
    held = [entry for entry in content["solves"] if entry.get("history_bytes_after")]
    memory = "No solver's history is alive after a solve."
    if held:
        memory = f"History alive after a solve: {', '.join(sorted({e['library'] + ' ' + e['solver'] for e in held}))}."
    comes_to = "\n".join(f"{name}: {_number(value)}" for name, value in summary(content).items())
    parts = [
        content["rule"],
        everything(content),
        table(content),
        overhead_table(content),
        floors(content),
        mixed_table(content),
        *backward,
        memory,
        peaks(content),
        unmatched(content),
        comes_to,
    ]
    return [part for part in parts if part]


def peaks(content: Content) -> str:
    """Say where the fastest training step of poise holds more at its peak than the leanest of torchdeq's."""
    above = []
    for duel in duels(content["steps"]):
        theirs = [
            entry["peak_bytes"]
            for entry in content["steps"]
            if entry["cell"] == duel.cell and entry["library"] == "torchdeq" and "peak_bytes" in entry
        ]
        for name, entry in (("fastest", duel.ours), ("default", duel.default)):
            if entry and theirs and entry["peak_bytes"] > min(theirs):
                above.append(f"{duel.cell}, {name}: {entry['peak_bytes'] / min(theirs):.1f} times")
    if not above:
        return "No training step of poise holds more at its peak than torchdeq's leanest that reaches the accuracy."
    return f"Peak of a training step above torchdeq's leanest that reaches the accuracy: {'; '.join(above)}."


def unmatched(content: Content) -> str:
    """Name the cases that one library alone reaches: no ratio tells of them, and no mean."""
    sentences = []
    for name, one, other in (("poise", "ours", "theirs"), ("torchdeq", "theirs", "ours")):
        cases = [
            f"{duel.direction} {duel.cell} to {power(duel.tolerance)}"
            for duel in duels([*content["solves"], *content["steps"]])
            if getattr(duel, one) and not getattr(duel, other)
        ]
        if cases:
            sentences.append(f"Reached by {name} alone: {', '.join(cases)}.")
    return " ".join(sentences)


def _ratio(ours: Entry | None, theirs: Entry | None) -> float | None:
    return ours["seconds"] / theirs["seconds"] if ours and theirs else None


def _shown(entry: Entry | None) -> tuple[str, str]:
    return (f"{1e3 * entry['seconds']:.2f}", entry["solver"]) if entry else ("none", "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
