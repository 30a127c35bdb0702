"""Losses as functions and values: torch alone, for any network."""

from poise.objectives.barlow import BarlowTerms, BarlowTwinsLoss
from poise.objectives.vicreg import (
    VICRegLoss,
    VICRegTerms,
    covariance_term,
    invariance_term,
    variance_term,
)

__all__ = [
    "BarlowTerms",
    "BarlowTwinsLoss",
    "VICRegLoss",
    "VICRegTerms",
    "covariance_term",
    "invariance_term",
    "variance_term",
]
