import pytest

from benchmarks.memory import VARIANTS, Step, Variant
from poise import Implicit, Unrolled


@pytest.fixture(scope="module")
def held():
    cases = [Variant("", Implicit(), 4), Variant("", Implicit(), 12), Variant("", Unrolled(), 12)]
    return [Step.of(case).block_bytes() for case in cases]


def test_the_equilibrium_block_is_flat_in_depth_and_at_most_12_percent_of_12_evaluations(held):
    shallow, deep, unrolled = held
    assert shallow == deep
    assert deep <= 0.12 * unrolled


def test_variants_start_from_the_same_weights_and_tokens():
    first, last = Step.of(VARIANTS[0]), Step.of(VARIANTS[-1])
    assert first.tokens.equal(last.tokens)
    assert all(a.equal(b) for a, b in zip(first.model.parameters(), last.model.parameters(), strict=True))
