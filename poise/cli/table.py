"""What the command line offers, as plain text: it answers --help without importing what it describes.

A new task is one line in TASKS, a new command one line in COMMANDS.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from poise.cli.errors import MissingPackages, UsageError
from poise.configs.fields import nearest


@dataclass(frozen=True)
class TaskEntry:
    """A task: one line about it; its settings, its module and the page of its runs, as `module:name`."""

    summary: str
    config: str
    task: str
    report: str


@dataclass(frozen=True)
class CommandEntry:
    """A command: what stands behind its name, one line about it, and its function as `module:function`."""

    arguments: str
    summary: str
    function: str


TASKS = {
    "language": TaskEntry(
        "a language model on any text, by a DEQ-Transformer or a DEQ-TrellisNet",
        "poise.configs.language:LanguageConfig",
        "poise.tasks.language:LanguageTask",
        "poise.tasks.language_report:build_page",
    ),
    "classify": TaskEntry(
        "the class of each picture, by a multiscale DEQ or an explicit network",
        "poise.configs.classify:ClassifyConfig",
        "poise.tasks.classify:ClassifyTask",
        "poise.tasks.recognition_report:build_page",
    ),
    "segment": TaskEntry(
        "the class of each pixel, by a multiscale DEQ or an explicit network",
        "poise.configs.segment:SegmentConfig",
        "poise.tasks.segment:SegmentTask",
        "poise.tasks.recognition_report:build_page",
    ),
    "multitask": TaskEntry(
        "the class of each picture and of its pixels, by two heads on one multiscale DEQ",
        "poise.configs.multitask:MultitaskConfig",
        "poise.tasks.multitask:MultitaskTask",
        "poise.tasks.recognition_report:build_page",
    ),
    "vicreg": TaskEntry(
        "self-supervised features by VICReg, measured by probes",
        "poise.configs.vicreg:VICRegConfig",
        "poise.tasks.vicreg:VICRegTask",
        "poise.tasks.vicreg_report:build_page",
    ),
    "reason": TaskEntry(
        "puzzles learnt small and solved large, by an equilibrium reasoner",
        "poise.configs.reason:ReasonConfig",
        "poise.tasks.reason:ReasonTask",
        "poise.tasks.reason_report:build_page",
    ),
}

COMMANDS = {
    "train": CommandEntry("TASK [options]", "train a task and write a run folder", "poise.cli.train:run"),
    "evaluate": CommandEntry(
        "RUN [options]", "measure a run on its whole validation and test split", "poise.cli.evaluate:run"
    ),
    "generate": CommandEntry("RUN --prompt TEXT", "continue a text with a language run", "poise.cli.generate:run"),
    "solve": CommandEntry("RUN FILE_OR_-", "solve puzzles with a run of reason", "poise.cli.solve:run"),
    "report": CommandEntry("RUN", "write report.html again from what the folder holds", "poise.cli.report:run"),
    "recipes": CommandEntry("", "list the recipes, a line each", "poise.cli.recipes:run"),
}

# What the extra [train] brings; the core runs on torch alone.
TRAIN_PACKAGES = ("jsonargparse", "lightning", "numpy", "rich", "safetensors", "tokenizers", "yaml")


def load(reference: str) -> Any:
    """Return what `module:name` names, importing the module."""
    module, name = reference.split(":")
    return getattr(import_module(module), name)


def task_entry(name: str) -> TaskEntry:
    """Return a task of the table, or raise a UsageError with the nearest name."""
    if name not in TASKS:
        raise UsageError(f"there is no task {name!r}{nearest(name, list(TASKS))}")
    return TASKS[name]


def require_packages() -> None:
    """Raise a UsageError that says what to install, where packages of the extra [train] are missing."""
    missing = [name for name in TRAIN_PACKAGES if not _installed(name)]
    if missing:
        raise MissingPackages(missing)


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # an import hook refused it, or its entry in sys.modules was blocked
        return False
