import random
from pathlib import Path

import pytest

from poise.cli.main import main
from tests.cli.tiny_runs import TINY, flags

WORDS = flags("the cat sat on a mat and saw dogs run over hills while rain fell")


@pytest.fixture(scope="session")
def text_file(tmp_path_factory) -> Path:
    """A small text of words, the same every time."""
    draw = random.Random(0)
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text("\n".join(" ".join(draw.choice(WORDS) for _ in range(9)) for _ in range(60)))
    return path


@pytest.fixture
def poise(capsys):
    """Run the command line here; returns (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory, text_file) -> Path:
    """The folder of a short finished run; tests only read it."""
    folder = tmp_path_factory.mktemp("run") / "trained"
    flags = [*TINY, "--data", str(text_file), "--max_steps", "12", "--val_check_interval", "6", "--out", str(folder)]
    assert main(["train", "language", *flags, "--log_every_n_steps", "4", "--checkpoint_every_n_steps", "5"]) == 0
    return folder
