"""Settings of `poise train reason`. The defaults are the recipe `reason-sudoku`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from poise.configs.base import (
    AdjointConfig,
    OptimizerConfig,
    PretrainingConfig,
    RegularizationConfig,
    SolverConfig,
    TrainerConfig,
    require,
    require_positive,
)


@dataclass(frozen=True)
class PuzzleDataConfig:
    """What is generated to train on, and to test on."""

    puzzle: Literal["sudoku", "prefix", "maze"] = "sudoku"
    """sudoku, prefix sums of bits, or mazes; without a recipe each has its own, and all is one run of each"""
    train_sizes: tuple[int, ...] = (24, 40)
    """sudoku and prefix: fewest and most clues or bits; maze: sizes, walls among them (trial)"""
    test_sizes: tuple[int, ...] = (36, 30, 26, 0)
    """sudoku: clues, 0 for minimal puzzles, of 24.6 on the mean, 1 for minimal ones that singles do not solve; prefix:
    bits; maze: sizes (trial)"""
    pool: int = 600
    """sudoku: minimal puzzles that training draws from, digits put back to any number of clues (trial)"""
    hard: float = 0.0
    """sudoku: part of that pool that singles do not solve; a tenth of a second each to generate"""
    test_instances: int = 200
    """fresh puzzles of each test size; training shares none with them"""
    batch_size: int = 16
    """puzzles a training batch and device (trial)"""
    eval_batch_size: int = 100
    """puzzles a validation batch; changes speed only, since a puzzle's answer is its own"""

    def __post_init__(self) -> None:
        require_positive(self, "pool", "test_instances", "batch_size", "eval_batch_size")
        require(0 <= self.hard <= 1, f"hard is {self.hard}; it must be in [0, 1].")
        require(
            self.puzzle == "sudoku" or not self.hard,
            f"hard is {self.hard}, but puzzles of {self.puzzle} are told apart by their size alone; leave it out.",
        )
        for name in ("train_sizes", "test_sizes"):
            sizes = list(getattr(self, name))
            require(bool(sizes), f"{name} is empty; name at least one size.")
            for size in sizes:
                _check_size(self.puzzle, name, size)
        if self.puzzle != "maze":
            sizes = list(self.train_sizes)
            require(
                len(sizes) == 2 and sizes[0] <= sizes[1],
                f"train_sizes are {sizes}; pass the fewest and the most, such as [16, 32].",
            )


def _check_size(puzzle: str, name: str, size: int) -> None:
    minimal = name == "test_sizes" and size in (0, 1)
    if puzzle == "sudoku":
        require(
            minimal or 17 <= size <= 81,
            f"{name} has {size} clues; pass 17 to 81, or in test_sizes 0 for minimal and 1 for hard puzzles.",
        )
    elif puzzle == "prefix":
        require(size > 0, f"{name} has strings of {size} bits; pass at least 1.")
    else:
        require(size >= 5 and size % 2 == 1, f"{name} has mazes of size {size}; pass an odd size of at least 5.")


@dataclass(frozen=True)
class ReasonerConfig:
    """The network."""

    kind: Literal["deq", "explicit"] = "deq"
    """deq: one small cell at its equilibrium; explicit: layers like it one after another, weights of their own"""
    width: int | None = None
    """features of the state at each position; null is 16 for sudoku, 32 otherwise (trial)"""
    hidden: int | None = None
    """sudoku: features within the cell; null is 32 (trial)"""
    layers: int = 16
    """explicit: layers"""

    def __post_init__(self) -> None:
        require_positive(self, "width", "hidden", "layers")


@dataclass(frozen=True)
class StartsConfig:
    """Where solves begin."""

    random: float = 0.5
    """part of the training samples that start from N(0, 1), the rest from zeros: mixed starts make the answer depend
    less on them (Anil et al. 2022)"""
    compared: int = 8
    """starts of a test puzzle whose answers are compared after training"""
    puzzles: int = 50
    """test puzzles of each size for which they are"""

    def __post_init__(self) -> None:
        require(0 <= self.random <= 1, f"random is {self.random}; it must be in [0, 1].")
        require(self.compared >= 2, f"compared is {self.compared}; it takes at least 2 starts.")
        require_positive(self, "puzzles")


@dataclass(frozen=True)
class ReasonConfig:
    """Everything that a run on puzzles depends on."""

    shorthands: ClassVar[Mapping[str, str]] = {"puzzle": "data.puzzle"}
    recipes_by: ClassVar[tuple[str, Mapping[str, str]]] = (
        "data.puzzle",
        {"sudoku": "reason-sudoku", "prefix": "reason-prefix", "maze": "reason-maze"},
    )
    """A setting that stands for a recipe where none is named: puzzles share hardly one setting."""

    recipe: str | None = None
    """name of the recipe that these settings come from"""
    seed: int = 0
    """seed of weights, puzzles and starts"""
    data: PuzzleDataConfig = PuzzleDataConfig()
    """puzzles"""
    model: ReasonerConfig = ReasonerConfig()
    """network"""
    starts: StartsConfig = StartsConfig()
    """starts"""
    # Trial: evaluations drawn from 1 to 25, those that are finished freeze; the gradient of 8 more.
    solver: SolverConfig = SolverConfig(name="picard", rtol=1e-2, max_steps=13, damping=0.7, residual="position")
    """solver in training"""
    eval_solver: SolverConfig = SolverConfig(name="picard", rtol=1e-2, max_steps=200, damping=0.5, residual="position")
    """solver of validation and of `poise solve`; less damping ends some hard puzzles in a cycle (trial)"""
    adjoint: AdjointConfig = AdjointConfig(name="phantom", steps=8, recorded_only=True)
    """gradient of the equilibrium; of 1, 4 and 8 steps, 8 solved most minimal puzzles (trial)"""
    regularization: RegularizationConfig = RegularizationConfig(
        jacobian_weight=0.1, jacobian_frequency=1.0, jacobian_samples=4, jitter=12
    )
    """what keeps equilibria easy to find; without the penalty hardly a solve converges (trial)"""
    pretraining: PretrainingConfig = PretrainingConfig()
    """shallow training at first"""
    optimizer: OptimizerConfig = OptimizerConfig(
        name="adamw", lr=8e-3, weight_decay=0.0, betas=(0.9, 0.98), warmup_steps=50, final_lr_ratio=0.0
    )
    """optimizer"""
    trainer: TrainerConfig = TrainerConfig(max_steps=1400, val_check_interval=1400, checkpoint_every_n_steps=200)
    """engine"""

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, f"seed is {self.seed}; it must be in [0, 2**32).")
        hidden, puzzle = self.model.hidden, self.data.puzzle
        require(
            hidden is None or puzzle == "sudoku",
            f"model.hidden is {hidden}, but the cell of {puzzle} has no features within; leave it out.",
        )
