"""The recipes that ship with poise: complete, valid, and what the documentation says of them."""

import pytest

from poise.cli.table import TASKS, load
from poise.configs.classify import ClassifyConfig
from poise.configs.errors import ConfigError
from poise.configs.fields import from_dict
from poise.configs.language import LanguageConfig
from poise.configs.multitask import MultitaskConfig
from poise.configs.reason import ReasonConfig
from poise.configs.segment import SegmentConfig
from poise.configs.vicreg import VICRegConfig
from poise.recipes import find_recipe, read_settings, recipes


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.name)
def test_a_recipe_fits_its_task_and_says_what_it_is(recipe):
    from_dict(load(TASKS[recipe.task].config), recipe.settings())
    assert recipe.text.startswith("# ") and len(recipe.summary) > 20
    header = [line for line in recipe.text.splitlines() if line.startswith("#")]
    assert any("Expect:" in line for line in header) and any("Cost:" in line for line in header)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("demo", LanguageConfig),
        ("vicreg-digits", VICRegConfig),
        ("reason-sudoku", ReasonConfig),
        ("classify-digits", ClassifyConfig),
        ("segment-scenes", SegmentConfig),
        ("multitask-scenes", MultitaskConfig),
    ],
)
def test_the_default_is_a_recipe(name, config):
    recipe = find_recipe(name, next(task for task, entry in TASKS.items() if load(entry.config) is config))
    assert from_dict(config, recipe.settings()) == config()


@pytest.mark.parametrize(
    ("name", "peer", "task"),
    [
        ("tinyshakespeare-deq", "tinyshakespeare-explicit", "language"),
        ("wikitext2-deq-transformer", "wikitext2-transformer", "language"),
        ("wikitext2-deq-transformer-large", "wikitext2-transformer-large", "language"),
        ("wikitext2-deq-trellisnet", "wikitext2-trellisnet", "language"),
        ("cifar10-deq", "cifar10-resnet", "classify"),
        ("camvid-deq", "camvid-explicit", "segment"),
    ],
)
def test_the_peers_differ_in_the_network_alone(name, peer, task):
    deq, explicit = (find_recipe(one, task).settings() for one in (name, peer))
    for part in {"data", "views", "optimizer", "trainer", "seed", "label_smoothing"} & deq.keys():
        assert deq[part] == explicit[part]
    assert deq["model"]["kind"] == "deq" and explicit["model"]["kind"] != "deq"


@pytest.mark.parametrize(
    ("name", "task", "sentence"),
    [
        (
            "tinyshakespear-deq",
            "language",
            "there is no recipe 'tinyshakespear-deq'; did you mean tinyshakespeare-deq?",
        ),
        ("demo", "classify", "recipe 'demo' is for the task language; run poise train language."),
    ],
)
def test_a_recipe_that_is_not_there_is_refused(name, task, sentence):
    with pytest.raises(ConfigError) as error:
        find_recipe(name, task)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [", "at line"),
        ("- 1", "not a table"),
        ("", "not a table"),
        ("task: classify", "is for the task 'classify'"),
        ("!!python/object/apply:os.system ['true']", "cannot be read"),
    ],
)
def test_a_file_of_settings_that_is_none_is_refused(text, part):
    with pytest.raises(ConfigError, match=part):
        read_settings(text, "file.yaml", "language")
