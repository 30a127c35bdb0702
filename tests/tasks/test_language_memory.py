"""Language runs with memory: streams go on from step to step, over a stop too, and every token counts once."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from poise.cli.main import main
from poise.configs.base import RegularizationConfig, SolverConfig, TrainerConfig
from poise.configs.errors import ConfigError
from poise.configs.language import LanguageConfig, ModelConfig, TextDataConfig
from poise.tasks.evaluation import measure
from poise.tasks.language import LanguageTask
from poise.tasks.run_folder import RunFolder
from poise.tasks.training import train

TEXT = "".join(f"line {n} of a text, with {n * n} numbers\n" for n in range(60))
KINDS = [("deq", "transformer"), ("explicit", "transformer"), ("deq", "trellis"), ("explicit", "trellis")]
NETWORKS = pytest.mark.parametrize(("kind", "cell"), KINDS)


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def tiny(path, kind="deq", cell="transformer", memory=16, tokenizer="char", **more):
    if (kind, cell) == ("deq", "transformer"):  # one of the networks also remembers what its convolution reads
        more = {"convolution": 3, **more}
    sizes = {"sequence_length": 8, "batch_size": 3, "eval_batch_size": 2}
    return LanguageConfig(
        data=TextDataConfig(path=str(path), tokenizer=tokenizer, memory=memory, **sizes),
        model=ModelConfig(kind=kind, cell=cell, d_model=16, n_heads=2, n_layers=2, **more),
        eval_solver=SolverConfig(name="anderson", scope="prefix", rtol=1e-6),
        trainer=TrainerConfig(max_steps=6, val_check_interval=6, checkpoint_every_n_steps=2, accelerator="cpu"),
        sample_tokens=0,
    )


def mixed(task):
    """Return a task whose convolution, if any, has left its identity."""
    for name, weight in task.model.named_parameters():
        if name.startswith("convolution."):
            torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
    return task


@NETWORKS
def test_a_resumed_run_remembers_what_its_streams_had_seen(text_file, tmp_path, kind, cell):
    config = tiny(text_file, kind, cell)
    whole, resumed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "resumed")
    train(LanguageTask, config, whole)
    shutil.copytree(whole.path, resumed.path)
    for path in (resumed.weights, resumed.checkpoints / "step-00000006.ckpt"):
        path.unlink()
    train(LanguageTask, config, resumed, resume=True)
    expected, found = (load_file(folder.weights) for folder in (whole, resumed))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@NETWORKS
def test_training_goes_on_where_the_step_before_ended(text_file, kind, cell):
    """The losses of two steps are those of one model that reads both segments at once."""
    task = LanguageTask.create(tiny(text_file, kind, cell))
    solver = SolverConfig(name="anderson", scope="prefix", rtol=1e-6)
    config = replace(task.config, solver=solver)
    task = mixed(LanguageTask(config, task.tokenizer))
    first, second = task.training_batch(0), task.training_batch(1)
    assert first[2] and not second[2]
    assert torch.equal(first[1][:, -1], second[0][:, 0])
    found = [task.training_loss(batch)[0].item() for batch in (first, second)]
    with torch.no_grad():
        logits = task.model.head(task.model.read(torch.cat([first[0], second[0]], dim=1), None, 0)[0])
    for place, (_, targets, _) in enumerate((first, second)):
        part = logits[:, 8 * place : 8 * (place + 1)].flatten(0, 1)
        assert found[place] == pytest.approx(float(F.cross_entropy(part, targets.flatten())), abs=1e-5)
    fresh = task.training_loss((second[0], second[1], True))[0].item()
    assert abs(fresh - found[1]) > 1e-5


@NETWORKS
def test_evaluation_with_a_memory_of_everything_is_that_of_whole_streams(text_file, tmp_path, kind, cell):
    task = mixed(LanguageTask.create(tiny(text_file, kind, cell, memory=32 * 8)))
    valid = task.tokens["valid"].long()
    found = measure(task, "valid", task.config.trainer, RunFolder(tmp_path))
    task.eval()
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(valid) - 1, 256):
            stream = valid[start : start + 257]
            logits = task.model(stream[None, :-1])[0]
            total += F.cross_entropy(logits.double(), stream[1:], reduction="sum").item()
    assert found["val_loss"] == pytest.approx(total / (len(valid) - 1), rel=1e-5)


def test_evaluate_takes_another_memory(text_file, tmp_path, capsys):
    train(LanguageTask, tiny(text_file, memory=0), RunFolder(tmp_path / "run"))
    losses = {}
    for memory in (0, 16):
        assert main(["evaluate", str(tmp_path / "run"), "--memory", str(memory)]) == 0
        losses[memory] = json.loads((tmp_path / "run" / "evaluation.json").read_text())["val_loss"]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert losses[0] == pytest.approx(summary["val_loss"]) and losses[16] != losses[0]
    assert main(["evaluate", str(tmp_path / "run"), "--memory", "-1"]) == 2
    assert "--memory is -1; it must be at least 0." in capsys.readouterr().err


def test_a_memory_is_for_language_runs(tmp_path, capsys):
    small = "--model.channels [8,8] --model.groups 4 --model.expansion 1 --max_steps 1 --data.limit 64"
    assert main(["train", "classify", "--out", str(tmp_path / "run"), *small.split()]) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--memory", "8"]) == 2
    assert "--memory does not apply to a run of classify; leave it out." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "trellis", "span": 4}, "span is 4, but a trellis has none"),
        ({"cell": "trellis", "norm": "pre"}, "norm is pre, but a trellis has none"),
        ({"cell": "trellis", "d_ff": 8}, "d_ff is 8, but a trellis has none"),
        ({"cell": "trellis", "variational": True}, "variational is True, but a trellis has none"),
        ({"cell": "trellis", "convolution": 3}, "convolution is 3, but a trellis has none"),
        ({"convolution": 0}, "convolution is 0; it must be above 0"),
        ({"d_hidden": 8}, "d_hidden is 8, but a transformer has none"),
        ({"cutoffs": (20, 10)}, r"cutoffs are \[20, 10\]; pass numbers of words that grow"),
        ({"span": 0}, "span is 0; it must be above 0"),
        ({"div_value": 0.5}, "div_value is 0.5"),
        ({"n_before": -1}, "n_before is -1; it must be at least 0"),
        ({"kind": "explicit", "n_after": 1}, "n_after is 1, but only an equilibrium of the transformer has layers"),
        ({"cell": "trellis", "n_before": 1}, "n_before is 1, but only an equilibrium of the transformer has layers"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**options)


def test_clusters_want_words(text_file):
    with pytest.raises(ConfigError, match=r"char tokens do not run from frequent to rare; pass --tokenizer word"):
        LanguageConfig(model=ModelConfig(cutoffs=(10, 20)))


def test_clusters_beyond_the_vocabulary_are_refused(text_file):
    cut = ModelConfig(cutoffs=(10, 300))
    with pytest.raises(ConfigError, match=r"cutoffs are \[10, 300\], but data.vocab_size is 300; pass cutoffs below"):
        LanguageConfig(data=TextDataConfig(tokenizer="word", vocab_size=300), model=cut)
    config = LanguageConfig(data=TextDataConfig(path=str(text_file), tokenizer="word"), model=cut)
    with pytest.raises(
        ConfigError, match=r"\[10, 300\], but the words of the text, .*, number \d+; pass cutoffs below"
    ):
        LanguageTask.create(config)


@NETWORKS
def test_words_with_clusters_normalised_weights_and_dropout_train(text_file, tmp_path, kind, cell):
    more = {"cutoffs": (10, 30), "div_value": 2.0, "weight_norm": True, "dropout": 0.1}
    config = tiny(text_file, kind, cell, tokenizer="word", **more)
    folder = RunFolder(tmp_path / "run")
    summary = train(LanguageTask, config, folder)
    assert math.isfinite(summary["val_loss"]) and summary["val_loss"] < math.log(summary["vocab_size"]) + 0.5
    opened = LanguageTask.open(config, folder)
    assert measure(opened, "valid", config.trainer, folder)["val_loss"] == pytest.approx(summary["val_loss"])
    assert opened.continuation("line 3", 4, temperature=0).strip()
    name = {"transformer": "Transformer", "trellis": "TrellisNet"}[cell]
    assert f"{'An explicit ' if kind == 'explicit' else 'A DEQ-'}{name} on text.txt" in folder.report.read_text()


@pytest.mark.parametrize(
    ("kind", "options"),
    [(kind, options) for kind in ("deq", "explicit") for options in ({"norm": "pre"}, {"span": 4}, {"convolution": 1})]
    + [("deq", {"n_before": 1, "n_after": 1})],
)
def test_other_transformers_train(text_file, tmp_path, kind, options):
    summary = train(LanguageTask, tiny(text_file, kind, **options), RunFolder(tmp_path / "run"))
    assert math.isfinite(summary["val_loss"])


def test_evaluate_shows_quality_against_evaluations(text_file, tmp_path, capsys):
    folder = tmp_path / "run"
    config = tiny(text_file, memory=0)
    train(LanguageTask, config, RunFolder(folder))
    assert main(["evaluate", str(folder)]) == 0
    out = capsys.readouterr().out
    found = json.loads((folder / "evaluation.json").read_text())
    dial = found["dial"]
    budgets = [row for row in dial if row["rtol"] is None]
    by_residual = [row for row in dial if row["rtol"] is not None]
    assert [row["evaluations"] for row in budgets] == [row["max_steps"] + 2 for row in budgets]  # the phantom's two
    assert all(row["evaluations"] <= row["most_evaluations"] for row in dial)
    costs = [row["evaluations"] for row in by_residual]
    assert costs == sorted(costs) and costs[0] < costs[-1]
    assert f"{budgets[0]['loss']:.4f}" in out and "by a residual of 0.1" in out
    windows = sum(len(inputs) for inputs, _ in LanguageTask.create(config).evaluation_batches("valid"))
    assert sum(found["statuses"].values()) == windows  # the dial's own solves are no part of the evaluation's
    main(["report", str(folder)])
    assert "Perplexity against evaluations" in (folder / "report.html").read_text()
    train(LanguageTask, tiny(text_file, "explicit"), RunFolder(tmp_path / "explicit"))
    assert main(["evaluate", str(tmp_path / "explicit")]) == 0
    assert json.loads((tmp_path / "explicit" / "evaluation.json").read_text())["dial"] == []


def test_the_penalty_may_grow_and_end():
    plain = RegularizationConfig(jacobian_weight=2.0)
    assert [plain.weight_at(part) for part in (0.0, 0.5, 0.999)] == [2.0, 2.0, 2.0]
    grows = RegularizationConfig(jacobian_weight=2.0, jacobian_final_weight=4.0, jacobian_until=0.75)
    assert [grows.weight_at(part) for part in (0.0, 0.5, 0.75, 1.0)] == [2.0, 3.0, 0.0, 0.0]
    with pytest.raises(ConfigError, match="jacobian_until is 0"):
        RegularizationConfig(jacobian_until=0.0)
