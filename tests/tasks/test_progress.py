"""What a run shows while it trains, on a terminal and in a log."""

import io

import pytest
from lightning.pytorch import Trainer

from poise.configs.base import OptimizerConfig, SolverConfig, TrainerConfig
from poise.configs.language import LanguageConfig, ModelConfig, TextDataConfig
from poise.tasks.engine import build_trainer, quiet_engine
from poise.tasks.language import LanguageTask
from poise.tasks.progress import MeasureLog, Preparation, ProgressDisplay


class Screen(io.StringIO):
    """A stream that calls itself a terminal, or not."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def train(tmp_path, screen, **trainer) -> Trainer:
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat\n" * 40)
    config = LanguageConfig(
        data=TextDataConfig(path=str(path), sequence_length=16, batch_size=2),
        model=ModelConfig(d_model=8, n_heads=2, n_layers=1),
        eval_solver=SolverConfig(scope="prefix", rtol=1e-2),
        optimizer=OptimizerConfig(warmup_steps=2),
        trainer=TrainerConfig(accelerator="cpu", **trainer),
    )
    measures = MeasureLog(config.trainer.log_every_n_steps)
    with quiet_engine():
        engine = build_trainer(config.trainer, str(tmp_path), [], [measures, ProgressDisplay(measures, screen)])
        engine.fit(LanguageTask.create(config))
    return engine


def test_a_log_gets_a_line_every_so_many_steps(tmp_path):
    screen = Screen(terminal=False)
    train(tmp_path, screen, max_steps=40, log_every_n_steps=5, val_check_interval=20)
    lines = screen.getvalue().splitlines()
    steps = [line for line in lines if " of 40 " in line]
    assert [int(line.split()[1]) for line in steps] == list(range(5, 41, 5))
    assert all(part in steps[0] for part in ("loss ", "residual ", "evaluations 3.0+2.0", "left"))
    assert sum("validation loss" in line for line in lines) == 2


@pytest.mark.parametrize("columns", [80, 200])
def test_a_terminal_gets_a_bar_with_everything_in_one_line(tmp_path, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen(terminal=True)
    train(tmp_path, screen, max_steps=6, log_every_n_steps=2, val_check_interval=6)
    text = screen.getvalue()
    for part in ("6/6", "loss ", "residual ", "evaluations 3.0+2.0", "validating", "validation loss"):
        assert part in text
    assert "…" not in text  # nothing is cut off


def test_a_long_preparation_says_how_far_it_is_and_a_short_one_nothing(monkeypatch):
    now = 0.0
    screen = Screen(terminal=False)
    hear = Preparation(screen, clock=lambda: now)
    for doing, seconds in (("reading", 4), ("encoding", 12), ("counting", 4)):
        for done in range(1, seconds + 1):
            hear(doing, done * 10, 200)
            now += 1
    assert screen.getvalue().splitlines() == ["encoding: 30%  0:11 left", "encoding: 55%  0:08 left"]
    monkeypatch.setenv("RANK", "1")  # another process than the first
    now += 10
    hear("counting", 50, 200)
    assert len(screen.getvalue().splitlines()) == 2
