"""`poise train TASK`: settings first, then a folder for the run, then torch."""

from __future__ import annotations

from poise.cli.errors import DONE, UsageError
from poise.cli.folder import choose_folder, refuse_changes, saved_settings
from poise.cli.opening import open_peers
from poise.cli.settings import Arguments, one_by_one, resolve, settings_help, split_arguments
from poise.cli.table import TASKS, load, require_packages, task_entry
from poise.configs.fields import from_dict, to_dict
from poise.tasks.process import say
from poise.tasks.run_folder import RunFolder


def help_text() -> str:
    """Return what `poise train --help` prints."""
    tasks = [f"  {name:12}{entry.summary}" for name, entry in TASKS.items()]
    return "\n".join(
        [
            "usage: poise train TASK [--recipe NAME] [--config FILE] [--out DIR] [--setting value ...]",
            "",
            "Tasks:",
            *tasks,
            "",
            "Settings come from the task's defaults, then the recipe, then the file, then the flags:",
            "  --recipe NAME     all settings of a recipe (poise recipes lists them)",
            "  --config FILE     settings in YAML, such as a run's config.yaml",
            "  --max_steps N     any setting by name, also dotted: --model.d_model 256",
            "  --print_config    show the settings and stop",
            "The run goes to a folder:",
            "  --out DIR         default: runs/TASK-RECIPE-N; a folder that holds a run is refused",
            "  --resume          go on from the folder's last checkpoint, as if never stopped",
            "  --overwrite       remove the run that is there first",
            "  --beside RUN,RUN  compare it with finished runs, such as those of peers, in summary and report",
            "",
            "`poise train TASK --help` lists every setting of a task.",
        ]
    )


def run(argv: list[str]) -> int:
    """Train a task and print its summary."""
    if not argv:
        raise UsageError(f"poise train needs a task; write poise train {next(iter(TASKS))}, or poise train --help.")
    task, *rest = argv
    if task in ("--help", "-h"):
        print(help_text())
        return DONE
    if task.startswith("-"):
        raise UsageError(f"poise train needs its task first; write poise train {next(iter(TASKS))} {task} ...")
    entry = task_entry(task)
    require_packages()
    command = f"poise train {task}"
    config_type = load(entry.config)
    arguments = split_arguments(rest, config_type, command)
    if arguments.given("resume") and arguments.given("overwrite"):
        raise UsageError("--resume keeps a run and --overwrite removes it; pass one of them.")
    if arguments.given("help") or arguments.given("print_config"):
        _show(config_type, task, arguments, command)
        return DONE
    for part in one_by_one(config_type, arguments):
        _train(task, config_type, entry.task, part)
    return DONE


def _show(config_type: type, task: str, arguments: Arguments, command: str) -> None:
    if arguments.given("help"):
        say(settings_help(config_type, resolve(config_type, task, arguments), command))
        return
    import yaml

    config = resolve(config_type, task, arguments)
    say(yaml.safe_dump({"task": task, **to_dict(config)}, sort_keys=False).rstrip())


def _train(task: str, config_type: type, reference: str, arguments: Arguments) -> None:
    resume, overwrite = arguments.given("resume"), arguments.given("overwrite")
    out = arguments.path("out")
    if out is None and resume:  # the name of the folder to look for depends on the recipe alone
        out = choose_folder(task, resolve(config_type, task, arguments), None, resume=True, overwrite=False).path
    saved = saved_settings(RunFolder(out), task) if resume and out is not None else None
    config = resolve(config_type, task, arguments, saved)
    peers = open_peers(task, arguments.paths("beside"))
    folder = choose_folder(task, config, out, resume=resume, overwrite=overwrite)
    if saved is not None:
        refuse_changes(folder, from_dict(config_type, saved), config)

    from poise.tasks.training import train

    train(load(reference), config, folder, resume=resume, overwrite=overwrite, peers=peers)
