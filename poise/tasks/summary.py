"""summary.json: one schema for every task.

identity   task, recipe, seed, steps, pretraining_steps (the first of them, which unrolled the cell a few times and
           solved nothing), parameters, versions (poise, python, torch, lightning), and what the task adds (language:
           data, tokenizer, vocab_size, model; vicreg: model, other, data, training_samples, loss; classify, segment,
           multitask: model, data, training_samples, validation_samples, validated_on, init_from; reason: model, puzzle)
quality    the task's measures on its whole validation split, named `val_...` (language: val_loss in nats a token,
           val_perplexity; vicreg: val_probe_accuracy, val_knn_accuracy, val_few_accuracy; classify: val_accuracy,
           val_top5_accuracy, val_loss; segment: val_mean_iou, val_pixel_accuracy, val_loss; multitask: all of these;
           reason: val_solved, val_solved_SIZE, val_loss in nats a position) and val_spectral_radius where it was
           asked for
cost       train_seconds, train_cpu_seconds: training steps alone, in the first process, over all resumptions;
           mean_forward_evaluations, mean_backward_evaluations: evaluations of the cell a solve in training, without
           steps of pretraining; mean_validation_evaluations: the same in validation; activation_bytes: held for the
           backward by one training batch, all up to the loss, parameters left out; block_activation_bytes: the same for
           the hidden layers alone
health     statuses, validation_statuses, backward_statuses: samples by how their solves ended, in training without
           steps of pretraining, in validation and in the backward; fixed_budget: whether training spends its budget
           untested (rtol null), which makes BUDGET no failure there

All keys stand side by side; a network without an equilibrium has no evaluations (0) and no statuses ({}).
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import lightning
import torch

import poise
from poise.report import format_value
from poise.tasks.base import Task
from poise.tasks.solving import equilibria


def summarise(task: Task, steps: int, quality: dict[str, float], activations: dict[str, int]) -> dict[str, Any]:
    """Return the summary of a trained task."""
    cost = task.cost
    return {
        "task": task.task_name,
        "recipe": task.config.recipe,
        "seed": task.config.seed,
        **task.identity(),
        "steps": steps,
        "pretraining_steps": min(steps, task.config.pretraining.steps) if task.solves else 0,
        "parameters": sum(weight.numel() for weight in task.model.parameters()),
        "versions": {
            "poise": poise.__version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "lightning": lightning.__version__,
        },
        **quality,
        "train_seconds": round(cost.train_seconds, 3),
        "train_cpu_seconds": round(cost.train_cpu_seconds, 3),
        "mean_forward_evaluations": cost.forward.mean_evaluations,
        "mean_backward_evaluations": cost.backward.mean_evaluations,
        "mean_validation_evaluations": cost.evaluation.mean_evaluations,
        **activations,
        "fixed_budget": any(layer.solver.rtol is None for layer in equilibria(task.model)),
        "statuses": cost.forward.statuses,
        "validation_statuses": cost.evaluation.statuses,
        "backward_statuses": cost.backward.statuses,
    }


def summary_table(summary: dict[str, Any], quality_names: Mapping[str, str]) -> str:
    """Return the summary as a short table for people."""
    rows = [(quality_names.get(name, name), f"{summary[name]:.4g}") for name in quality_names if name in summary]
    first = summary["pretraining_steps"]
    shallow = f", the first {first:,} shallow and in no count below" if first else ""
    rows += [
        ("parameters", f"{summary['parameters']:,}"),
        ("training", f"{summary['steps']:,} steps in {format_value(summary['train_seconds'], 'seconds')}{shallow}"),
        ("bytes held for backward", format_value(summary["activation_bytes"], "bytes")),
    ]
    if summary["mean_forward_evaluations"]:
        forward, backward = summary["mean_forward_evaluations"], summary["mean_backward_evaluations"]
        rows.append(("evaluations a solve", f"{forward:.1f} forward, {backward:.1f} backward"))
        slowest = f"{summary['mean_validation_evaluations']:.1f}, for the slowest sample of each batch"
        rows.append(("  in validation", slowest))
    for label, name in (("statuses in training", "statuses"), ("  in validation", "validation_statuses")):
        if summary[name]:
            counted = ", ".join(f"{number:,} {status}" for status, number in summary[name].items())
            fixed = name == "statuses" and summary["fixed_budget"]
            rows.append((label, f"{counted} (a fixed budget, as asked)" if fixed else counted))
    width = max(len(label) for label, _ in rows) + 2
    return "\n".join(f"  {label:{width}}{value}" for label, value in rows)
