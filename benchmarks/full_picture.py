"""How much memory does one picture of 360x480 take, to train a step on and to evaluate, with a class at each pixel?

`python -m benchmarks.full_picture NETWORK ADJOINT WORK` prints the peak of its own process, a fresh one, in bytes.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.results import markdown
from poise import Phantom
from poise.fixed_point import Adjoint
from poise.models import MDEQ, Architecture
from poise.models.mdeq import ADJOINT, PRESETS, SOLVER
from poise.nn import jacobian_penalty

HEIGHT, WIDTH, PIXEL_CLASSES = 360, 480, 11
LIMIT = 3 * 10**9
CHANNELS = (24, 48, 80)
NETWORKS: dict[str, Architecture] = {
    "half": Architecture(CHANNELS, downsamplings=1),
    "full": Architecture(CHANNELS, downsamplings=0),
    "small": PRESETS["small"],
}
SHAPES = {
    "half": f"{CHANNELS} at 180x240",
    "full": f"{CHANNELS} at 360x480",
    "small": f"small, {PRESETS['small'].channels} at 90x120",
}
ADJOINTS: dict[str, tuple[Adjoint, int]] = {
    "Implicit()": (ADJOINT, 8),
    "Phantom(3)": (Phantom(3), 5),
}
WORK = ("step", "penalised step", "evaluation")
RULE = (
    f"Peak resident memory of a fresh process, PyTorch itself included, for one picture of {HEIGHT}x{WIDTH} with "
    f"{PIXEL_CLASSES} pixel classes, float32, one thread. Step: forward with 8 evaluations (Phantom(3) records 3 of "
    "them), backward and Adam; penalised: with the Jacobian penalty. Evaluation: MDEQ's own solver, to 1e-3 or 30 "
    f"evaluations. Seconds: CPU time of that. Limit: {LIMIT / 1e9:g} GB."
)


def perform(network: str, adjoint: str, work: str) -> dict[str, Any]:
    """Do the work once in this process; return its parameters, CPU seconds and the process's peak bytes so far."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    gradient, evaluations = ADJOINTS[adjoint]
    model = MDEQ(
        NETWORKS[network],
        pixel_classes=PIXEL_CLASSES,
        solver=replace(SOLVER, rtol=None, max_steps=evaluations),
        adjoint=gradient,
        eval_solver=SOLVER,
    )
    x = torch.randn(1, 3, HEIGHT, WIDTH)
    labels = torch.randint(PIXEL_CLASSES, (1, HEIGHT, WIDTH))
    start = time.process_time()
    if work == "evaluation":
        with torch.no_grad():
            model.eval().segment(x)
    else:
        optimizer = torch.optim.Adam(model.parameters())
        solution = model.solve(x)
        logits = model.heads(solution.state, x.shape[-2:]).pixels
        assert logits is not None
        loss = F.cross_entropy(logits, labels)
        if work == "penalised step":
            state = tuple(part.detach() for part in solution.state)
            loss = loss + 0.4 * jacobian_penalty(model.equilibrium.cell, state, solution.context)
        loss.backward()
        optimizer.step()
    seconds = round(time.process_time() - start, 2)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "cpu_seconds": seconds, "peak_bytes": peak_bytes()}


def peak_bytes() -> int:
    """Return the most bytes that were resident in this process (Linux).

    Not `resource.getrusage`, whose ru_maxrss begins with what the process that started this one had.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def measure() -> dict[str, Any]:
    """Do all work, each in a process of its own, and return one entry each."""
    found = []
    for network in NETWORKS:
        for adjoint in ADJOINTS:
            for work in WORK if adjoint == "Implicit()" else WORK[:2]:
                made = subprocess.run(
                    [sys.executable, "-m", "benchmarks.full_picture", network, adjoint, work],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                parameters, seconds, peak = made.stdout.split()
                found.append(
                    {
                        "network": SHAPES[network],
                        "parameters": int(parameters),
                        "work": work,
                        "adjoint": "" if work == "evaluation" else adjoint,
                        "peak_bytes": int(peak),
                        "cpu_seconds": float(seconds),
                    }
                )
    return {"rule": RULE, "pictures": found}


def table(content: dict[str, Any]) -> str:
    """Return the peaks as a Markdown table."""
    rows = [
        [
            entry["network"],
            f"{entry['parameters']:,}",
            entry["work"],
            entry["adjoint"],
            f"{entry['peak_bytes'] / 1e9:.2f}",
            f"{entry['cpu_seconds']:.1f}",
        ]
        for entry in content["pictures"]
    ]
    header = ["channels, finest scale", "parameters", "work", "adjoint", "peak, GB", "CPU, s"]
    return markdown(header, rows, numbers=(1, 4, 5))


def verdict(content: dict[str, Any]) -> str:
    """Say what is above the limit."""
    above = [
        f"{entry['network']}, {entry['work']} with {entry['adjoint']} ({entry['peak_bytes'] / 1e9:.2f} GB)"
        for entry in content["pictures"]
        if entry["peak_bytes"] > LIMIT
    ]
    return f"Above {LIMIT / 1e9:g} GB: {'; '.join(above) or 'nothing'}."


if __name__ == "__main__":
    print(*perform(*sys.argv[1:]).values())
