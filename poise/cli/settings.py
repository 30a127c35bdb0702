"""From arguments to a task's settings: defaults < recipe < --config FILE < flags, whatever their order.

Names are checked here first, so that an unknown one is answered with the nearest; jsonargparse reads the values and
writes the help. Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from poise.cli.errors import UsageError
from poise.configs.base import TrainerConfig
from poise.configs.fields import convert, expected, from_dict, leaves, nearest, to_dict
from poise.recipes import find_recipe, read_settings_file

# Short names that every task offers: --data X means --data.path X.
SHORTHANDS: Mapping[str, str] = {
    "data": "data.path",
    "model": "model.kind",
    "solver": "solver.name",
    "eval_solver": "eval_solver.name",
    "adjoint": "adjoint.name",
    "optimizer": "optimizer.name",
    **{setting.name: f"trainer.{setting.name}" for setting in fields(TrainerConfig)},
}

# Options of the command itself, with the name of their value; None is a switch.
OPTIONS: Mapping[str, str | None] = {
    "recipe": "NAME",
    "config": "FILE",
    "out": "DIR",
    "beside": "RUN[,RUN]",
    "resume": None,
    "overwrite": None,
    "print_config": None,
    "help": None,
}


@dataclass(frozen=True)
class Arguments:
    """What was written: the command's own options, and settings by dotted name with their texts."""

    options: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    def given(self, name: str) -> bool:
        """Return whether an option was written."""
        return name in self.options

    def path(self, name: str) -> Path | None:
        """Return an option as a path."""
        return Path(self.options[name]).expanduser() if name in self.options else None

    def paths(self, name: str) -> list[Path]:
        """Return an option as paths, written with commas between."""
        return [Path(part).expanduser() for part in self.options.get(name, "").split(",") if part]


def shorthands(config_type: type) -> dict[str, str]:
    """Return the short names of a task's settings: the shared ones that it has, and its own."""
    known = {name for name, _ in leaves(config_type)}
    own: Mapping[str, str] = getattr(config_type, "shorthands", {})
    return {short: name for short, name in {**SHORTHANDS, **own}.items() if name in known and short not in known}


def split_arguments(argv: Sequence[str], config_type: type, command: str) -> Arguments:
    """Return the arguments sorted into options and settings; raise a UsageError for a name that is neither."""
    short = shorthands(config_type)
    known = {name for name, _ in leaves(config_type)}
    options: dict[str, str] = {}
    settings: dict[str, str] = {}
    rest = list(argv)
    while rest:
        argument = rest.pop(0)
        if argument == "-h":
            argument = "--help"
        if not argument.startswith("--") or argument == "--":
            raise UsageError(f"{command} does not know what to do with {argument!r}; write settings as --name value.")
        name, equals, value = argument[2:].partition("=")
        is_option = name in OPTIONS
        name = name if is_option else short.get(name, name)
        if not is_option and name not in known:
            names = [f"--{one}" for one in [*OPTIONS, *short, *sorted(known)]]
            raise UsageError(f"{command} has no option --{name}{nearest(f'--{name}', names)}")
        if is_option and OPTIONS[name] is None:
            if equals:
                raise UsageError(f"--{name} is a switch and takes no value, got {value!r}; write --{name}.")
            options[name] = ""
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UsageError(f"--{name} needs a value; write --{name} {OPTIONS.get(name) or 'VALUE'}.")
            value = rest.pop(0)
        (options if is_option else settings)[name] = value
    return Arguments(options, settings)


def resolve(config_type: type, task: str, arguments: Arguments, saved: Mapping[str, Any] | None = None) -> Any:
    """Return the config: defaults, or those of a saved run, then the recipe, the --config file and the flags.

    A run that is resumed keeps its own settings, so its recipe may be named again but not changed.
    """
    config = config_type() if saved is None else from_dict(config_type, saved)
    name = arguments.options.get("recipe") or _implied_recipe(config_type, arguments)
    if saved is not None and name not in (None, config.recipe):
        raise UsageError(f"the run to resume has the recipe {config.recipe!r}, not {name!r}; leave --recipe out.")
    if saved is None and name is not None:
        config = from_dict(config_type, {**find_recipe(name, task).settings(), "recipe": name}, config)
    file = arguments.path("config")
    if file is not None:
        config = from_dict(config_type, read_settings_file(file, task), config)
    return _with_flags(config_type, config, arguments.settings) if arguments.settings else config


def _recipes_by(config_type: type) -> tuple[str, Mapping[str, str]]:
    """Return the setting whose values stand for recipes, and these; no setting has an empty name."""
    found: tuple[str, Mapping[str, str]] = getattr(config_type, "recipes_by", ("", {}))
    return found


def _implied_recipe(config_type: type, arguments: Arguments) -> str | None:
    """Return the recipe that a setting stands for, where neither a recipe nor a file of settings is named."""
    setting, recipes = _recipes_by(config_type)
    if arguments.given("config") or arguments.given("resume") or setting not in arguments.settings:
        return None
    return recipes.get(arguments.settings[setting])


def one_by_one(config_type: type, arguments: Arguments) -> list[Arguments]:
    """Return the arguments of each run: `all` stands for every value of a setting whose values have recipes."""
    setting, recipes = _recipes_by(config_type)
    value = arguments.settings.get(setting)
    if value is not None:
        convert(value, Literal[(*recipes, "all")], f"--{setting}")
    if value != "all":
        return [arguments]
    if arguments.given("recipe") or arguments.given("config"):
        raise UsageError(f"all of {setting} are runs with a recipe each; leave --recipe and --config out, or name one.")
    out = arguments.options.get("out")
    return [
        Arguments(
            {**arguments.options, **({"out": f"{out}-{value}"} if out else {})}, {**arguments.settings, setting: value}
        )
        for value in recipes
    ]


def _with_flags(config_type: type, config: Any, settings: Mapping[str, str]) -> Any:
    import yaml
    from jsonargparse import ArgumentError

    hints = dict(leaves(config_type))
    values = dict(settings)
    for name, text in settings.items():  # Python's word for YAML's null
        if text == "None" and "null" in expected(hints[name]):
            values[name] = "null"
    parser = _parser(config_type)
    try:
        parsed = parser.parse_args([f"--{name}={text}" for name, text in values.items()]).as_dict()
    except ArgumentError as error:
        for name, text in values.items():  # say it in our words: which setting, what it takes, the nearest choice
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError:
                value = text
            convert(value, hints[name], f"--{name}")
        raise UsageError(" ".join(str(error).split())) from None
    tree: dict[str, Any] = {}
    for name in values:
        *groups, leaf = name.split(".")
        branch, source = tree, parsed
        for group in groups:
            branch, source = branch.setdefault(group, {}), source[group]
        branch[leaf] = source[leaf]
    return from_dict(config_type, tree, config)


def _parser(config_type: type) -> Any:
    from jsonargparse import ArgumentParser, set_parsing_settings

    # The line under each setting is its help text.
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(exit_on_error=False, add_help=False, usage="")
    parser.add_class_arguments(config_type)
    return parser


def settings_help(config_type: type, config: Any, command: str) -> str:
    """Return the help of a task: the command's options, the short names, and every setting with its default."""
    parser = _parser(config_type)
    parser.set_defaults(to_dict(config))
    # A group could also be read from a file of its own; --config does that for all of them.
    groups = re.sub(r"^ +--\w+ CONFIG\s+Path to a configuration file\.\n", "", parser.format_help(), flags=re.MULTILINE)
    groups = re.sub(r"^usage:.*\n+(options:\n)?", "", groups)
    options = [f"[--{name}{f' {value}' if value else ''}]" for name, value in OPTIONS.items() if name != "help"]
    short = [f"  --{name:28}{full}" for name, full in shorthands(config_type).items()]
    return "\n".join(
        [f"usage: {command} {' '.join(options)} [--setting value ...]", "", "Short names:", *short, "", groups.rstrip()]
    )
