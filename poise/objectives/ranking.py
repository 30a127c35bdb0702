"""How well a score tells what is right from what is wrong."""

from __future__ import annotations

import torch
from torch import Tensor


def auroc(scores: Tensor, right: Tensor) -> float | None:
    """Return the area under the ROC curve: how often a right one has the higher score than a wrong one, ties half.

    `scores`, `right`: (n,), the second of bools. None where one of the two kinds is missing: there is nothing to tell
    apart. Mann and Whitney (1947); Hanley and McNeil (1982).
    """
    if scores.shape != right.shape or scores.dim() != 1:
        raise ValueError(
            f"auroc takes scores and verdicts of one shape (n,), got {tuple(scores.shape)} and {tuple(right.shape)}."
        )
    good, bad = scores[right.bool()].double(), scores[~right.bool()].double()
    if not len(good) or not len(bad):
        return None
    bad = bad.sort().values
    below, up_to = (torch.searchsorted(bad, good, right=side).double() for side in (False, True))
    return float(((below + up_to) / 2).mean() / len(bad))
