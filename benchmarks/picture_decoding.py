"""How many pictures a second are decoded and viewed, made when they are asked for and ahead by two threads?

`python -m benchmarks.picture_decoding [--markdown] [--json FILE]` (about a minute; the public sets by POISE_DATA)
"""

from __future__ import annotations

import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import command
from benchmarks.results import markdown
from poise.data import (
    Prefetched,
    ShuffledBatches,
    cifar_views,
    cityscapes,
    packed_pictures,
    segmentation_views,
)

SETS = ("cifar10", "camvid", "cityscapes")
WORKERS = (0, 2)
BATCHES = {"cifar10": 10, "camvid": 10, "cityscapes": 4}
RULE = (
    "Pictures a second, the median of the rounds. cifar10: 256 JPEG of 32x32 a batch, cut and mirrored. camvid: 12 "
    "JPEG of 120x160 with label maps, scaled, cut and mirrored. cityscapes: 4 pairs of PNG of 1024x2048 (smoothed "
    "noise, not the public set), scaled, cut to 512x1024 and mirrored. Waiting: what takes the batches waits after "
    "each as long as one takes to make, as for an accelerator that is as fast; idle: it takes them at once."
)


def batches(name: str, folder: Path) -> ShuffledBatches:
    """Return the training batches of a set, encoded."""
    if name == "cifar10":
        return ShuffledBatches(packed_pictures(folder / name, limit=10000, lazy=True).train, 256, 0, cifar_views())
    if name == "camvid":
        samples = packed_pictures(folder / name, lazy=True).train
        return ShuffledBatches(samples, 12, 0, segmentation_views((120, 160)))
    return ShuffledBatches(cityscapes(folder).train, 4, 0, segmentation_views((512, 1024)))


@contextmanager
def street_scenes(number: int = 16) -> Iterator[Path]:
    """Yield a folder with so many pairs in Cityscapes's layout and size."""
    from PIL import Image

    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        for part, several in (("train", number), ("val", 1)):
            pictures, labels = (Path(name) / kind / part / "city" for kind in ("leftImg8bit", "gtFine"))
            pictures.mkdir(parents=True)
            labels.mkdir(parents=True)
            for place in range(several):
                small = generator.integers(0, 256, (128, 256, 3), dtype=np.uint8)
                picture = Image.fromarray(small).resize((2048, 1024), Image.Resampling.BICUBIC)
                picture.save(pictures / f"city_{place}_leftImg8bit.png")
                ids = generator.integers(0, 34, (64, 128), dtype=np.uint8)
                label = Image.fromarray(ids).resize((2048, 1024), Image.Resampling.NEAREST)
                label.save(labels / f"city_{place}_gtFine_labelIds.png")
        yield Path(name)


def rate(made: ShuffledBatches, number: int, workers: int, wait: float) -> float:
    """Return pictures a second of so many batches, the threads' start included, with a wait after each."""
    start = time.perf_counter()
    for _ in Prefetched(made, number=number, workers=workers):
        time.sleep(wait)
    return number * made.size / (time.perf_counter() - start)


def measure(names: list[str], rounds: int) -> dict[str, Any]:
    """Time all sets, workers and takers in turn, and return the result."""
    public = Path(os.environ.get("POISE_DATA", ""))
    found = []
    with street_scenes() as folder:
        for name in names:
            made = batches(name, folder if name == "cityscapes" else public)
            made(0)
            start = time.perf_counter()
            made(1)
            one = time.perf_counter() - start
            cases = [(workers, wait) for wait in (0.0, one) for workers in WORKERS]
            rates: dict[tuple[int, float], list[float]] = {case: [] for case in cases}
            for _ in range(rounds):
                for workers, wait in cases:
                    rates[workers, wait].append(rate(made, BATCHES[name], workers, wait))
            for (workers, wait), values in rates.items():
                found.append(
                    {
                        "set": name,
                        "taker": "waiting" if wait else "idle",
                        "workers": workers,
                        "pictures_per_second": round(statistics.median(values), 1),
                    }
                )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"rule": RULE, "cores": len(os.sched_getaffinity(0)), "rounds": rounds, "peak_mib": peak, "rows": found}


def table(content: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    rates = {(row["set"], row["taker"], row["workers"]): row["pictures_per_second"] for row in content["rows"]}
    rows = [
        [name, taker, *(f"{rates[name, taker, workers]:,.1f}" for workers in WORKERS)]
        for name, taker in dict.fromkeys((row["set"], row["taker"]) for row in content["rows"])
    ]
    return markdown(["set", "taker", "no worker", "2 workers"], rows, numbers=(2, 3))


def report(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the rule, the table and the memory."""
    return RULE, table(content), f"{content['cores']} cores; at most {content['peak_mib']} MiB in all."


def main() -> None:
    options = command.parser(__doc__, "picture_decoding", cells=SETS, rounds=7).parse_args()
    command.run(options, lambda: measure(options.cells, options.rounds), table, report, peer=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
