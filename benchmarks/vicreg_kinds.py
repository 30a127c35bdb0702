"""Does VICReg learn from two kinds of input? Numerals as pixels and as Fourier coefficients, a branch for each.

`python -m benchmarks.vicreg_kinds FILE [--seeds N] [--json FILE]`, FILE being mfeat.npz (about a minute on one thread).
"""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import command
from benchmarks.results import markdown
from poise.data import Samples, multiple_features
from poise.models import DenseEncoder, Expander, VICReg
from poise.objectives import VICRegLoss, fit_linear_probe

STEPS, BATCH, NOISE = 300, 256, 0.1
PAIRS = (("pix", "fou"), ("pix", "kar"))
NAMES = {"pix": "pixels", "fou": "Fourier coefficients", "kar": "Karhunen-Loeve coefficients"}
RULE = (
    "1,500 numerals to train on, 500 to test on, 50 a class. Two dense encoders of 256-256-128, one for each kind of "
    "input, 300 steps of AdamW at 3e-3 on batches of 256, noise of 0.1 on each input; no label is used. Probe: "
    "logistic regression on the frozen features of one kind alone. Random: the same encoders untrained, their batch "
    "norm settled. Input: the probe on the input itself, which bounds what the kind tells (Fourier coefficients do not "
    "see rotations, so 6 and 9 are one). Means over seeds, the range in brackets."
)


def encoders(train: Samples) -> list[DenseEncoder]:
    """Return one encoder a kind."""
    return [DenseEncoder((kind[0].numel(), 256, 256, 128)) for kind in train.inputs]


def probe(encoder: nn.Module, train: Samples, test: Samples, kind: int) -> float:
    """Return the accuracy of a linear probe on one kind of input."""
    encoder.eval()
    with torch.no_grad():
        known, unseen = encoder(train.inputs[kind]), encoder(test.inputs[kind])
    return fit_linear_probe(known, train.labels, len(train.class_names)).accuracy(unseen, test.labels)


def run(path: Path, kinds: tuple[str, str], seed: int, shared: bool) -> dict[str, Any]:
    """Train once and probe both branches, before and after."""
    splits = multiple_features(path, kinds)
    train, test = splits.train, splits.test
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    first, second = encoders(train)
    made = [Expander((128, 256, 256)) for _ in range(1 if shared else 2)]
    model = VICReg(first, made[0], second, None if shared else made[1])

    def views(index: Tensor) -> list[Tensor]:
        picked = [kind[index] for kind in train.inputs]
        return [x + NOISE * torch.randn(x.shape, generator=generator) for x in picked]

    with torch.no_grad():
        for _ in range(20):
            model(*views(torch.randperm(len(train), generator=generator)[:BATCH]))
    random = [probe(encoder, train, test, kind) for kind, encoder in enumerate((first, second))]
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, STEPS, pct_start=0.15)
    loss = VICRegLoss()
    for _ in range(STEPS):
        terms = loss(*model(*views(torch.randperm(len(train), generator=generator)[:BATCH])))
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        schedule.step()
    trained = [probe(encoder, train, test, kind) for kind, encoder in enumerate((first, second))]
    raw = [probe(nn.Flatten(), train, test, kind) for kind in range(2)]
    return {"kinds": kinds, "seed": seed, "shared": shared, "raw": raw, "random": random, "trained": trained}


def measure(path: Path, seeds: int) -> dict[str, Any]:
    """Return one entry a seed, with and without a shared expander."""
    cases = [(kinds, seed, shared) for kinds in PAIRS for shared in (True, False) for seed in range(seeds)]
    return {"rule": RULE, "runs": [run(path, *case) for case in cases]}


def table(content: dict[str, Any]) -> str:
    """Return one line a branch and expander."""
    rows = []
    cases = dict.fromkeys((tuple(entry["kinds"]), entry["shared"]) for entry in content["runs"])
    for kinds, shared in cases:
        runs = [entry for entry in content["runs"] if (tuple(entry["kinds"]), entry["shared"]) == (kinds, shared)]
        for place, kind in enumerate(kinds):
            cells = []
            for key in ("raw", "random", "trained"):
                values = [entry[key][place] for entry in runs]
                cells.append(f"{statistics.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})")
            cells[0] = cells[0].partition(" ")[0]
            other = NAMES[kinds[1 - place]]
            rows.append([NAMES[kind], other, "one for both" if shared else "one each", *cells])
    return markdown(["input", "with", "expander", "input itself", "random", "VICReg"], rows, numbers=(3, 4, 5))


def main() -> None:
    parser = command.parser(__doc__, "vicreg_kinds")
    parser.add_argument("path", type=Path, help="mfeat.npz")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each")
    options = parser.parse_args()
    command.run(
        options, partial(measure, options.path, options.seeds), table, lambda c: (c["rule"], table(c)), peer=False
    )


if __name__ == "__main__":
    main()
