"""The costs of a block are those of its own run: a pair, its ratio, what it holds, and the penalty's share."""

import json

import pytest

from benchmarks import language_costs
from poise.cli.main import main


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("costs")
    (folder / "text.txt").write_text("the cat sat on the mat, and the dog lay on the log.\n" * 40)
    shared = "--model.d_model 16 --model.n_heads 2 --max_steps 2 --data.sequence_length 8 --sample_tokens 0"
    kinds = {
        "deq": "--model.n_layers 1 --data.memory 8 --regularization.jacobian_weight 1 "
        "--regularization.jacobian_frequency 0.5",
        "explicit": "--model.kind explicit --model.n_layers 1 --data.memory 8",
    }
    for name, settings in kinds.items():
        arguments = ["train", "language", "--data", str(folder / "text.txt"), "--out", str(folder / name)]
        assert main([*arguments, *shared.split(), *settings.split()]) == 0
    return folder / "deq", folder / "explicit"


def test_a_pair_is_measured_side_by_side(runs):
    (pair,) = language_costs.measure([runs], rounds=3)["pairs"]
    deq, explicit = pair["networks"]
    assert (deq["network"], explicit["network"]) == ("DEQTransformer", "TransformerLM")
    assert pair["block_over_explicit"] == pytest.approx(
        deq["block_milliseconds"] / explicit["block_milliseconds"], rel=0.05
    )
    assert deq["penalty_frequency"] == 0.5 and "penalty_frequency" not in explicit
    # A phantom gradient of two steps holds two evaluations of twelve.
    assert deq["held_of_unrolled"] == pytest.approx(2 / 12, abs=0.02)
    assert deq["held_bytes"] == pytest.approx(2 * explicit["held_bytes"], rel=0.1)
    assert deq["block_parameters"] < deq["parameters"]
    assert len(language_costs.table({"pairs": [pair]}).splitlines()) == 4 and json.dumps(pair)


def test_an_embedding_is_back_in_its_place(runs):
    timed = language_costs.Timed(runs[0])
    vocabulary = timed.model.embedding
    with timed.embedded():
        assert timed.model.embedding is not vocabulary
    assert timed.model.embedding is vocabulary
