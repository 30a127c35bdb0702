"""Losses as functions and values, and what is measured of embeddings and predictions: torch alone, for any network."""

from poise.objectives.accuracy import correct_within
from poise.objectives.barlow import BarlowTerms, BarlowTwinsLoss
from poise.objectives.collapse import (
    Agreement,
    Finding,
    Spread,
    agreement,
    effective_rank,
    find_collapse,
    mean_correlation,
    participation_ratio,
    scale_free_deviation,
    spread,
)
from poise.objectives.confusion import (
    ClassScore,
    class_iou,
    class_scores,
    confusion_matrix,
    mean_iou,
    pixel_accuracy,
)
from poise.objectives.probes import LinearProbe, OnlineProbe, fit_linear_probe, nearest_neighbours
from poise.objectives.ranking import auroc
from poise.objectives.vicreg import (
    VICRegLoss,
    VICRegTerms,
    covariance_term,
    invariance_term,
    variance_term,
)

__all__ = [
    "Agreement",
    "BarlowTerms",
    "BarlowTwinsLoss",
    "ClassScore",
    "Finding",
    "LinearProbe",
    "OnlineProbe",
    "Spread",
    "VICRegLoss",
    "VICRegTerms",
    "agreement",
    "auroc",
    "class_iou",
    "class_scores",
    "confusion_matrix",
    "correct_within",
    "covariance_term",
    "effective_rank",
    "find_collapse",
    "fit_linear_probe",
    "invariance_term",
    "mean_correlation",
    "mean_iou",
    "nearest_neighbours",
    "participation_ratio",
    "pixel_accuracy",
    "scale_free_deviation",
    "spread",
    "variance_term",
]
