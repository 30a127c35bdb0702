"""The costs of language runs are those of their own training steps, and a run that never gets there is said to."""

import pytest
import torch

from benchmarks import tinyshakespeare
from benchmarks.runs import opened, training_step
from poise.cli.main import main
from poise.configs.fields import from_dict
from poise.configs.language import LanguageConfig
from poise.tasks.language import LanguageTask
from poise.tasks.run_folder import RunFolder

SHARED = "--model.d_model 16 --model.n_heads 2 --model.n_layers 1 --data.sequence_length 8 --sample_tokens 0"
KINDS = {
    "deq": "--max_steps 1 --optimizer.warmup_steps 0 --regularization.jacobian_weight 0",
    "explicit": "--max_steps 2 --model.kind explicit",
    "shallow": "--max_steps 4 --pretraining.steps 3 --pretraining.layers 40",
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
    training_step(fresh)()
    trained = opened(runs["deq"]).model.state_dict()
    for name, weight in fresh.model.state_dict().items():
        torch.testing.assert_close(weight, trained[name], msg=name)


def test_shallow_steps_count_as_what_they_take(runs):
    costs = tinyshakespeare.step_milliseconds(runs, rounds=3)
    # Three of its four steps unroll forty layers; the others evaluate a few times.
    assert costs["shallow"] > 2 * costs["deq"] and min(costs.values()) > 0


def test_a_run_that_never_reaches_the_peers_loss_is_told(runs):
    content = tinyshakespeare.measure(
        {tinyshakespeare.DEQ: runs["deq"], tinyshakespeare.PEER: runs["explicit"], "shallow": runs["shallow"]}, rounds=1
    )
    found = content["runs"]
    last = found[tinyshakespeare.PEER]["validations"][-1]["val_loss"]
    assert found[tinyshakespeare.PEER]["reached_cpu_seconds"] is not None
    assert (found[tinyshakespeare.DEQ]["reached_cpu_seconds"] is None) == (
        found[tinyshakespeare.DEQ]["val_loss"] > last
    )
    lines = tinyshakespeare.table(content).splitlines()
    assert len(lines) == 2 + 3 and " 1.00 " in lines[3]
