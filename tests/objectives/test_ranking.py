"""AUROC."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poise.objectives import auroc


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30))
def test_it_is_how_often_a_right_one_scores_higher(pairs):
    scores = torch.tensor([float(score) for score, _ in pairs])
    right = torch.tensor([verdict for _, verdict in pairs])
    wins = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a, good in pairs if good
        for b, other in pairs if not other
    ]  # fmt: skip
    found = auroc(scores, right)
    assert found is None if not wins else found == pytest.approx(sum(wins) / len(wins))


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="one shape"):
        auroc(torch.zeros(3), torch.zeros(2, dtype=torch.bool))
