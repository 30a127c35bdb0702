"""What is looked at once VICReg has trained an encoder: a random one beside it, the embeddings' spectrum, a map."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from poise.data import Samples
from poise.objectives import (
    VICRegLoss,
    agreement,
    effective_rank,
    find_collapse,
    fit_linear_probe,
    mean_correlation,
    participation_ratio,
    scale_free_deviation,
    spread,
)
from poise.tasks.pictures import png
from poise.tasks.probing import SETTLING, settle
from poise.tasks.vicreg_networks import build_model

if TYPE_CHECKING:
    from poise.tasks.vicreg import VICRegTask

LOOKED_AT = 4  # batches whose embeddings are looked at
MAPPED = 400  # test samples on the map
SHOWN_CLASSES, NEIGHBOURS = 10, 7  # rows and columns of neighbours


@torch.no_grad()
def analyse(task: VICRegTask) -> dict[str, Any]:
    """Return everything that the report shows and training did not record."""
    views = [task.training_batch(index) for index in range(LOOKED_AT)]
    first, second = _embeddings(task, views)
    embeddings = torch.cat([first, second])
    finding = find_collapse(embeddings, floor=task.floor)
    seen = spread(embeddings)
    train, test = task.features("train"), task.features("test")
    random = _random_probes(task)
    pairs = agreement(first, second)
    return {
        "finding": None if finding is None else str(finding),
        "random_probe_accuracy": random[0],
        "random_probe_accuracies": random,
        "embedding": {
            "mean standard deviation": seen.mean,
            "smallest standard deviation": seen.minimum,
            "standard deviation of normalised rows, times sqrt(D)": scale_free_deviation(embeddings),
            "effective rank (RankMe)": effective_rank(embeddings),
            "participation ratio": participation_ratio(embeddings),
            "mean correlation of two dimensions": mean_correlation(embeddings),
            "cosine of two views of a sample": pairs.positive,
            "cosine of views of two samples": pairs.shuffled,
        },
        "floors": floors(task, len(views[0][0]), embeddings.shape[1]),
        "spectrum": torch.linalg.eigvalsh(torch.cov(embeddings.double().t())).flip(0).clamp_min(0).tolist(),
        "map": _map(test),
        "neighbours": _neighbours(task, train, test),
    }


def floors(task: VICRegTask, batch: int, dimensions: int) -> dict[str, float]:
    """Return what each term of VICReg measures on independent embeddings of standard deviation 1, equal in both views.

    A batch of B rows shows covariances of variance 1 / (B - 1) between D columns that have none.
    """
    if not isinstance(task.loss, VICRegLoss):
        return {}
    branches = 1 if task.loss.convention == "vicregl" else 2
    return {"invariance": 0.0, "variance": 0.0, "covariance": branches * (dimensions - 1) / max(batch - 1, 1)}


def _embeddings(task: VICRegTask, views: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, Tensor]:
    """Return the embeddings of both views of a few batches, in evaluation mode."""
    task.model.eval()
    found = [task.model(*(view.to(task.device) for view in pair[:2])) for pair in views]
    return torch.cat([first for first, _ in found]).cpu(), torch.cat([second for _, second in found]).cpu()


def _random_probes(task: VICRegTask) -> list[float]:
    """Return the linear probe's accuracy on the same encoders before any training, their batch norm settled."""
    torch.manual_seed(task.config.seed)
    model = build_model(task.config, task.shapes).to(task.device)
    for branch in task.branches:
        batches = (task.training_batch(index)[branch].to(task.device) for index in range(SETTLING))
        settle(model.branch(branch)[0], batches)
    found = []
    for branch in task.branches:
        train, test = (task.features(part, branch, model) for part in ("train", "test"))
        probe = fit_linear_probe(train.inputs, train.labels, len(task.class_names))
        found.append(probe.accuracy(test.inputs, test.labels))
    return found


def _map(test: Samples[Tensor]) -> dict[str, Any]:
    """Return test features on their two first principal axes, with their classes."""
    features = test.inputs[:MAPPED].cpu().double()
    centred = features - features.mean(dim=0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
    return {
        "places": (centred @ axes.t()).tolist(),
        "labels": test.labels[:MAPPED].tolist(),
        "class_names": list(test.class_names),
    }


def _neighbours(task: VICRegTask, train: Samples[Tensor], test: Samples[Tensor]) -> str | None:
    """Return a PNG of test pictures, each beside its nearest training pictures by cosine; None for what is no picture.

    A row is a class: one test sample, then its neighbours, with those of another class made paler.
    """
    if len(task.shapes[0]) != 3 or task.shapes[0][0] not in (1, 3):
        return None
    queries = torch.stack([(test.labels == label).nonzero()[0, 0] for label in test.labels.unique()])[:SHOWN_CLASSES]
    similarity = F.normalize(test.inputs[queries], dim=1) @ F.normalize(train.inputs, dim=1).t()
    places = similarity.topk(min(NEIGHBOURS, len(train)), dim=1).indices
    rows = []
    for query, near in zip(queries.cpu(), places.cpu(), strict=True):
        shown = [_picture(task, "test", int(query))]
        for place in near.tolist():
            tile = _picture(task, "train", place)
            same = train.labels[place] == test.labels[query]
            shown.append(tile if same else 0.35 * tile + 0.65)
        rows.append(torch.cat([_framed(tile) for tile in shown], dim=2))
    sheet = (torch.cat(rows, dim=1) * 255).round().to(torch.uint8)
    return base64.b64encode(png(sheet)).decode("ascii")


def _picture(task: VICRegTask, part: str, place: int) -> Tensor:
    """Return a sample as the probes see it, (3, H, W) in [0, 1]."""
    batches = task.plain(part)
    number, row = batches.find(place)
    x = batches[number][0][0][row].float().cpu()
    low, high = x.amin(), x.amax()  # normalised pictures leave [0, 1]
    return ((x - low) / (high - low).clamp_min(1e-6)).expand(3, -1, -1)


def _framed(tile: Tensor) -> Tensor:
    return F.pad(tile, (1, 1, 1, 1), value=1.0)
