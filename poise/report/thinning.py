"""Curves made of few points that look like all of them."""

from __future__ import annotations

from collections.abc import Sequence


def thin(positions: Sequence[float], values: Sequence[float], limit: int = 250) -> list[int]:
    """Choose the points of a curve that are drawn: its ends, and of each narrow strip the lowest and the highest.

    So the outline of a noisy curve, its ends and its extremes stay where they were.

    Args:
        positions: across the plot, 0 to 1.
        values: the curve's values, as many.
        limit: the most points that are kept, at least 4.

    Returns:
        The indices of the points kept, in their order.
    """
    count = len(positions)
    if count <= limit:
        return list(range(count))
    strips = limit // 2 - 1
    members: list[list[int]] = [[] for _ in range(strips)]
    for index, position in enumerate(positions):
        members[min(max(int(position * strips), 0), strips - 1)].append(index)
    kept = {0, count - 1}
    for strip in filter(None, members):
        kept |= {min(strip, key=values.__getitem__), max(strip, key=values.__getitem__)}
    return sorted(kept)


def spread(count: int, limit: int) -> list[int]:
    """Choose at most `limit` of `count` indices, evenly, with the first and the last.

    Args:
        count: how many there are.
        limit: the most that are kept, at least 2.
    """
    if count <= limit:
        return list(range(count))
    return [round(place * (count - 1) / (limit - 1)) for place in range(limit)]
