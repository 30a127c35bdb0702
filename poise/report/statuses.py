"""How the solves of a run ended, counted by status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from poise.report.formatting import format_value
from poise.report.markup import element, escape, inline

# Best first. A status that is not listed here is shown as well, at the end and without a meaning.
_KNOWN: dict[str, tuple[str, str]] = {
    "CONVERGED": ("good", "the residual is within the tolerance"),
    "BUDGET": ("fair", "all allowed evaluations were spent"),
    "STALLED": ("fair", "the residual stopped falling above the tolerance"),
    "DIVERGED": ("bad", "the residual grew"),
    "NONFINITE": ("bad", "the cell returned NaN or infinity"),
}


@dataclass(frozen=True)
class Statuses:
    """The number of samples that ended in each status, one column a kind of solve.

    Args:
        counts: by kind of solve ("forward, training"), then by status name ("CONVERGED").

    Raises:
        ValueError: a count is negative.
    """

    counts: Mapping[str, Mapping[str, int]]

    def __post_init__(self) -> None:
        for solve, by_status in self.counts.items():
            for status, count in by_status.items():
                if count < 0:
                    raise ValueError(f"{solve!r} counts {count} samples as {status}; give counts of 0 or more.")


def render_statuses(statuses: Statuses) -> str:
    """Write the counts as a table, with the shares as a bar above each column.

    Args:
        statuses: what to write.
    """
    solves = statuses.counts
    others = sorted({status.upper() for counts in solves.values() for status in counts} - _KNOWN.keys())
    names = (*_KNOWN, *others)
    columns = {
        solve: {name: sum(n for status, n in counts.items() if status.upper() == name) for name in names}
        for solve, counts in solves.items()
    }
    head = [element("th", "status", scope="col")]
    head += [element("th", inline(solve), scope="col", class_="number") for solve in columns]
    bars = [element("td")] + [element("td", _bar(counts)) for counts in columns.values()]
    rows = []
    for name in names:
        tone, meaning = _KNOWN.get(name, ("other", ""))
        label = element("span", class_=f"mark {tone}") + escape(name.lower())
        if meaning:
            label += element("small", escape(meaning))
        cells = [element("th", label, scope="row")]
        cells += [_cell(counts[name], sum(counts.values())) for counts in columns.values()]
        rows.append(element("tr", *cells))
    table = element(
        "table",
        element("thead", element("tr", *head), element("tr", *bars, class_="shares", aria_hidden="true")),
        element("tbody", *rows),
        class_="statuses",
        style=f"--solves:{max(len(columns), 1)}",
    )
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label="statuses")


def _bar(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    parts = (
        element("span", class_=_KNOWN.get(name, ("other", ""))[0], style=f"flex-grow:{count / total:.6f}")
        for name, count in counts.items()
        if count
    )
    return element("div", *parts, class_="shares")


def _cell(count: int, total: int) -> str:
    share = element("small", escape(format_value(count / total, "percent"))) if count else ""
    return element("td", escape(format_value(count)), share, class_="number" if count else "number none")
