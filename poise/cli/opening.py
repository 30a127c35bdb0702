"""What the commands on a finished run share: find it, take other solver settings, load it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from poise.cli.arguments import Arguments
from poise.cli.errors import UsageError
from poise.cli.table import TaskEntry, load, require_packages, task_entry
from poise.configs.base import SolverConfig
from poise.configs.errors import ConfigError
from poise.configs.fields import from_dict, leaves
from poise.tasks.errors import RunError
from poise.tasks.peers import ended
from poise.tasks.run_folder import RunFolder

# Settings that a command may take anew, by the name of its flag.
SOLVER = {f"solver.{name}": f"eval_solver.{name}" for name, _ in leaves(SolverConfig)}
ENGINE = {"data": "data.path", "accelerator": "trainer.accelerator", "devices": "trainer.devices"}
MEMORY = {"memory": "data.memory"}  # of language runs


def run_arguments(command: str, description: str, overrides: dict[str, str]) -> Arguments:
    """Return a parser of RUN and of settings to take anew."""
    parser = Arguments(f"poise {command}", description)
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a run")
    for flag in overrides:
        parser.add_argument(f"--{flag}", metavar="VALUE", help=f"instead of the run's own {overrides[flag]}")
    return parser


def open_settings(path: Path) -> tuple[RunFolder, str, TaskEntry, dict[str, Any]]:
    """Return a run's folder, its task and its settings as they are written."""
    folder = RunFolder(path)
    try:
        task, values = folder.read_config()
    except RunError as error:
        raise UsageError(str(error)) from None
    return folder, task, task_entry(task), values


def open_peers(task: str, runs: Sequence[Path]) -> list[dict[str, Any]]:
    """Return what the runs that a run of a task is compared with ended with."""
    try:
        return ended(task, runs)
    except RunError as error:
        raise UsageError(str(error)) from None


def open_run(arguments: Namespace, overrides: dict[str, str]) -> tuple[RunFolder, Any]:
    """Return the folder and the loaded task, its settings changed as the arguments say."""
    require_packages()
    folder, name, entry, values = open_settings(arguments.run)
    config_type = load(entry.config)
    config = from_dict(config_type, values)
    given = {flag: getattr(arguments, flag) for flag in overrides if getattr(arguments, flag) is not None}
    known = dict(leaves(config_type))
    for flag in given:
        if overrides[flag] not in known:
            raise UsageError(f"--{flag} does not apply to a run of {name}; leave it out.")
    for flag, text in given.items():
        config = _with_setting(config_type, config, overrides[flag], flag, text)
    task = load(entry.task).open(config, folder)
    solvers = [flag for flag in given if flag in SOLVER]
    if solvers and not task.solves:
        raise UsageError(f"--{solvers[0]} does not apply: the network of {folder.path} solves nothing; leave it out.")
    return folder, task


def _with_setting(config_type: type, config: Any, name: str, flag: str, text: str) -> Any:
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    *groups, leaf = name.split(".")
    hint: Any = config_type
    for group in (*groups, leaf):
        hint = get_type_hints(hint)[group]
    assert not is_dataclass(hint)
    tree: dict[str, Any] = {leaf: text if hint is str else value}
    for group in reversed(groups):
        tree = {group: tree}
    try:
        return from_dict(config_type, tree, config)
    except ConfigError as error:
        raise UsageError(str(error).replace(name, f"--{flag}")) from None
