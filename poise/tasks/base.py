"""What every task is: a LightningModule that says what a run optimises, measures, saves and shows.

A task gives the methods below `# What a task is`; batches, exact resume, validation, optimizer and costs are here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn

from poise.configs.fields import to_dict
from poise.data import Prefetched, batch_seed
from poise.report import Page
from poise.tasks.errors import DIVERGENCE_REMEDY, RunError
from poise.tasks.optimization import build_optimizer, scaled_to_batch, warmup_cosine
from poise.tasks.plain_batches import Share
from poise.tasks.regularization import largest_radius, observed, penalty, step_of_training
from poise.tasks.run_folder import RunFolder
from poise.tasks.solving import CostRecord, SolveTotals, equilibria

# A measure that takes work is a function, called only where it is logged.
Measures = dict[str, Tensor | float | Callable[[], Tensor | float]]

CHECKPOINT_KEY = "poise"
ALL_RANKS = -2  # in place of a rank, where the processes of a run draw alike


class Task(L.LightningModule, ABC):
    """A run's objective on one model, with everything that tasks share."""

    task_name: ClassVar[str]
    """Name on the command line."""
    config_type: ClassVar[type]
    """The dataclass of its settings; `seed`, `recipe`, `optimizer`, `trainer` and the rest of what `Task` reads."""
    quality_names: ClassVar[Mapping[str, str]] = {}
    """Its measures of quality, with their names for people."""
    decoding_workers: int = 0
    """Threads that make training batches ahead; a task whose pictures are decoded sets some."""

    model: nn.Module

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.cost = CostRecord()
        self.measures: Measures = {}
        self.latest_quality: dict[str, float] = {}
        self.latest_quality_step = -1
        self.split = "valid"
        self._sums: dict[str, Tensor] = {}
        self._radius: float | None = None
        self._shallow = False  # whether what the layers have counted since they were drained is of shallow steps

    # What a task is ---------------------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def create(cls, config: Any, folder: RunFolder | None = None) -> Self:
        """Return a task to train; `folder`: a run to go on with, whose saved parts (a vocabulary, say) are kept."""

    @classmethod
    @abstractmethod
    def open(cls, config: Any, folder: RunFolder) -> Self:
        """Return a task with what a run saved for inference; its data is read when it is first asked for."""

    @abstractmethod
    def training_batch(self, index: int, rank: int = 0, world_size: int = 1) -> Any:
        """Return the batch of a number, counted from 0 over the whole run: a function of these and the seed alone."""

    @abstractmethod
    def training_loss(self, batch: Any) -> tuple[Tensor, Measures]:
        """Return the loss of a batch, and measures of it to log."""

    @abstractmethod
    def evaluation_batches(self, split: str) -> Sequence[Any] | None:
        """Return all batches of `valid` or `test`, or None where the data has no such split."""

    @abstractmethod
    def evaluation_sums(self, batch: Any) -> dict[str, Tensor]:
        """Return measures of a batch that add up over batches and processes: a summed loss, counts, a matrix."""

    @abstractmethod
    def quality(self, sums: Mapping[str, Tensor], split: str) -> dict[str, float]:
        """Return the measures of a split, named with their split, from the sums over it, float64 on the CPU."""

    @abstractmethod
    def save_inference(self, folder: RunFolder) -> None:
        """Write what inference needs beside weights and settings."""

    @property
    def data_fingerprint(self) -> str:
        """What identifies the training data, so that a run is not resumed on other data."""
        return ""

    def identity(self) -> dict[str, Any]:
        """Return what else the summary says about the run."""
        return {}

    def trunk(self, batch: Any) -> Tensor | None:
        """Return the hidden features of a batch, whose computation `block_activation_bytes` measures."""
        return None

    def analyse(self) -> dict[str, Any]:
        """Return plain values that the report shows beside the measures of training."""
        return {}

    def assess(self) -> dict[str, float]:
        """Return what `poise evaluate` measures beside the quality of the splits."""
        return {}

    def dial(self) -> list[dict[str, Any]]:
        """Return what `poise evaluate` shows of quality against evaluations, a row for each way to stop."""
        return []

    def show(self, analysis: Mapping[str, Any]) -> str:
        """Return what to print of the trained model, such as a sample."""
        return ""

    @abstractmethod
    def build_page(self, folder: RunFolder) -> Page:
        """Return the report of a run, from its folder alone."""

    @property
    def solves(self) -> bool:
        """Whether the network has an equilibrium."""
        return any(True for _ in equilibria(self.model))

    # Training ---------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> Prefetched[Any]:
        """Return the batches from where the run stands."""
        first = self.trainer.global_step * self.trainer.accumulate_grad_batches
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        batch = partial(self.training_batch, rank=rank, world_size=world_size)
        return Prefetched(batch, first, workers=self.decoding_workers)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss; noise is drawn from a seed of this batch, so that a resumed run draws the same."""
        accumulate = self.trainer.accumulate_grad_batches
        index = self.trainer.global_step * accumulate + batch_idx % accumulate
        torch.manual_seed(batch_seed(self.config.seed, index, self.trainer.global_rank))
        alike = torch.Generator().manual_seed(batch_seed(self.config.seed, index, ALL_RANKS))
        if self.config.pretraining.covers(self.trainer.global_step) != self._shallow:
            self.drain_training()
            self._shallow = not self._shallow
        loss, self.measures = self.step_loss(batch, self.trainer.global_step, alike)
        if loss.device.type == "cpu":  # elsewhere looking makes the host wait, and is done where measures are logged
            self.refuse_nan(float(loss.detach()))
        return loss

    def step_loss(self, batch: Any, step: int, generator: torch.Generator) -> tuple[Tensor, Measures]:
        """Return what a step of the run minimises, and its measures; `generator`: of budgets and penalties."""
        regularization = self.config.regularization
        with (
            step_of_training(self.model, regularization, self.config.pretraining, step, generator),
            observed(self.model) as solves,
        ):
            loss, measures = self.training_loss(batch)
            progress = step / self.config.trainer.max_steps
            added = penalty(solves, regularization, progress, generator)
        measures = {"loss": loss.detach(), **measures}  # the task's own, alike with and without a penalty
        if solves:
            measures["residual"] = torch.cat([one.residual for one in solves]).mean()
        if added is not None:
            measures["jacobian_penalty"] = added.detach()
            loss = loss + regularization.weight_at(progress) * added
        return loss, measures

    def refuse_nan(self, loss: float) -> None:
        """Raise a RunError if a loss is not finite."""
        if loss - loss != 0:
            raise RunError(
                f"the loss is {loss} at step {self.trainer.global_step}, so the run stops, its checkpoints are kept; "
                f"{DIVERGENCE_REMEDY}."
            )

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule."""
        settings = scaled_to_batch(self.config.optimizer, self.samples_a_step)
        optimizer = build_optimizer(self.model, settings)
        schedule = warmup_cosine(optimizer, settings, self.config.trainer.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @property
    def samples_a_step(self) -> int:
        """Return how many samples all processes take together for one step."""
        return self.config.data.batch_size * self.trainer.accumulate_grad_batches * self.trainer.world_size

    # Validation -------------------------------------------------------------------------------------------------------

    def val_dataloader(self) -> Sequence[Any]:
        """Return this process's share of the batches of the current split."""
        batches = self.evaluation_batches(self.split)
        if batches is None:
            raise RunError(f"the data has no split {self.split!r}; it has valid.")
        if len(batches) < self.trainer.world_size:
            raise RunError(
                f"there are fewer batches to evaluate ({len(batches)}) than processes ({self.trainer.world_size}); "
                "pass a smaller data.eval_batch_size."
            )
        return Share(batches, self.trainer.global_rank, self.trainer.world_size)

    def on_validation_epoch_start(self) -> None:
        """Keep the solves of training apart from those of validation."""
        self.drain_training()
        self._sums, self._radius = {}, None

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Add the measures of a batch; look at the equilibria of the first."""
        samples = self.config.regularization.spectral_radius_samples if batch_idx == 0 else 0
        with observed(self.model, samples) as solves:
            sums = self.evaluation_sums(batch)
        for name, value in sums.items():
            value = value.cpu().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        if samples and solves:
            self._radius = largest_radius(solves, self.config.seed)

    def on_validation_epoch_end(self) -> None:
        """Add up over processes and turn sums into quality."""
        if self.trainer.world_size > 1:
            for name in sorted(self._sums):
                total = self.trainer.strategy.reduce(self._sums[name].to(self.device), reduce_op="sum")
                self._sums[name] = total.cpu()
        for layer in equilibria(self.model):
            self.cost.evaluation.add(layer.counters.forward)
            layer.counters.reset()
        self.latest_quality = self.quality(self._sums, self.split)
        if self._radius is not None:
            name = "val" if self.split == "valid" else self.split
            self.latest_quality[f"{name}_spectral_radius"] = self._radius
        self.latest_quality_step = self.trainer.global_step
        self.log_quality(self.trainer.loggers, self.trainer.global_step)

    def log_quality(self, loggers: Sequence[Logger], step: int) -> None:
        """Write the latest quality to loggers, with what training had cost by then."""
        costs = {"train_seconds": self.cost.train_seconds, "train_cpu_seconds": self.cost.train_cpu_seconds}
        for logger in loggers:
            logger.log_metrics({**self.latest_quality, **costs}, step=step)

    # Costs and checkpoints --------------------------------------------------------------------------------------------

    def drain_training(self) -> dict[str, float]:
        """Move what the layers counted since last time to the record; return evaluations a solve among it.

        Shallow pretraining solves nothing, so that its spent budgets are no part of the record.
        """
        found = {}
        for name, total in (("forward", self.cost.forward), ("backward", self.cost.backward)):
            recent = SolveTotals()
            for layer in equilibria(self.model):
                tally = getattr(layer.counters, name)
                recent.add(tally)
                if not self._shallow:
                    total.add(tally)
                tally.reset()
            if recent.solves:
                found[f"{name}_evaluations"] = recent.mean_evaluations
        return found

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the record and the settings, as plain values that load without running code."""
        self.drain_training()
        checkpoint[CHECKPOINT_KEY] = {
            "config": to_dict(self.config),
            "cost": self.cost.to_dict(),
            "data": self.data_fingerprint,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the record."""
        saved = checkpoint[CHECKPOINT_KEY]
        if saved["data"] != self.data_fingerprint:
            raise RunError("the training data is not what the run began with; restore it, or start a new run.")
        self.cost = CostRecord.from_dict(saved["cost"])
