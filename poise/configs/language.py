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
    memory: int = 0
    """positions of earlier segments that a segment sees; above 0 training and validation read the text as streams"""
    batch_size: int = 12
    """windows a training batch and device (trial)"""
    eval_batch_size: int = 64
    """windows a validation batch; changes speed only, since a sample's answer is its own"""

    def __post_init__(self) -> None:
        require(bool(self.path), "path is empty; name a text file, a folder, or embedded.")
        require_positive(self, "vocab_size", "sequence_length", "batch_size", "eval_batch_size")
        require(self.memory >= 0, f"memory is {self.memory}; it must be at least 0.")


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    kind: Literal["deq", "explicit"] = "deq"
    """deq: one weight-tied block at its equilibrium; explicit: blocks stacked, untied ones (of a trellis tied)"""
    cell: Literal["transformer", "trellis"] = "transformer"
    """transformer: causal attention (DEQ-Transformer); trellis: a gated causal convolution (DEQ-TrellisNet)"""
    d_model: int = 180
    """features a token; 2 equilibrium layers of 180 have the parameters of 4 explicit ones of 128 (trial)"""
    n_heads: int = 6
    """transformer: attention heads, of an even number of features each (rotary positions turn them in pairs)"""
    n_layers: int = 2
    """layers of the transformer's cell, or of the explicit network; published for trellis: 12 and more"""
    n_before: int = 0
    """equilibrium transformer: plain layers before the equilibrium, evaluated once (a prelude, Geiping et al. 2025)"""
    n_after: int = 0
    """equilibrium transformer: plain layers after it (a coda)"""
    convolution: int = 1
    """transformer: tokens whose embeddings a causal convolution mixes at first, feature by feature (So et al. 2021); 1
    is none; of characters, 3 lowers the loss of a small network at no cost (trial)"""
    d_ff: int | None = None
    """transformer: hidden features of the feed-forward part; null is 4 d_model"""
    d_hidden: int | None = None
    """trellis: features of its two hidden states; null is 2 d_model"""
    dropout: float = 0.0
    """drawn once a solve; 0 because small models on few steps do not overfit (trial)"""
    variational: bool = False
    """transformer: dropout masks are the same at all positions, as published for DEQs and as a trellis has them"""
    weight_norm: bool = False
    """normalise the weights of the cell or of the explicit layers (Bai et al. 2019)"""
    norm: Literal["post", "pre"] = "post"
    """transformer: layer norm after each branch, or before it"""
    span: int | None = None
    """transformer: positions that one sees, itself among them; null is all"""
    cutoffs: tuple[int, ...] = ()
    """adaptive softmax: frequent words up to the first have full vectors, further clusters narrower ones; [] is one
    table; published for WikiText-103: [20000, 40000, 200000] (Dai et al. 2019)"""
    div_value: float = 4.0
    """adaptive softmax: each cluster's vectors are so many times narrower (Baevski and Auli 2019)"""

    def __post_init__(self) -> None:
        require_positive(self, "d_model", "n_heads", "n_layers", "convolution", "d_ff", "d_hidden", "span")
        require(0 <= self.dropout < 1, f"dropout is {self.dropout}; it must be in [0, 1).")
        require(self.div_value >= 1, f"div_value is {self.div_value}; it must be at least 1.")
        cutoffs = list(self.cutoffs)
        require(
            cutoffs == sorted({*cutoffs} - {0}) and all(cutoff > 0 for cutoff in cutoffs),
            f"cutoffs are {cutoffs}; pass numbers of words that grow, such as [2000, 10000].",
        )
        for name in ("n_before", "n_after"):
            number = getattr(self, name)
            require(number >= 0, f"{name} is {number}; it must be at least 0.")
            known = self.kind == "deq" and self.cell == "transformer"
            require(
                known or number == 0,
                f"{name} is {number}, but only an equilibrium of the transformer has layers around it; leave it out.",
            )
        if self.cell == "trellis":
            for name, plain in (
                ("convolution", 1),
                ("d_ff", None),
                ("norm", "post"),
                ("span", None),
                ("variational", False),
            ):
                value = getattr(self, name)
                require(value == plain, f"{name} is {value}, but a trellis has none; leave it out.")
            return
        require(self.d_hidden is None, f"d_hidden is {self.d_hidden}, but a transformer has none; leave it out.")
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
        cutoffs, tokenizer = list(self.model.cutoffs), self.data.tokenizer
        require(
            not cutoffs or tokenizer == "word",
            f"model.cutoffs are {cutoffs}, but {tokenizer} tokens do not run from frequent to rare; pass --tokenizer "
            "word, or leave the cutoffs out.",
        )
        self.check_cutoffs(self.data.vocab_size, "data.vocab_size is")

    def check_cutoffs(self, vocab_size: int, said: str) -> None:
        """Raise a ConfigError where clusters begin beyond a vocabulary; `said`: of which the size is told."""
        cutoffs = list(self.model.cutoffs)
        require(
            not cutoffs or cutoffs[-1] < vocab_size,
            f"model.cutoffs are {cutoffs}, but {said} {vocab_size}; pass cutoffs below that number.",
        )
