"""Seeded generators, and pictures drawn from them: for the tests of views."""

import torch


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(batch=6, height=9, width=11, dtype=torch.float32):
    return torch.rand(batch, 3, height, width, generator=seeded(7), dtype=dtype)
