"""Whether embeddings have collapsed: measures of their spread, rank and agreement, and what these say in words."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from poise.objectives.decorrelation import symmetric_product, wide

RANKME_EPS = 1e-7
SMALL_STD = 0.1  # of the floor: a column below it has all but vanished
ONE_DIRECTION = 0.3  # scale-free: collapsed runs on moved digits end at 0.18, healthy ones at 0.7 to 0.9
LOW_RANK = 0.05  # of the largest rank that a batch can have
CORRELATION_ROWS = 1024  # of the correlation matrix made at a time


@dataclass(frozen=True)
class Spread:
    """Standard deviations of embeddings by column, and the share of columns below a tenth of the floor."""

    mean: float
    minimum: float
    share_small: float


@dataclass(frozen=True)
class Agreement:
    """Mean cosine of a sample's two views, and of views of different samples."""

    positive: float
    shuffled: float


@dataclass(frozen=True)
class Finding:
    """What is wrong with embeddings: its name, the term of the loss that guards against it, and a sentence."""

    name: str
    term: str
    message: str

    def __str__(self) -> str:
        return f"{self.name}: {self.message}."


@torch.no_grad()
def spread(z: Tensor, floor: float = 1.0) -> Spread:
    """Return the standard deviations of the columns of embeddings (N, D), with N - 1; `floor` is the loss's target."""
    deviation = _checked(z).std(dim=0)
    return Spread(
        deviation.mean().item(), deviation.min().item(), (deviation < SMALL_STD * floor).double().mean().item()
    )


@torch.no_grad()
def scale_free_deviation(z: Tensor) -> float:
    """Return the mean standard deviation of L2-normalised rows, times sqrt(D): 1 is healthy, 0 one direction for all.

    Chen and He (2021), "Exploring simple siamese representation learning", section 4.1.
    """
    z = _checked(z)
    return (F.normalize(z, dim=1).std(dim=0).mean() * z.shape[1] ** 0.5).item()


@torch.no_grad()
def effective_rank(z: Tensor) -> float:
    """Return RankMe: exp of the entropy of the singular values of embeddings (N, D) as they are, not centred.

    Between 1 and min(N, D); blind to scale, so look at `spread` beside it. Compares runs of one method on equally many
    samples (25,600 in the paper). Garrido, Balestriero, Najman and LeCun (2023), "RankMe", equations 1 and 2.
    """
    z = _checked(z).double()
    gram = z @ z.t() if z.shape[0] <= z.shape[1] else z.t() @ z
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    p = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny) + RANKME_EPS
    return (-(p * p.log()).sum()).exp().item()


@torch.no_grad()
def participation_ratio(z: Tensor) -> float:
    """Return (tr C)^2 / |C|_F^2 of the covariance C of embeddings (N, D): columns that share the variance equally.

    No eigenvalues are needed, and the smaller of the N x N and D x D matrices is made. 0 where nothing varies.
    """
    z = _checked(z)
    centred = z - z.mean(dim=0)
    matrix = symmetric_product(centred if z.shape[0] <= z.shape[1] else centred.t())
    total = matrix.diagonal().sum().square()
    return (total / matrix.square().sum().clamp_min(torch.finfo(z.dtype).tiny)).item()


@torch.no_grad()
def mean_correlation(z: Tensor) -> float:
    """Return the mean |correlation| of two different columns of embeddings (N, D); constant columns correlate 0."""
    z = _checked(z)
    width = z.shape[1]
    if width < 2:
        return 0.0
    columns = F.normalize(z - z.mean(dim=0), dim=0)
    size = sum((part.t() @ columns).abs().sum(dtype=torch.float64) for part in columns.split(CORRELATION_ROWS, dim=1))
    own = columns.square().sum(dtype=torch.float64)
    return ((size - own) / (width * (width - 1))).item()


@torch.no_grad()
def agreement(first: Tensor, second: Tensor) -> Agreement:
    """Return the cosines of two views (N, D) of one batch; `shuffled` is over all pairs of different samples.

    A gap between the two says that embeddings tell samples apart; both near 1 is a collapse.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"agreement compares two views of one batch, and got {tuple(first.shape)} and {tuple(second.shape)}; pass "
            "both alike."
        )
    first, second = (F.normalize(_checked(view), dim=1).double() for view in (first, second))
    number = len(first)
    own = (first * second).sum()
    others = first.sum(dim=0) @ second.sum(dim=0) - own
    return Agreement((own / number).item(), (others / (number * (number - 1))).item())


def find_collapse(z: Tensor, *, floor: float | None = 1.0) -> Finding | None:
    """Return how embeddings (N, D) have collapsed, or None.

    To a point: the standard deviations are a tenth of `floor` or less (None, for losses without a target of scale:
    `scale_free_deviation` is 0.3 or less). Of dimensions: those of most columns are. Of rank: neither is so, but the
    effective rank is below a twentieth of min(N, D). It takes both to tell: the rank is blind to scale, and standard
    deviations are to copies of one column. Of fewer than a few dozen samples or dimensions the rank says little.
    """
    z = _checked(z)
    if not bool(z.isfinite().all()):
        message = (
            f"{int((~z.isfinite().all(dim=1)).sum())} of {len(z)} embeddings hold NaN or infinity; lower the learning "
            "rate, or warm it up for longer"
        )
        return Finding("non-finite embeddings", "none", message)
    return _point(z, floor) or _rank(z)


def _point(z: Tensor, floor: float | None) -> Finding | None:
    """Report embeddings that are one for all samples, or most of whose columns are."""
    seen = spread(z, 1.0 if floor is None else floor)
    advice = (
        "look at the variance term: raise its weight, or lower that of the invariance, which a constant satisfies; "
        "then begin anew, since its gradient vanishes at a point"
    )
    if floor is None:
        deviation = scale_free_deviation(z)
        if deviation > ONE_DIRECTION:
            return None
        where = f"the standard deviation of normalised embeddings is {deviation:.2g} where 1 is healthy"
    elif seen.mean <= SMALL_STD * floor:
        where = f"the mean standard deviation of a dimension is {seen.mean:.2g}, asked: {floor:g}"
    elif seen.share_small > 0.5:
        where = f"{seen.share_small:.0%} of the dimensions have a standard deviation below {SMALL_STD * floor:g}"
        message = f"most of the {z.shape[1]} dimensions are constant: {where}; {advice}"
        return Finding("collapse of dimensions", "variance", message)
    else:
        return None
    return Finding("collapse to a point", "variance", f"all samples have nearly one embedding: {where}; {advice}")


def _rank(z: Tensor) -> Finding | None:
    """Report embeddings whose dimensions vary but repeat one another."""
    most = min(z.shape)
    rank = effective_rank(z)
    if rank >= max(LOW_RANK * most, 1.5):
        return None
    message = (
        f"the {z.shape[1]} dimensions vary but repeat one another: their effective rank is {rank:.3g} of {most} and "
        f"their mean correlation {mean_correlation(z):.2f}; look at the covariance term: raise its weight"
    )
    return Finding("collapse of rank", "covariance", message)


def _checked(z: Tensor) -> Tensor:
    """Return embeddings in float32 or better, or raise ValueError: (N, D) with N of at least 2 is needed."""
    if z.dim() != 2 or len(z) < 2 or not z.shape[1] or not z.is_floating_point():
        kind = f"{str(z.dtype).removeprefix('torch.')} {tuple(z.shape)}"
        raise ValueError(f"embeddings are (N, D) with at least 2 samples, and these are {kind}; pass such a batch.")
    return wide(z.detach())
