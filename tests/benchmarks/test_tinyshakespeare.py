"""The costs of language runs are those of their own training steps, beside the peer of the same seed."""

import json

import pytest
import torch

from benchmarks import tinyshakespeare
from benchmarks.runs import opened, training_step
from poise.cli.main import main
from poise.configs.fields import from_dict
from poise.configs.language import LanguageConfig
from poise.tasks.language import LanguageTask
from poise.tasks.optimization import build_optimizer
from poise.tasks.run_folder import RunFolder

SHARED = "--model.d_model 16 --model.n_heads 2 --model.n_layers 1 --data.sequence_length 8 --sample_tokens 0"
KINDS = {
    "deq": "--max_steps 1 --optimizer.warmup_steps 0 --regularization.jacobian_weight 0",
    "explicit": "--max_steps 2 --model.kind explicit",
    "shallow": "--max_steps 4 --pretraining.steps 3 --pretraining.layers 40",
    "penalised": "--max_steps 1 --regularization.jacobian_weight 1",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text("the cat sat on the mat, and the dog lay on the log.\n" * 40)
    for name, settings in KINDS.items():
        arguments = ["train", "language", "--data", str(folder / "text.txt"), "--out", str(folder / name)]
        assert main([*arguments, *SHARED.split(), *settings.split()]) == 0
    return {name: folder / name for name in KINDS}


def test_a_timed_step_moves_the_weights_as_a_run_does(runs):
    config = from_dict(LanguageConfig, RunFolder(runs["deq"]).read_config()[1])
    torch.manual_seed(config.seed)
    fresh = LanguageTask.create(config)
    training_step(fresh, build_optimizer(fresh.model, config.optimizer))()
    trained = opened(runs["deq"]).model.state_dict()
    for name, weight in fresh.model.state_dict().items():
        torch.testing.assert_close(weight, trained[name], msg=name)


def test_shallow_steps_count_as_what_they_take(runs):
    costs = tinyshakespeare.step_milliseconds({name: runs[name] for name in ("deq", "shallow")}, rounds=3)
    # Three of its four steps unroll forty layers; the others evaluate a few times.
    assert costs["shallow"] > 2 * costs["deq"] > 0


def test_a_run_whose_steps_are_another_thing_is_refused(runs):
    with pytest.raises(SystemExit, match="regularization.jacobian_weight of .* is 1.0, and steps are timed with 0.0"):
        tinyshakespeare.step_milliseconds({"penalised": runs["penalised"]}, rounds=1)


def test_networks_stand_beside_the_peer_of_their_seed(runs):
    folders = {"DEQ": [runs["deq"]], tinyshakespeare.PEER: [runs["explicit"]]}
    content = tinyshakespeare.measure(folders, rounds=1)
    lines = tinyshakespeare.table(content).splitlines()
    assert len(lines) == 2 + 2 and " 1.00 " in lines[3]
    assert str(runs["deq"].parent) not in json.dumps(content)  # a result says nothing of where runs lay
    (found,) = content["networks"]["DEQ"]["runs"]
    assert f"{found['val_loss']:.3f}" in lines[2] and len(found["validations"]) == 1


def test_seeds_are_compared_in_pairs():
    def run(seed, loss):
        return {"seed": seed, "val_loss": loss}

    peers = [run(0, 1.5), run(1, 1.6)]
    assert tinyshakespeare.below_peer([run(1, 1.55), run(0, 1.51), run(2, 1.0)], peers) == (1, 2)
    assert tinyshakespeare.below_peer([run(3, 1.0)], peers) == (0, 0)
