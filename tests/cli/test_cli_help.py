"""What the command line answers before it works: help, wrong calls, missing packages. None of it imports torch."""

import subprocess
import sys

import pytest

from poise.cli.table import COMMANDS, TASKS, load

HEAVY = "{'torch', 'lightning', 'numpy'}"


def in_fresh_python(arguments, forbidden=HEAVY, before=""):
    """Run the command line in a new process and say which of some modules it imported."""
    code = (
        f"import sys; {before}\n"
        f"from poise.cli.main import main\n"
        f"code = main({arguments!r})\n"
        f"print('imported:', sorted({forbidden} & set(sys.modules)))\n"
        f"sys.exit(code)"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["recipes"]])
def test_help_needs_the_standard_library_alone(arguments):
    done = in_fresh_python(arguments, "{'torch', 'lightning', 'numpy', 'jsonargparse', 'yaml', 'rich'}")
    assert done.returncode == 0
    assert "imported: []" in done.stdout


@pytest.mark.parametrize("command", ["evaluate", "generate", "report", "recipes"])
def test_every_command_has_help(poise, command):
    code, out, err = poise(command, "--help")
    assert code == 0 and out.startswith(f"usage: poise {command}") and err == ""


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_help_fits_one_screen(poise, arguments):
    code, out, _ = poise(*arguments)
    lines = out.splitlines()
    assert code == 0 and len(lines) <= 24 and max(map(len, lines)) <= 100


def test_help_names_every_command_and_task(poise):
    _, out, _ = poise("--help")
    assert all(f"poise {name}" in out for name in COMMANDS) and all(name in out for name in TASKS)


def test_every_entry_of_the_table_exists():
    for command in COMMANDS.values():
        assert callable(load(command.function))
    for task in TASKS.values():
        assert load(task.task).config_type is load(task.config)
        assert callable(load(task.report))


def test_the_help_of_a_task_lists_every_setting_and_imports_no_torch():
    done = in_fresh_python(["train", "language", "--help"])
    assert done.returncode == 0 and "imported: []" in done.stdout
    for expected in ("--tokenizer", "--model.d_model", "--eval_solver.rtol", "--trainer.precision", "default: 180"):
        assert expected in done.stdout
    assert "CONFIG" not in done.stdout


def test_settings_are_printed_without_torch():
    done = in_fresh_python(["train", "language", "--print_config", "--recipe", "demo"])
    assert done.returncode == 0 and "imported: []" in done.stdout and "recipe: demo" in done.stdout


def test_no_command_is_wrong_usage(poise):
    code, _, err = poise()
    assert code == 2 and "poise train" in err


@pytest.mark.parametrize("name", ["jsonargparse", "yaml", "lightning", "safetensors", "rich"])
def test_missing_packages_are_named_with_what_to_install(name):
    done = in_fresh_python(["train", "language"], before=f"sys.modules[{name!r}] = None")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"poise: this command needs packages that are not installed ({name}); run pip install 'poise[train]'."
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("tarin", "there is no command 'tarin'; did you mean train?"),
        ("train", "poise train needs a task; write poise train language, or poise train --help."),
        ("train --recipe demo", "poise train needs its task first; write poise train language --recipe ..."),
        ("train langage", "there is no task 'langage'; did you mean language?"),
        ("train language --modle deq", "poise train language has no option --modle; did you mean --model?"),
        (
            "train language --model.d_modl 4",
            "poise train language has no option --model.d_modl; did you mean --model.d_model?",
        ),
        ("train language --model dqe", "--model.kind must be one of deq, explicit, got 'dqe'; did you mean deq?"),
        ("train language --seed", "--seed needs a value; write --seed VALUE."),
        ("train language --seed x", "--seed must be an integer, got 'x'."),
        ("train language --max_steps 1.5", "--trainer.max_steps must be an integer, got 1.5."),
        ("train language --max_steps 0", "trainer.max_steps is 0; it must be above 0."),
        ("train language --resume=yes", "--resume is a switch and takes no value, got 'yes'; write --resume."),
        ("train language --resume --overwrite", "--resume keeps a run and --overwrite removes it; pass one of them."),
        (
            "train language words",
            "poise train language does not know what to do with 'words'; write settings as --name value.",
        ),
        ("train language --recipe demp", "there is no recipe 'demp'; did you mean demo?"),
        (
            "train language --config no.yaml",
            "cannot read the settings in no.yaml (No such file or directory); check the path.",
        ),
        ("train language --data no.txt", "there is no text 'no.txt'"),
        ("evaluate", "poise evaluate: the following arguments are required: RUN; see poise evaluate --help."),
        ("evaluate nowhere", "there is no run in nowhere: it is no folder; pass the folder of a run."),
        (
            "evaluate nowhere --solver.rtoll 1",
            "poise evaluate has no option --solver.rtoll; did you mean --solver.rtol?",
        ),
        ("generate nowhere --prompt a --temperature -1", "--temperature is -1.0; pass 0 or more."),
        ("report nowhere", "there is no run in nowhere: it is no folder; pass the folder of a run."),
    ],
)
def test_a_wrong_call_is_answered_with_one_sentence(poise, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POISE_DATA", raising=False)
    code, out, err = poise(*arguments.split())
    assert code == 2 and out == ""
    assert len(err.splitlines()) == 1 and err.startswith(f"poise: {sentence}")
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_debug_shows_the_traceback(poise):
    code, _, err = poise("train", "language", "--seed", "x", "--debug")
    assert code == 2 and "Traceback" in err and "poise: --seed must be an integer, got 'x'." in err
