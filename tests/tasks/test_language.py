"""The language task: what it optimises and measures, by plain formulas."""

import math

import pytest
import torch
import torch.nn.functional as F

from poise.configs.base import SolverConfig, TrainerConfig
from poise.configs.language import LanguageConfig, ModelConfig, TextDataConfig
from poise.data import DataError
from poise.nn import activation_bytes
from poise.tasks.activations import measure_activations
from poise.tasks.evaluation import measure
from poise.tasks.language import LanguageTask
from poise.tasks.plain_batches import Share
from poise.tasks.run_folder import RunFolder

TEXT = "".join(f"line {n} of a text, with {n * n} numbers\n" for n in range(40))


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def tiny(path, kind="deq", **more):
    return LanguageConfig(
        data=TextDataConfig(path=str(path), sequence_length=16, batch_size=3, eval_batch_size=3),
        model=ModelConfig(kind=kind, d_model=16, n_heads=2, n_layers=1),
        eval_solver=SolverConfig(name="anderson", scope="prefix", rtol=1e-4),
        trainer=TrainerConfig(max_steps=3, accelerator="cpu"),
        **more,
    )


@pytest.mark.parametrize("kind", ["deq", "explicit"])
def test_validation_is_the_mean_over_every_token_of_the_split(text_file, tmp_path, kind):
    task = LanguageTask.create(tiny(text_file, kind))
    valid = task.tokens["valid"].long()
    assert (len(valid) - 1) % 16 != 0 and (len(valid) - 1) // 16 % 3 != 0  # the last batches are shorter
    found = measure(task, "valid", task.config.trainer, RunFolder(tmp_path))
    task.eval()
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(valid) - 1, 16):
            window = valid[start : start + 17]
            logits = task.model(window[None, :-1])[0]
            total += F.cross_entropy(logits.double(), window[1:], reduction="sum").item()
    assert found["val_loss"] == pytest.approx(total / (len(valid) - 1), rel=1e-4)
    assert found["val_perplexity"] == pytest.approx(math.exp(found["val_loss"]))
    assert found["val_loss"] == pytest.approx(math.log(task.tokenizer.vocab_size), abs=0.5)  # untrained


def test_limits_on_validation_do_not_touch_an_evaluation(text_file, tmp_path):
    task = LanguageTask.create(tiny(text_file))
    whole = measure(task, "valid", task.config.trainer, RunFolder(tmp_path))
    limited = measure(task, "valid", TrainerConfig(limit_val_batches=1, accelerator="cpu"), RunFolder(tmp_path))
    assert limited == whole
    assert task.cost.evaluation.samples == 2 * -(-(len(task.tokens["valid"]) - 1) // 16)
    assert task.cost.forward.solves == 0


def test_the_split_that_is_not_there_is_none(text_file):
    task = LanguageTask.create(tiny(text_file))
    assert task.evaluation_batches("test") is None


def test_a_seed_decides_weights_and_batches(text_file):
    first, same, other = (LanguageTask.create(tiny(text_file, seed=seed)) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.model.embedding.weight, other.model.embedding.weight)
    assert torch.equal(first.training_batch(5)[0], same.training_batch(5)[0])
    assert not torch.equal(first.training_batch(5)[0], other.training_batch(5)[0])
    assert not torch.equal(first.training_batch(5)[0], first.training_batch(6)[0])


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_shares_are_the_whole_and_none_twice(processes):
    items = list(range(10))
    shares = [list(Share(items, rank, processes)) for rank in range(processes)]
    assert sorted(item for share in shares for item in share) == items


def test_measured_activations_leave_no_trace(text_file):
    task = LanguageTask.create(tiny(text_file))
    before = {name: value.clone() for name, value in task.state_dict().items()}
    found = measure_activations(task)
    inputs, _, _ = task.training_batch(0)
    expected = activation_bytes(lambda: task.model.solve(inputs).state, task.model.parameters())
    assert found["block_activation_bytes"] == expected
    assert all(torch.equal(before[name], value) for name, value in task.state_dict().items())
    assert all(weight.grad is None for weight in task.parameters())


def test_texts_that_cannot_be_used_are_refused(tmp_path):
    for name, content, part in (("short.txt", b"ab\n" * 9, "shorter"), ("bad.txt", b"ab\xffcd" * 99, "offset 2")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=part):
            LanguageTask.create(tiny(tmp_path / name))


def test_every_character_of_the_data_is_in_the_vocabulary(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT + "§" * 3)  # in the validation part only
    task = LanguageTask.create(tiny(path))
    assert "§" in task.tokenizer.decode(range(task.tokenizer.vocab_size))
