"""Settings as plain values: they round-trip, and what does not fit is refused in one sentence."""

import dataclasses
import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from poise.configs.base import OptimizerConfig, SolverConfig, TrainerConfig
from poise.configs.errors import ConfigError
from poise.configs.fields import convert, from_dict, leaves, to_dict
from poise.configs.language import LanguageConfig, ModelConfig, TextDataConfig


def test_settings_survive_yaml():
    config = LanguageConfig(
        recipe="x",
        seed=7,
        model=ModelConfig(kind="explicit", d_model=64, n_heads=2),
        solver=SolverConfig(rtol=None),
        optimizer=OptimizerConfig(betas=(0.8, 0.99), eps=1e-12),
        trainer=TrainerConfig(limit_val_batches=3, devices=2),
    )
    assert from_dict(LanguageConfig, yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config


def test_what_is_left_out_comes_from_the_base():
    base = LanguageConfig(seed=3, model=ModelConfig(d_model=64, n_heads=2))
    changed = from_dict(LanguageConfig, {"model": {"n_heads": 4}}, base)
    assert (changed.seed, changed.model.d_model, changed.model.n_heads) == (3, 64, 4)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"modle": {}}, "unknown setting 'modle'; did you mean model?"),
        ({"model": {"d_modle": 3}}, "unknown setting 'model.d_modle'; did you mean model.d_model?"),
        ({"model": {"kind": "dqe"}}, "model.kind must be one of deq, explicit, got 'dqe'; did you mean deq?"),
        ({"model": 3}, "model must be a table of names and values, got 3."),
        ({"seed": "one"}, "seed must be an integer, got 'one'."),
        ({"seed": True}, "seed must be an integer, got True."),
        ({"seed": 1.5}, "seed must be an integer, got 1.5."),
        ({"solver": {"rtol": "tiny"}}, "solver.rtol must be a number or null, got 'tiny'."),
        ({"trainer": {"fast_dev_run": 1}}, "trainer.fast_dev_run must be true or false, got 1."),
        ({"optimizer": {"betas": [0.9]}}, "optimizer.betas must be a list of 2 numbers, got [0.9]."),
        ({"eval_solver": {"rtol": -1}}, "eval_solver.rtol is -1.0; pass at least 0, or null for a budget."),
        ({"model": {"d_model": 181}}, "model.d_model 181 does not divide by n_heads 6; pass a multiple of n_heads."),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_in_one_sentence(values, sentence):
    with pytest.raises(ConfigError) as error:
        from_dict(LanguageConfig, values)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("config_type", "wrong"),
    [
        (SolverConfig, {"rtol": float("nan")}),
        (SolverConfig, {"atol": -1.0}),
        (SolverConfig, {"max_steps": 0}),
        (SolverConfig, {"damping": 0.0}),
        (OptimizerConfig, {"lr": 0.0}),
        (OptimizerConfig, {"momentum": 1.0}),
        (OptimizerConfig, {"betas": (0.9, 1.0)}),
        (OptimizerConfig, {"final_lr_ratio": 2.0}),
        (TrainerConfig, {"max_steps": 0}),
        (TrainerConfig, {"limit_val_batches": 0.0}),
        (TrainerConfig, {"limit_val_batches": 1.5}),
        (TrainerConfig, {"devices": 0}),
        (TrainerConfig, {"gradient_clip_val": 0.0}),
        (TextDataConfig, {"path": ""}),
        (TextDataConfig, {"batch_size": 0}),
        (ModelConfig, {"n_heads": 7}),
        (ModelConfig, {"d_model": 18, "n_heads": 6}),  # heads of 3 features
        (ModelConfig, {"dropout": 1.0}),
        (LanguageConfig, {"seed": -1}),
    ],
)
def test_a_value_out_of_range_is_named(config_type, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        config_type(**wrong)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_yaml_texts_of_numbers_are_numbers(number):
    # YAML 1.1 reads `1e-4` as a text.
    assert convert(f"{number!r}", float, "x") == number


def test_every_setting_is_listed_once():
    names = [name for name, _ in leaves(LanguageConfig)]
    assert len(names) == len(set(names))
    assert {"seed", "data.path", "solver.rtol", "eval_solver.rtol", "trainer.max_steps"} <= set(names)


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LanguageConfig().seed = 1


def test_settings_and_recipes_import_no_torch():
    code = (
        "import sys, poise.configs.language, poise.configs.fields, poise.recipes as r; r.recipes()[0].settings();"
        "assert not {'torch', 'lightning', 'jsonargparse'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_list_of_any_length():
    from poise.configs.vicreg import EncoderConfig

    assert from_dict(EncoderConfig, {"expander": [64, 32, 16]}).expander == (64, 32, 16)
    for wrong in ([64, 0.5], 64, ["a"]):
        with pytest.raises(ConfigError, match="expander must be a list of numbers"):
            from_dict(EncoderConfig, {"expander": wrong})
    with pytest.raises(ConfigError, match="pass at least one size"):
        from_dict(EncoderConfig, {"expander": []})
