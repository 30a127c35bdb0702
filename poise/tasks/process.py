"""Which process of a distributed launch this is, from the environment, before torch is there to ask."""

import os

# In the order in which Lightning looks: torchrun, Lightning's own launcher, Slurm.
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


def rank() -> int:
    """Return this process's rank; 0 alone writes and speaks."""
    for name in _RANK_VARIABLES:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def say(text: str) -> None:
    """Print a line, in the first process only."""
    if rank() == 0:
        print(text, flush=True)
