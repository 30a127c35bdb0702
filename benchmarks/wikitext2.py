"""What do equilibrium language models reach on WikiText-2, beside their explicit peers?

`python -m benchmarks.wikitext2 RUNS [--markdown] [--json FILE]` trains four recipes in a folder, goes on where a run
was stopped, and evaluates them (two hours on one thread). POISE_DATA names the folder of the data.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.results import markdown
from benchmarks.runs import evaluated, trained
from poise.tasks.run_folder import RunFolder

PAIRS = (
    ("wikitext2-deq-transformer", "wikitext2-transformer"),
    ("wikitext2-deq-trellisnet", "wikitext2-trellisnet"),
)
NAMES = {
    "wikitext2-deq-transformer": "DEQ-Transformer",
    "wikitext2-transformer": "Transformer, 4 layers",
    "wikitext2-deq-trellisnet": "DEQ-TrellisNet",
    "wikitext2-trellisnet": "TrellisNet, 12 layers",
}
MEMORIES = (0, 64, 128)  # at which the trained DEQ-Transformer is evaluated
LIMIT = 0.01
KEPT = ("parameters", "steps", "train_seconds", "train_cpu_seconds", "val_perplexity")
RULE = (
    "Every run is a recipe of that name on one thread, one seed; the networks of a pair have equal parameters, tokens "
    "and optimizer, and read the same streams. Perplexity a word over all words of the split, unknown ones and ends of "
    "line among them, in streams of 32 segments. CPU: seconds of the training steps, vocabulary and optimizer among "
    f"them. The last column: test perplexity over that of the explicit peer; limit {1 + LIMIT:g}. Memory: the trained "
    "DEQ-Transformer on the test split, seeing so many positions of earlier segments."
)


def measure(runs: Path) -> dict[str, Any]:
    """Train and test what is not done yet, and return the result."""
    entries = [_run(recipe, runs) for pair in PAIRS for recipe in pair]
    deq = RunFolder(runs / PAIRS[0][0])
    memories = {str(memory): evaluated(deq, "test", memory)["test_perplexity"] for memory in MEMORIES}
    return {"rule": RULE, "runs": entries, "test_perplexity_by_memory": memories}


def _run(recipe: str, runs: Path) -> dict[str, Any]:
    folder = trained("language", recipe, RunFolder(runs / recipe))
    summary = folder.read_json(folder.summary)
    data = folder.read_config()[1]["data"]
    return {
        "recipe": recipe,
        **{name: summary[name] for name in KEPT},
        "tokens": summary["steps"] * data["batch_size"] * data["sequence_length"],
        **evaluated(folder, "test", data["memory"]),
        "train_evaluations": [summary["mean_forward_evaluations"], summary["mean_backward_evaluations"]],
    }


def table(content: dict[str, Any]) -> str:
    """Return one line a network."""
    found = {run["recipe"]: run for run in content["runs"]}
    rows = []
    for deq, explicit in PAIRS:
        for recipe in (deq, explicit):
            run = found[recipe]
            spent = "{:.0f} + {:.0f}".format(*run["train_evaluations"]) if run["statuses"] else ""
            rows.append(
                [
                    NAMES[recipe],
                    f"{run['parameters']:,}",
                    f"{run['tokens'] / 1e6:.1f}",
                    spent,
                    f"{run['train_cpu_seconds']:,.0f}",
                    f"{run['val_perplexity']:.1f}",
                    f"{run['test_perplexity']:.1f}",
                    f"{run['test_perplexity'] / found[explicit]['test_perplexity']:.3f}",
                ]
            )
    header = ["network", "parameters", "tokens, M", "evaluations", "CPU, s", "valid", "test", "over the peer"]
    return markdown(header, rows, numbers=range(1, len(header)))


def verdict(content: dict[str, Any]) -> str:
    """Return what memory is worth, in a sentence."""
    memories = content["test_perplexity_by_memory"]
    told = ", ".join(f"{value:.1f} with {memory}" for memory, value in memories.items())
    return f"Test perplexity of the DEQ-Transformer by positions of memory: {told}."


def report(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the rule, the table and what memory is worth."""
    return RULE, table(content), verdict(content)


def main() -> None:
    parser = command.parser(__doc__, "wikitext2")
    parser.add_argument("runs", type=Path, metavar="RUNS", help="folder of the runs")
    options = parser.parse_args()
    command.run(options, partial(measure, options.runs), table, report, peer=False)


if __name__ == "__main__":
    main()
