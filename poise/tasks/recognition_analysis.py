"""What is looked at of a trained network: pictures with predictions, and how its equilibrium converges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from poise.data import VOID
from poise.models import MDEQ, Predictions
from poise.nn import spectral_radius
from poise.objectives import class_scores, confusion_matrix, mean_iou, pixel_accuracy
from poise.tasks.regularization import solving
from poise.tasks.sheets import BACKGROUND, class_colours, framed, heat, hexadecimal, overlay, sheet, shown

if TYPE_CHECKING:
    from poise.tasks.recognition import RecognitionTask
    from poise.tasks.recognition_views import Batch

BUDGETS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24)  # evaluations after which predictions are measured
MEASURED = 500  # pictures that they are measured on
RADII = 16  # pictures whose spectral radius is measured
CLASS_ROWS, CLASS_COLUMNS = 10, 10  # pictures of each class
SCENES = 6  # pictures with their pixels' classes
MAPPED = 8  # pictures whose residuals are mapped
RIGHT, WRONG = (1.0, 1.0, 1.0), (0.85, 0.1, 0.1)  # frames


@torch.no_grad()
def analyse(task: RecognitionTask) -> dict[str, Any]:
    """Return everything that the report shows and training did not record."""
    task.model.eval()
    found: dict[str, Any] = {}
    for kind, names in (("classes", task.seen.class_names), ("pixels", task.seen.pixel_names)):
        if names is not None and kind in task.confusion:
            matrix = task.confusion[kind]
            scores = [astuple(score) for score in class_scores(matrix.long(), names)]
            found[kind] = {"names": list(names), "matrix": matrix.long().tolist(), "scores": scores}
    if task.reads.classes:
        found["pictures"] = _pictures(task)
    if task.reads.pixels:
        found["scenes"] = _scenes(task)
    if isinstance(task.model, MDEQ):
        found |= {"budgets": _budgets(task, task.model), "residual_maps": _residual_maps(task, task.model)}
        found |= _convergence(task, task.model)
        task.model.equilibrium.counters.reset()  # these solves are none of the run's
    return found


def _batches(task: RecognitionTask, most: int) -> Iterator[Batch]:
    """Return validation pictures on the task's device, spread evenly over all: neighbours may be much alike."""
    samples = task.validated
    places = torch.linspace(0, len(samples) - 1, min(most, len(samples))).round().long()
    batches = task.plain(samples.restrict(places))
    for place in range(len(batches)):
        x, labels, pixels = batches[place]
        yield (
            x.to(task.device),
            None if labels is None else labels.to(task.device),
            None if pixels is None else pixels.to(task.device),
        )


def _pictures(task: RecognitionTask) -> dict[str, Any]:
    """Return a sheet of validation pictures, a row a class, those that are named wrongly in a red frame."""
    names = task.seen.class_names
    assert names is not None
    rows: dict[int, list[Tensor]] = {}
    mistakes = []
    for x, labels, _ in _batches(task, 2 * MEASURED):
        predicted = task.predict(x).classes
        assert labels is not None and predicted is not None
        for picture, label, named in zip(x, labels.tolist(), predicted.argmax(dim=1).tolist(), strict=True):
            row = rows.setdefault(label, [])
            if len(row) < CLASS_COLUMNS and (label in sorted(rows)[:CLASS_ROWS]):
                row.append(framed(shown(picture, task.seen.normalise), RIGHT if named == label else WRONG))
                if named != label:
                    mistakes.append((names[label], len(row), names[named]))
    kept = sorted(rows)[:CLASS_ROWS]
    order = {names[label]: place for place, label in enumerate(kept)}
    mistakes = sorted((one for one in mistakes if one[0] in order), key=lambda one: (order[one[0]], one[1]))
    return {"png": sheet([rows[label] for label in kept]), "rows": [names[label] for label in kept], "wrong": mistakes}


def _scenes(task: RecognitionTask) -> dict[str, Any]:
    """Return a sheet of validation pictures: the picture, its labels, what is predicted, and where the two differ."""
    names = task.seen.pixel_names
    assert names is not None
    rows = []
    for x, _, pixels in _batches(task, SCENES):
        predicted = task.predict_whole(x).pixels
        assert pixels is not None and predicted is not None
        for picture, labels, found in zip(x, pixels, predicted.argmax(dim=1), strict=True):
            plain = shown(picture, task.seen.normalise)
            wrong = (found != labels) & (labels != VOID)
            difference = torch.where(wrong, found, torch.full_like(found, VOID))
            tiles = [plain, *(overlay(plain, each, names) for each in (labels, found, difference))]
            rows.append([framed(tile) for tile in tiles])
    colours = zip(names, map(hexadecimal, class_colours(names)), strict=True)
    return {"png": sheet(rows), "key": [(name, colour) for name, colour in colours if name != BACKGROUND]}


def _score(task: RecognitionTask, predictions: Predictions, batch: Batch) -> dict[str, Tensor]:
    sums = {}
    for kind, logits, labels, void in (
        ("classes", predictions.classes, batch[1], None),
        ("pixels", predictions.pixels, batch[2], VOID),
    ):
        if logits is not None and labels is not None:
            sums[kind] = confusion_matrix(logits.argmax(dim=1), labels, logits.shape[1], void).cpu()
    return sums


def _budgets(task: RecognitionTask, model: MDEQ) -> dict[str, list[float]]:
    """Return what predictions are worth, and the median residual, after so many evaluations and no more."""
    solver = model.equilibrium.eval_solver or model.equilibrium.solver
    found: dict[str, list[float]] = {"evaluations": list(BUDGETS), "residual": []}
    for budget in BUDGETS:
        totals: dict[str, Tensor] = {}
        residuals = []
        with solving(model.equilibrium, replace(solver, rtol=None, max_steps=budget)):
            for batch in _batches(task, MEASURED):
                solution = model.solve(batch[0])
                residuals.append(solution.residual.cpu())
                for kind, matrix in _score(task, model.heads(solution.state, batch[0].shape[-2:]), batch).items():
                    totals[kind] = totals.get(kind, torch.zeros_like(matrix)) + matrix
        found["residual"].append(float(torch.cat(residuals).median()))
        if "classes" in totals:
            found.setdefault("accuracy", []).append(pixel_accuracy(totals["classes"]))
        if "pixels" in totals:
            found.setdefault("mean_iou", []).append(mean_iou(totals["pixels"]))
    return found


def _residual_maps(task: RecognitionTask, model: MDEQ) -> dict[str, Any]:
    """Return a sheet of pictures, each above what one more evaluation would change at each place of the finest scale.

    The norm over channels of f(z) - z, over the root mean square of that of f(z), after the evaluations of training.
    """
    x = next(_batches(task, MAPPED))[0][:MAPPED]
    solver = model.equilibrium.solver
    with solving(model.equilibrium, replace(solver, rtol=None)):
        solution = model.solve(x)
    state = solution.state[0].float()
    after = model.equilibrium.cell(solution.state, solution.context)[0].float()
    change = torch.linalg.vector_norm(after - state, dim=1)  # (batch, height, width)
    size = torch.linalg.vector_norm(after, dim=1).square().mean(dim=(1, 2), keepdim=True).sqrt()
    relative = (change / size.clamp_min(1e-12)).clamp_min(1e-12)
    low, high = (float(torch.quantile(relative.flatten().cpu(), part)) for part in (0.02, 0.999))
    pictures = [framed(shown(picture, task.seen.normalise)) for picture in x]
    maps = [framed(heat(amounts, low, high, x.shape[-2:])) for amounts in relative]
    rows = []
    for first in range(0, len(x), MAPPED // 2):
        rows += [pictures[first : first + MAPPED // 2], maps[first : first + MAPPED // 2]]
    return {"png": sheet(rows), "evaluations": solver.max_steps, "low": low, "high": high}


def _convergence(task: RecognitionTask, model: MDEQ) -> dict[str, Any]:
    """Return how many pictures needed how many evaluations, and the spectral radii at a few equilibria."""
    counts: Counter[int] = Counter()
    with solving(model.equilibrium, model.equilibrium.eval_solver or model.equilibrium.solver):
        for x, _, _ in _batches(task, MEASURED):
            counts.update(model.solve(x).steps.tolist())
        few = model.solve(next(_batches(task, RADII))[0])
    generator = torch.Generator(task.device).manual_seed(task.config.seed)
    radius = spectral_radius(model.equilibrium.cell, few.state, few.context, generator=generator).radius
    return {
        "evaluations": {str(steps): number for steps, number in sorted(counts.items())},
        "spectral_radius": {"mean": float(radius.mean()), "largest": float(radius.max()), "pictures": len(radius)},
    }
