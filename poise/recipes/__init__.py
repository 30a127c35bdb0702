"""Recipes: tasks with all their settings, as YAML files in this folder. The first comment line says what each is."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from poise.configs.errors import ConfigError
from poise.configs.fields import nearest


@dataclass(frozen=True)
class Recipe:
    """A recipe by name: the task it is for, one line about it, and its text."""

    name: str
    task: str
    summary: str
    text: str

    def settings(self) -> dict[str, Any]:
        """Return its settings, without the task's name."""
        return read_settings(self.text, f"recipe {self.name!r}", self.task)


def recipes() -> list[Recipe]:
    """Return all recipes, by name; nothing is parsed as YAML yet."""
    found = []
    for file in files(__name__).iterdir():
        if file.name.endswith(".yaml"):
            text = file.read_text(encoding="utf-8")
            lines = text.splitlines()
            task = next(line.removeprefix("task:").strip() for line in lines if line.startswith("task:"))
            found.append(Recipe(file.name.removesuffix(".yaml"), task, lines[0].lstrip("# "), text))
    return sorted(found, key=lambda recipe: recipe.name)


def find_recipe(name: str, task: str) -> Recipe:
    """Return a recipe of a task, or raise a ConfigError with the nearest name."""
    found = {recipe.name: recipe for recipe in recipes()}
    if name not in found:
        known = [recipe.name for recipe in found.values() if recipe.task == task]
        raise ConfigError(f"there is no recipe {name!r}{nearest(name, known)}")
    if found[name].task != task:
        raise ConfigError(f"recipe {name!r} is for the task {found[name].task}; run poise train {found[name].task}.")
    return found[name]


def read_settings_file(path: Path, task: str) -> dict[str, Any]:
    """Return the settings in a YAML file of this task, such as a run's config.yaml."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the settings in {path} ({error.strerror}); check the path.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"the settings in {path} are not UTF-8 (byte {error.start}); check the path.") from None
    return read_settings(text, str(path), task)


def read_settings(text: str, origin: str, task: str) -> dict[str, Any]:
    """Return the settings in a YAML text; `task:`, where it stands, must be this one. YAML is read without objects."""
    import yaml

    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(f"{origin} cannot be read{where}: {problem}; correct the file.") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{origin} holds {values!r}, not a table of settings; write lines such as `seed: 0`.")
    named = values.pop("task", task)
    if named != task:
        raise ConfigError(f"{origin} is for the task {named!r}, not {task!r}; run poise train {named}.")
    return values
