"""What is looked at once a language model is trained: its solves, its memory and its text, as plain values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from poise.fixed_point import Phantom, Picard, Unrolled
from poise.models import DEQTransformer, DEQTrellisNet
from poise.nn import Equilibrium, activation_bytes
from poise.tasks.regularization import observed, solving

if TYPE_CHECKING:
    from poise.tasks.language import LanguageTask

SAMPLES = 8  # validation windows whose residuals are drawn
TRACE_STEPS = 24  # evaluations that a trained cell needs at most, in the trial
BATCHES = 4  # validation batches whose evaluations are counted
DEPTHS = (1, 2, 4, 8, 12, 16, 24)
BUDGETS = (1, 2, 3, 4, 6, 8, 12, 16, 24)  # evaluations after which the loss is measured
TOLERANCES = (0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4)  # at which every window may stop
DIALLED = 4096  # tokens of validation that the loss is measured on
TEMPERATURES = (0.8, 0.5)  # below 1 a small model spells better; the first is printed as well


def analyse(task: LanguageTask) -> dict[str, Any]:
    """Return everything that the report shows and training did not record."""
    found: dict[str, Any] = {"texts": _texts(task)}
    if isinstance(task.model, DEQTransformer | DEQTrellisNet):
        found |= {"residuals": _residuals(task, task.model), "evaluations": _evaluations(task, task.model)}
        found["memory"] = _memory(task, task.model)
        task.model.equilibrium.counters.reset()  # these solves are none of the run's
    return found


def _batches(task: LanguageTask) -> Iterator[Tensor]:
    batches = task.evaluation_batches("valid") or []
    for index in range(min(BATCHES, len(batches))):
        yield batches[index][0][:, : task.config.data.sequence_length].to(task.device)  # a stream's first segment


@torch.no_grad()
def _residuals(task: LanguageTask, model: DEQTransformer | DEQTrellisNet) -> dict[str, list[list[float]]]:
    """Residuals of some validation windows at each evaluation, by the eval solver and by plain iteration."""
    layer = model.equilibrium
    solver = layer.eval_solver or layer.solver
    tokens = next(_batches(task))[:SAMPLES]
    # rtol=0 never passes: every curve runs to the end, or to the floor of the precision.
    solvers = {
        type(solver).__name__: replace(solver, rtol=0.0, atol=0.0, max_steps=TRACE_STEPS),
        "Picard": Picard(rtol=0.0, max_steps=TRACE_STEPS, scope=solver.scope),
    }
    found = {}
    for name, one in solvers.items():
        with solving(layer, one):
            found[name] = model.solve(tokens).trace.T.tolist()
    return found


@torch.no_grad()
def _evaluations(task: LanguageTask, model: DEQTransformer | DEQTrellisNet) -> dict[str, int]:
    """How many validation windows needed how many evaluations."""
    counts: Counter[int] = Counter()
    for tokens in _batches(task):
        counts.update(model.solve(tokens).steps.tolist())
    return {str(steps): number for steps, number in sorted(counts.items())}


def _memory(task: LanguageTask, model: DEQTransformer | DEQTrellisNet) -> dict[str, list[int]]:
    """Bytes that the hidden layers hold for the backward of one window, by evaluations, beside the unrolled network."""
    layer = model.equilibrium
    tokens = task.training_batch(0)[0][:1].to(task.device)
    parameters = list(model.parameters())
    found: dict[str, list[int]] = {"depths": list(DEPTHS)}
    for name, adjoint in (("equilibrium", layer.adjoint), ("unrolled", Unrolled())):
        found[name] = []
        for depth in DEPTHS:
            with solving(layer, Picard(rtol=None, max_steps=depth, scope=layer.solver.scope), adjoint):
                found[name].append(activation_bytes(lambda: model.read(tokens, None, 0)[0], parameters))
    return found


@torch.no_grad()
def dial(task: LanguageTask) -> list[dict[str, Any]]:
    """Return what quality costs: loss and evaluations a window where all stop alike, and where each stops by itself.

    Rows without an `rtol` spend the budget `max_steps` untested; the others stop every window at that residual, or at
    the budget that the eval solver has. Evaluations are those of the cell, the adjoint's own steps among them.
    """
    model: Any = task.model
    layer: Equilibrium = model.equilibrium
    solver, adjoint = layer.eval_solver or layer.solver, layer.adjoint
    beside = adjoint.steps if isinstance(adjoint, Phantom) and adjoint.records else 0
    settings: list[dict[str, Any]] = [{"rtol": None, "max_steps": budget} for budget in BUDGETS]
    settings += [{"rtol": rtol, "max_steps": solver.max_steps} for rtol in TOLERANCES]
    batches = task.evaluation_batches("valid") or []
    inputs, targets = (part[: max(1, DIALLED // part.shape[1])].to(task.device) for part in batches[0])
    length, rows = task.config.data.sequence_length, []
    for setting in settings:
        past, losses = None, []
        with solving(layer, replace(solver, **setting)), observed(model) as solves:
            for segment, wanted in zip(inputs.split(length, dim=1), targets.split(length, dim=1), strict=True):
                state, past = model.read(segment, past, task.config.data.memory)
                losses.append(model.losses(state, wanted).double().flatten())
        steps = torch.cat([one.steps for one in solves]).double()
        loss = float(torch.cat(losses).mean())
        rows.append(
            {
                **setting,
                "evaluations": float(steps.mean()) + beside,
                "most_evaluations": float(steps.max()) + beside,
                "loss": loss,
                "perplexity": math.exp(min(loss, 700.0)),
            }
        )
    layer.counters.reset()  # these solves are none of the run's
    return rows


def _texts(task: LanguageTask) -> list[dict[str, str]]:
    if not task.config.sample_tokens:
        return []
    prompt = task.sample_prompt()
    return [
        {
            "label": f"temperature {temperature:g}",
            "prompt": prompt,
            "text": task.continuation(
                prompt, task.config.sample_tokens, temperature=temperature, seed=task.config.seed
            ),
        }
        for temperature in TEMPERATURES
    ]
