"""How large a puzzle does a reasoner solve that learnt small ones, how long does it think, and what do peers do?

`python -m benchmarks.reasoners RUN[=N] [...] [--instances 500] [--markdown] [--json FILE]` (runs of `poise train
reason`, peers among them, each with how many puzzles of a size it solves from several starts too, 100 by default; runs
that differ in their seed alone are told by the worst of them; minutes each)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.results import markdown
from benchmarks.runs import counted, opened
from poise.models import Reasoner
from poise.tasks.reason import ReasonTask
from poise.tasks.reason_analysis import FEWEST_WRONG, analyse
from poise.tasks.run_folder import RunFolder

COMPARED = 100  # puzzles of a size that are solved from several starts
FEW = 20  # where they are large
FRESH = 1000  # added to a run's seed, so that no test puzzle is one that its own report shows
RULE = (
    "Fresh test puzzles of each size, exact match of the whole answer, solved from zeros; training shares none of "
    "them. Of runs that differ in the seed alone, the worst of each figure; of what is solved early, the most. From "
    "random starts: the part of solves from N(0, 1) that end at the right answer. Starts agree: pairs of starts with "
    "one answer. CPU: seconds of the training steps, one thread. Of mazes of 25x25 and more a fifth of the instances, "
    f"at most {FEW} of them from several starts."
)


@dataclass(frozen=True)
class Group:
    """Test sizes of a puzzle, which part of the instances they get, and how many from several starts at most."""

    sizes: tuple[int, ...]
    part: float = 1.0
    most: int | None = None


SIZES = {
    "sudoku": (Group((36, 30, 26, 0)),),
    "prefix": (Group((32, 64, 128, 256, 512)),),
    "maze": (Group((9, 13, 17)), Group((25, 33), 0.2, FEW)),
}
"""Signs are told on the first group of each puzzle."""
EARLY = {"sudoku": 16, "prefix": 100, "maze": 16}  # evaluations within which hard puzzles are not solved yet
WORST = {"evaluations": max}  # of the rest the smallest is the worst


def measure(runs: Sequence[tuple[Path, int | None]], instances: int) -> dict[str, Any]:
    """Measure the runs, those of one kind together; of each as many puzzles as it says from several starts."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for run, compared in runs:
        kind, found = _measure_one(run, instances, min(instances, COMPARED if compared is None else compared))
        kinds.setdefault(kind, []).append(found)
    return {"rule": RULE, "instances": instances, "kinds": {kind: _worst(found) for kind, found in kinds.items()}}


def _measure_one(run: Path, instances: int, compared: int) -> tuple[str, dict[str, Any]]:
    """Return what kind a run is of, all but its seed, and what its network does."""
    folder = RunFolder(run)
    task = opened(run, "reason")
    config, summary = task.config, folder.read_json(folder.summary)
    settings = asdict(replace(config, seed=0))
    settings["trainer"] = config.trainer.max_steps
    for name in ("test_sizes", "test_instances", "eval_batch_size"):
        settings["data"].pop(name)
    return repr(settings), {
        "network": _name(task),
        "recipe": config.recipe,
        "puzzle": config.data.puzzle,
        "seed": config.seed,
        "parameters": summary["parameters"],
        "steps": summary["steps"],
        "train_cpu_seconds": summary["train_cpu_seconds"],
        "compared": compared,
        **_tested(task, folder, instances, compared),
    }


def _tested(task: ReasonTask, folder: RunFolder, instances: int, compared: int) -> dict[str, Any]:
    """Return what a network does on fresh puzzles, from a file of the run's folder where it was measured before."""
    file = folder.path / f"fresh-{instances}-{compared}.json"
    if not file.is_file():
        parts = [
            _analysed(task, group.sizes, max(1, round(group.part * instances)), min(compared, group.most or compared))
            for group in SIZES[task.config.data.puzzle]
        ]
        sizes = [size for part in parts for size in part["sizes"]]
        folder.write_json(file, {"sizes": sizes, "signs": parts[0].get("signs")})
    return folder.read_json(file)


def _analysed(task: ReasonTask, sizes: Sequence[int], instances: int, compared: int) -> dict[str, Any]:
    """Return how a network solves fresh puzzles of some sizes."""
    fresh = opened_anew(task)
    config = task.config
    fresh.config = replace(
        config,
        seed=config.seed + FRESH,
        data=replace(config.data, test_sizes=tuple(sizes), test_instances=instances),
        starts=replace(config.starts, puzzles=compared),
    )
    return analyse(fresh)


def opened_anew(task: ReasonTask) -> ReasonTask:
    """Return the task with no test puzzles yet."""
    fresh = ReasonTask(task.config)
    fresh.model.load_state_dict(task.model.state_dict())
    return fresh.eval()


def _name(task: ReasonTask) -> str:
    if not isinstance(task.model, Reasoner):
        return f"feed-forward, {len(task.model.layers)} layers of width {task.model.width}"
    config, adjoint = task.config, task.config.adjoint
    if adjoint.name == "unrolled":
        where = "random starts" if config.starts.random else "zeros"
        return f"weight-tied, unrolled {config.solver.max_steps} from {where}"
    first = f", the first {config.pretraining.steps:,} steps unrolled" if config.pretraining.steps else ""
    name = "Jacobian-free" if adjoint.name == "jacobian_free" else adjoint.name
    return f"equilibrium, {name}" + (f" {adjoint.steps}" if adjoint.name == "phantom" else "") + first


def _worst(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one entry for runs that differ in their seed alone."""
    if len({one["compared"] for one in found}) > 1:
        raise SystemExit("runs that differ in their seed alone are compared on as many puzzles; pass one N for all.")
    sizes = []
    for same in zip(*(one["sizes"] for one in found), strict=True):
        entry: dict[str, Any] = {"name": same[0]["name"]}
        for name, value in same[0].items():
            if name == "budgets":
                entry[name] = {budget: min(size[name][budget] for size in same) for budget in value}
                entry["budgets_most"] = {budget: max(size[name][budget] for size in same) for budget in value}
            elif name != "name":
                entry[name] = WORST.get(name, min)(size[name] for size in same)
        sizes.append(entry)
    cpu = max(one["train_cpu_seconds"] for one in found)
    kept = {name: found[0][name] for name in ("network", "recipe", "puzzle", "parameters", "steps", "compared")}
    seeds = {"seeds": [one["seed"] for one in found], "signs": [one["signs"] for one in found]}
    ratios = [_growth(one["sizes"]) for one in found]
    growth = None if None in ratios else min(ratio for ratio in ratios if ratio is not None)
    return {**kept, **seeds, "train_cpu_seconds": cpu, "sizes": sizes, "evaluations_last_over_first": growth}


def _growth(sizes: Sequence[Mapping[str, Any]]) -> float | None:
    """Return how many times the evaluations of the first size the last one takes."""
    return sizes[-1]["evaluations"] / sizes[0]["evaluations"] if "evaluations" in sizes[0] else None


def table(content: dict[str, Any]) -> str:
    """Return what each kind solves as a Markdown table."""
    rows = []
    for kind in content["kinds"].values():
        for place, size in enumerate(kind["sizes"]):
            solved, few = size.get("budgets_most", {}), str(EARLY[kind["puzzle"]])
            rows.append(
                [
                    kind["network"] if place == 0 else "",
                    f"{kind['parameters']:,}" if place == 0 else "",
                    f"{kind['train_cpu_seconds']:.0f}" if place == 0 else "",
                    size["name"],
                    f"{solved[few]:.1%} ({few})" if solved else "",
                    f"{size['solved']:.1%}",
                    f"{size['solved_from_random']:.1%}" if solved else "",
                    f"{size['evaluations']:.1f}" if solved else "",
                    f"{size['converged']:.1%}" if solved else "",
                    f"{size['agreement']:.1%}" if solved else "",
                ]
            )
    header = ["network", "parameters", "CPU, s", "puzzles", "solved early (within)", "solved", "from random starts"]
    return markdown([*header, "evaluations", "converged", "starts agree"], rows, numbers=(1, 2, 4, 5, 6, 7, 8, 9))


def verdict(content: dict[str, Any]) -> str:
    """Return which sign tells right answers from wrong ones, a line for each kind that is wrong at least once.

    Of agreement also the worst seed, among those that were wrong often enough to say something.
    """
    lines = []
    for kind in content["kinds"].values():
        told_of = [signs for signs in kind["signs"] if signs]
        known = [signs for signs in told_of if signs["wrong"] and signs["right"]]
        if not known:
            continue
        wrong, right = (sum(signs[name] for signs in told_of) for name in ("wrong", "right"))
        names = sorted({name for signs in known for name in signs["auroc"]})
        told = ", ".join(f"{name} {_mean(known, name)}" for name in names)
        telling = [signs["auroc"]["agreement of starts"] for signs in known if signs["wrong"] >= FEWEST_WRONG]
        worst = f"; agreement, of the worst seed {min(telling):.3f}" if len(telling) > 1 else ""
        lines.append(
            f"{kind['network']} on {kind['puzzle']} ({wrong:,} of {wrong + right:,} answers wrong): {told}{worst}."
        )
    return "AUROC of a sign, right against wrong, the mean over the seeds that are wrong at least once. " + " ".join(
        lines
    )


def _mean(known: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [signs["auroc"][name] for signs in known if signs["auroc"].get(name) is not None]
    return f"{sum(values) / len(values):.2f}" if values else "undefined"


def report(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the rule, the table and which sign tells."""
    return RULE, table(content), verdict(content)


def main() -> None:
    parser = command.parser(__doc__, "reasoners", rounds=1)
    parser.add_argument("runs", type=counted, nargs="+", metavar="RUN[=N]")
    parser.add_argument("--instances", type=int, default=500, help="fresh puzzles of each size (default 500)")
    options = parser.parse_args()
    run = partial(measure, options.runs, options.instances)
    command.run(options, run, table, report, peer=False)


if __name__ == "__main__":
    main()
