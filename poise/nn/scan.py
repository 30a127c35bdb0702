"""Linear recurrences, all positions at once."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_scan(decay: Tensor, update: Tensor, start: Tensor) -> Tensor:
    """Return c with c_t = decay_t c_{t-1} + update_t along dimension 1, c before the first position being `start`.

    `decay`, `update`: (batch, length, width). `start`: (batch, 1, width). Made of about 2 log2(length) products, each
    reaching twice as far back as the one before (Hillis and Steele 1986, "Data parallel algorithms"; for recurrences:
    Martin and Cundy 2018, "Parallelizing linear recurrent neural nets over sequence length"). What follows a position
    does not enter it.
    """
    # Invariant: c_t holds the last `reach` updates up to t, and decay the products of as many decays, where there are
    # so many positions; earlier ones are done.
    c, reach = torch.cat([start, update], dim=1), 1
    while reach < c.shape[1]:
        c = torch.cat([c[:, :reach], torch.addcmul(c[:, reach:], decay, c[:, :-reach])], dim=1)
        decay = decay[:, reach:] * decay[:, :-reach]
        reach *= 2
    return c[:, 1:]
