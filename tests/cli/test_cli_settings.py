"""Settings from defaults, recipe, file and flags, in this order whatever the order on the command line."""

import pytest
import yaml

from poise.cli.settings import resolve, split_arguments
from poise.configs.language import LanguageConfig
from tests.cli.tiny_runs import flags


def settings_of(*arguments):
    return resolve(LanguageConfig, "language", split_arguments(arguments, LanguageConfig, "poise train language"))


def test_flags_beat_the_file_which_beats_the_recipe(tmp_path):
    file = tmp_path / "some.yaml"
    file.write_text("seed: 5\nmodel: {d_model: 96, n_heads: 3}\n")
    for arguments in (
        ("--seed", "9", "--config", str(file), "--recipe", "tinyshakespeare-explicit"),
        ("--recipe", "tinyshakespeare-explicit", "--config", str(file), "--seed", "9"),
    ):
        config = settings_of(*arguments)
        assert config.recipe == "tinyshakespeare-explicit"
        assert config.data.path == "tinyshakespeare"  # the recipe's
        assert (config.model.kind, config.model.d_model) == ("explicit", 96)  # the recipe's, the file's
        assert config.seed == 9  # the flag's


def test_short_names_mean_settings():
    config = settings_of(
        *flags("--data x.txt --tokenizer bpe --max_steps 7 --model explicit --solver broyden --accelerator cpu"),
        *flags("--optimizer adamw --adjoint implicit --eval_solver picard --precision bf16-mixed"),
    )
    assert (config.data.path, config.data.tokenizer, config.trainer.max_steps) == ("x.txt", "bpe", 7)
    assert (config.model.kind, config.solver.name, config.trainer.accelerator) == ("explicit", "broyden", "cpu")
    assert (config.optimizer.name, config.adjoint.name, config.eval_solver.name) == ("adamw", "implicit", "picard")
    assert config.trainer.precision == "bf16-mixed"


@pytest.mark.parametrize(("text", "value"), [("null", None), ("None", None), ("1e-3", 1e-3), ("0", 0.0)])
def test_tolerances_may_be_absent(text, value):
    assert settings_of("--eval_solver.rtol", text).eval_solver.rtol == value


def test_values_may_follow_an_equals_sign_and_be_lists():
    config = settings_of("--optimizer.betas=[0.8, 0.9]", "--trainer.devices=2", "--trainer.limit_val_batches=3")
    assert config.optimizer.betas == (0.8, 0.9)
    assert (config.trainer.devices, config.trainer.limit_val_batches) == (2, 3)


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("1.0", 1.0), ("0.5", 0.5), ("20", 20)])
def test_a_number_of_batches_is_not_a_part_of_them(text, value):
    limit = settings_of("--limit_val_batches", text).trainer.limit_val_batches
    assert limit == value and type(limit) is type(value)


def test_what_is_printed_gives_the_same_settings_again(poise, tmp_path):
    flags = ["--recipe", "tinyshakespeare-deq", "--model.dropout", "0.1", "--solver.rtol", "1e-3"]
    _, printed, _ = poise("train", "language", "--print_config", *flags)
    assert yaml.safe_load(printed)["model"]["dropout"] == 0.1
    file = tmp_path / "again.yaml"
    file.write_text(printed)
    assert settings_of("--config", str(file)) == settings_of(*flags)


def test_a_resumed_run_keeps_its_settings():
    saved = {"seed": 4, "recipe": "demo", "model": {"d_model": 96, "n_heads": 3}}
    again = split_arguments(["--recipe", "demo", "--max_steps", "9"], LanguageConfig, "poise train language")
    config = resolve(LanguageConfig, "language", again, saved)
    assert (config.seed, config.model.d_model, config.trainer.max_steps) == (4, 96, 9)
