"""Settings of `poise train language`. The defaults are the recipe `demo`."""

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
class TextDataConfig:
    """What is read and how it is cut."""

    path: str = "embedded"
    """text file, folder with train/valid/test.txt, name of a set in POISE_DATA, or embedded: Python's documentation"""
    tokenizer: Literal["char", "bpe", "word"] = "char"
    """characters (as the trial), byte-level BPE trained on the text, or words"""
    vocab_size: int = 4096
    """largest vocabulary of bpe and word; char takes every character of the text"""
    sequence_length: int = 64
    """tokens a window (trial)"""
    batch_size: int = 12
    """windows a training batch and device (trial)"""
    eval_batch_size: int = 64
    """windows a validation batch; changes speed only, since a sample's answer is its own"""

    def __post_init__(self) -> None:
        require(bool(self.path), "path is empty; name a text file, a folder, or embedded.")
        require_positive(self, "vocab_size", "sequence_length", "batch_size", "eval_batch_size")


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    kind: Literal["deq", "explicit"] = "deq"
    """deq: one weight-tied block at its equilibrium; explicit: the same block untied and stacked"""
    d_model: int = 180
    """features a token; 2 equilibrium layers of 180 have the parameters of 4 explicit ones of 128 (trial)"""
    n_heads: int = 6
    """attention heads, of an even number of features each (rotary positions turn them in pairs)"""
    n_layers: int = 2
    """layers of the cell, or of the explicit network"""
    d_ff: int | None = None
    """hidden features of the feed-forward part; null is 4 d_model"""
    dropout: float = 0.0
    """drawn once a solve; 0 because small models on few steps do not overfit (trial)"""

    def __post_init__(self) -> None:
        require_positive(self, "d_model", "n_heads", "n_layers", "d_ff")
        require(
            self.d_model % self.n_heads == 0,
            f"d_model {self.d_model} does not divide by n_heads {self.n_heads}; pass a multiple of n_heads.",
        )
        size = self.d_model // self.n_heads
        require(
            size % 2 == 0,
            f"d_model {self.d_model} over n_heads {self.n_heads} gives heads of {size} features; rotary positions "
            "need an even number, so change one of them.",
        )
        require(0 <= self.dropout < 1, f"dropout is {self.dropout}; it must be in [0, 1).")


@dataclass(frozen=True)
class LanguageConfig:
    """Everything that a language run depends on."""

    shorthands: ClassVar[Mapping[str, str]] = {"tokenizer": "data.tokenizer"}

    recipe: str | None = None
    """name of the recipe that these settings come from"""
    seed: int = 0
    """seed of weights, batches and dropout"""
    data: TextDataConfig = TextDataConfig()
    """text"""
    model: ModelConfig = ModelConfig()
    """network"""
    # Trial on tinyshakespeare: 3 evaluations without gradient follow the explicit network step for step.
    solver: SolverConfig = SolverConfig(name="picard", rtol=None, max_steps=3, scope="prefix")
    """solver in training"""
    eval_solver: SolverConfig = SolverConfig(name="anderson", scope="prefix")
    """solver in validation and generation; the prefix scope keeps the model causal to the last bit"""
    adjoint: AdjointConfig = AdjointConfig(name="phantom", steps=2)
    """gradient of the equilibrium"""
    regularization: RegularizationConfig = RegularizationConfig()
    """what keeps equilibria easy to find"""
    pretraining: PretrainingConfig = PretrainingConfig()
    """shallow training at first"""
    optimizer: OptimizerConfig = OptimizerConfig()
    """optimizer"""
    trainer: TrainerConfig = TrainerConfig()
    """engine"""
    sample_tokens: int = 200
    """length of the texts that the report shows and training prints at its end"""

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, f"seed is {self.seed}; it must be in [0, 2**32).")
        require(self.sample_tokens >= 0, f"sample_tokens is {self.sample_tokens}; it must be at least 0.")
