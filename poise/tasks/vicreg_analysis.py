"""What is looked at once VICReg has trained an encoder: a random one beside it, the embeddings' spectrum, a map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from poise.objectives import (
    effective_rank,
    find_collapse,
    fit_linear_probe,
    mean_correlation,
    participation_ratio,
    scale_free_deviation,
    spread,
)

if TYPE_CHECKING:
    from poise.tasks.vicreg import VICRegTask

SETTLING = 20  # batches by which batch norm's statistics of random weights settle
LOOKED_AT = 4  # batches whose embeddings are looked at
MAPPED = 400  # test samples on the map


@torch.no_grad()
def analyse(task: VICRegTask) -> dict[str, Any]:
    """Return everything that the report shows and training did not record."""
    embeddings = _embeddings(task)
    finding = find_collapse(embeddings, floor=task.floor)
    seen = spread(embeddings)
    return {
        "finding": None if finding is None else str(finding),
        "random_probe_accuracy": _random_probe(task),
        "embedding": {
            "mean standard deviation": seen.mean,
            "smallest standard deviation": seen.minimum,
            "standard deviation of normalised rows, times sqrt(D)": scale_free_deviation(embeddings),
            "effective rank (RankMe)": effective_rank(embeddings),
            "participation ratio": participation_ratio(embeddings),
            "mean correlation of two dimensions": mean_correlation(embeddings),
        },
        "spectrum": torch.linalg.eigvalsh(torch.cov(embeddings.double().t())).flip(0).clamp_min(0).tolist(),
        "map": _map(task),
    }


def _embeddings(task: VICRegTask) -> Tensor:
    """Return embeddings of both views of a few batches, in evaluation mode."""
    task.model.eval()
    views = [task.training_batch(index) for index in range(LOOKED_AT)]
    found = [torch.cat(task.model(*(view.to(task.device) for view in pair))) for pair in views]
    return torch.cat(found).cpu()


def _random_probe(task: VICRegTask) -> float:
    """Return the linear probe's accuracy on the same encoder before any training, its batch norm settled."""
    from poise.tasks.vicreg import build_encoder

    torch.manual_seed(task.config.seed)
    encoder = build_encoder(task.config).to(task.device).train()
    for index in range(SETTLING):
        encoder(task.training_batch(index)[0].to(task.device))
    encoder.eval()

    def features(x: Tensor | tuple[Tensor, ...]) -> Tensor:
        assert isinstance(x, Tensor)
        return torch.cat([encoder(part.to(task.device)) for part in x.split(task.config.data.eval_batch_size)])

    train, test = task.probed.train, task.probed.test
    probe = fit_linear_probe(features(train.inputs), train.labels.to(task.device), len(train.class_names))
    return probe.accuracy(features(test.inputs), test.labels.to(task.device))


def _map(task: VICRegTask) -> dict[str, Any]:
    """Return the test features on their two first principal axes, with their classes."""
    test = task.probed.test
    assert isinstance(test.inputs, Tensor)
    features = task.features(test.inputs[:MAPPED]).cpu().double()
    centred = features - features.mean(dim=0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
    return {
        "places": (centred @ axes.t()).tolist(),
        "labels": test.labels[:MAPPED].tolist(),
        "class_names": list(test.class_names),
    }
