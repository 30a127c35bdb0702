"""Settings that every task shares: solvers, adjoint, optimizer, trainer.

The line under each setting is its help text on the command line; it says where the default comes from.
"""

from dataclasses import dataclass
from typing import Literal

from poise.configs.errors import ConfigError


def require(holds: bool, sentence: str) -> None:
    """Raise a ConfigError with this sentence unless the condition holds."""
    if not holds:
        raise ConfigError(sentence)


def require_positive(owner: object, *names: str) -> None:
    """Refuse settings of `owner` that are not above zero; None passes."""
    for name in names:
        value = getattr(owner, name)
        require(value is None or value > 0, f"{name} is {value}; it must be above 0.")


@dataclass(frozen=True)
class SolverConfig:
    """How an equilibrium is found."""

    name: Literal["picard", "anderson", "broyden"] = "anderson"
    """rule for the next iterate; anderson needs the fewest evaluations on the solver bench"""
    rtol: float | None = 1e-4
    """converged when |f(z) - z| <= rtol |f(z)|; null runs all of max_steps; 1e-4 is what losses are quoted at"""
    atol: float = 0.0
    """converged also when |f(z) - z| <= atol; 0 because states differ in scale"""
    max_steps: int = 100
    """evaluations of the cell at most; a trained language cell needs 13 to 25 for 1e-4, its hardest windows 60"""
    history: int = 10
    """differences that anderson and broyden keep; 10 to 20 halve the evaluations of the hardest bench case"""
    form: Literal["type1", "type2"] = "type1"
    """anderson's small problem; type1 is the better one on cells that hardly contract (solver bench)"""
    period: int = 3
    """anderson mixes at every so many evaluations; 3 costs none on cells that contract, 1 is for those that do not"""
    check_every: int = 1
    """evaluations from one test to the next; more is faster where the cell is cheap, or on a GPU"""
    scope: Literal["sample", "prefix"] = "sample"
    """what shares one residual and one set of weights; prefix keeps a causal model causal"""
    residual: Literal["sample", "position"] = "sample"
    """position is the largest over a state's positions, so that large instances stop as small ones do"""
    damping: float = 1.0
    """in (0, 1]: the part of each step that is taken (for broyden, its step length)"""

    def __post_init__(self) -> None:
        require(self.rtol is None or self.rtol >= 0, f"rtol is {self.rtol}; pass at least 0, or null for a budget.")
        require(self.atol >= 0, f"atol is {self.atol}; it must be at least 0.")
        require_positive(self, "max_steps", "history", "period", "check_every")
        require(0 < self.damping <= 1, f"damping is {self.damping}; it must be in (0, 1].")


@dataclass(frozen=True)
class AdjointConfig:
    """How gradients pass through the equilibrium."""

    name: Literal["implicit", "phantom", "jacobian_free", "unrolled"] = "implicit"
    """implicit is exact; phantom and jacobian_free are cheaper approximations; unrolled records the solve"""
    steps: int = 5
    """phantom: evaluations with a gradient; 5 is the published choice (Geng et al. 2021)"""
    damping: float | None = None
    """phantom: in (0, 1]; null is the solver's; 1 for a cell that contracts well, 0.5 to 0.8 published for others"""
    recorded_only: bool = False
    """phantom: its evaluations are made in training alone, so that the solver's budget is all that a solve costs"""
    rtol: float = 1e-3
    """implicit: relative residual of the backward solve; a tenth of a batch's gradient noise is far above it"""
    max_steps: int = 40
    """implicit: products with the Jacobian at most"""

    def __post_init__(self) -> None:
        require_positive(self, "steps", "max_steps", "rtol")
        damping = self.damping
        require(damping is None or 0 < damping <= 1, f"damping is {damping}; it must be in (0, 1], or null.")


@dataclass(frozen=True)
class RegularizationConfig:
    """What training does so that equilibria stay easy to find; a network without one is left alone."""

    jacobian_weight: float = 0.0
    """of |J|_F^2 / d in the loss; published: 0.4 for pictures, 1.9 for text (Bai et al. 2021)"""
    jacobian_frequency: float = 0.1
    """part of the steps that add it, so that it stays below a tenth of the time; published: 0.02 for pictures, 0.35 for
    text (Bai et al. 2021)"""
    jacobian_samples: int | None = None
    """samples of a batch whose Jacobian is looked at, the first ones; null is all: as good an estimate, of less work"""
    jacobian_final_weight: float | None = None
    """the weight moves evenly to this at the last step; published: from 1.9 up by 0.1 every 35,000 (Bai et al. 2021)"""
    jacobian_until: float = 1.0
    """part of the run after which nothing is added; published: the first 90 of 220 epochs (Bai et al. 2021)"""
    jitter: int = 0
    """the budget of a step is drawn from max_steps minus to plus so many; 2 published (Bai et al. 2021)"""
    spectral_radius_samples: int = 0
    """validation samples whose Jacobian's spectral radius is measured at each validation; 0 measures none"""

    def __post_init__(self) -> None:
        for name in ("jacobian_weight", "jacobian_final_weight", "jitter", "spectral_radius_samples"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{name} is {value}; it must be at least 0.")
        require_positive(self, "jacobian_samples")
        for name in ("jacobian_frequency", "jacobian_until"):
            require(0 < getattr(self, name) <= 1, f"{name} is {getattr(self, name)}; it must be in (0, 1].")

    def weight_at(self, progress: float) -> float:
        """Return the weight of the Jacobian penalty where this part of a run's steps is done."""
        if progress >= self.jacobian_until:
            return 0.0
        final = self.jacobian_weight if self.jacobian_final_weight is None else self.jacobian_final_weight
        return self.jacobian_weight + progress * (final - self.jacobian_weight)


@dataclass(frozen=True)
class PretrainingConfig:
    """Shallow training before equilibria are solved (Bai et al. 2019, 2020)."""

    steps: int = 0
    """first steps of a run that unroll the cell a few times instead; published: 10 to 20 % of all"""
    layers: int = 5
    """evaluations of the cell in each of them, all recorded"""

    def __post_init__(self) -> None:
        require(self.steps >= 0, f"steps is {self.steps}; it must be at least 0.")
        require_positive(self, "layers")

    def covers(self, step: int) -> bool:
        """Return whether a step of the run, counted from 0, is shallow."""
        return step < self.steps


@dataclass(frozen=True)
class OptimizerConfig:
    """What moves the weights, and its schedule."""

    name: Literal["muon", "adamw", "lars"] = "muon"
    """muon for matrices with adamw for the rest (Jordan et al. 2024), adamw for all, or lars for very large batches"""
    matrix_lr: float = 0.02
    """muon's step; Jordan's choice, best of the trial"""
    matrix_weight_decay: float = 0.1
    """muon's decoupled decay (trial on tinyshakespeare)"""
    momentum: float = 0.95
    """muon's Nesterov momentum (Jordan et al. 2024), or lars's momentum, for which 0.9 is published"""
    trust_coefficient: float = 1e-3
    """lars's step as a part of a matrix's norm, before lr (You et al. 2017)"""
    lr: float = 3e-3
    """adamw's step (trial on tinyshakespeare), or lars's, published as 0.2 * batch / 256 (Bardes et al. 2022)"""
    lr_scaling: Literal["none", "linear"] = "none"
    """linear: steps are for 256 samples, and grow with those of a step on all devices (Goyal et al. 2017)"""
    weight_decay: float = 0.0
    """adamw's decoupled decay; nothing for embeddings, norms and biases (common practice); lars's, published as 1e-6"""
    betas: tuple[float, float] = (0.9, 0.95)
    """adamw's averages (nanoGPT)"""
    eps: float = 1e-8
    """adamw's floor of the denominator (Kingma and Ba 2015)"""
    warmup_steps: int = 100
    """steps of linear warm-up (trial)"""
    final_lr_ratio: float = 0.02
    """the cosine ends at this part of the step (trial)"""

    def __post_init__(self) -> None:
        require_positive(self, "matrix_lr", "lr", "eps", "trust_coefficient")
        for name in ("matrix_weight_decay", "weight_decay", "warmup_steps"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; it must be at least 0.")
        require(0 <= self.momentum < 1, f"momentum is {self.momentum}; it must be in [0, 1).")
        require(all(0 <= beta < 1 for beta in self.betas), f"betas are {self.betas}; both must be in [0, 1).")
        ratio = self.final_lr_ratio
        require(0 <= ratio <= 1, f"final_lr_ratio is {ratio}; it must be in [0, 1].")


@dataclass(frozen=True)
class TrainerConfig:
    """The engine; names and meanings are those of Lightning's Trainer."""

    max_steps: int = 1000
    """optimizer steps of the whole run; 1,000 take about two minutes on two CPU cores (demo)"""
    accelerator: str = "auto"
    """cpu, gpu, mps, ...; auto takes what there is"""
    devices: int | str = "auto"
    """how many devices; auto is all of one accelerator, or the processes that torchrun started"""
    num_nodes: int = 1
    """machines"""
    strategy: str = "auto"
    """ddp, fsdp, ...; auto is one device alone, else ddp"""
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true"] = "32-true"
    """numbers the network computes in; a CPU gains nothing from half precision"""
    accumulate_grad_batches: int = 1
    """batches a step"""
    gradient_clip_val: float | None = 1.0
    """largest norm of the gradient; null does not clip (trial)"""
    val_check_interval: int = 500
    """steps between validations"""
    limit_val_batches: int | float = 1.0
    """part (float) or number (int) of validation batches; 1.0 is all, what losses are quoted on"""
    log_every_n_steps: int = 10
    """steps between rows of metrics.csv"""
    checkpoint_every_n_steps: int = 200
    """steps between checkpoints; the last two are kept"""
    fast_dev_run: bool = False
    """one training and one validation batch, to see whether everything fits"""
    deterministic: bool = False
    """refuse operations without a deterministic form; a GPU resumes bit for bit only with it"""
    threads: int | None = None
    """threads of the CPU; null leaves torch's choice, and a run resumes bit for bit with equally many"""
    logger: Literal["csv", "tensorboard"] = "csv"
    """tensorboard writes its files beside metrics.csv and needs pip install 'poise[tb]'"""

    def __post_init__(self) -> None:
        require_positive(
            self,
            "max_steps",
            "num_nodes",
            "accumulate_grad_batches",
            "gradient_clip_val",
            "val_check_interval",
            "log_every_n_steps",
            "checkpoint_every_n_steps",
            "threads",
        )
        limit = self.limit_val_batches
        fits = 0 < limit <= 1 if isinstance(limit, float) else limit >= 1
        require(fits, f"limit_val_batches is {limit}; pass a part in (0, 1] as 0.5, or a number of batches as 20.")
        if isinstance(self.devices, int):
            require(self.devices >= 1, f"devices is {self.devices}; pass at least 1, or auto.")
