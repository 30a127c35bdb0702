"""`vicreg`: self-supervised features by VICReg or Barlow Twins, measured by probes that do not train them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from poise.configs.vicreg import EncoderConfig, VICRegConfig
from poise.data import Placed, Samples, SampleSplits, ShuffledBatches, batch_seed, digits, moved_digits
from poise.models import DenseEncoder, DEQDenseEncoder, Expander, VICReg
from poise.objectives import (
    BarlowTwinsLoss,
    LinearProbe,
    VICRegLoss,
    VICRegTerms,
    find_collapse,
    fit_linear_probe,
    nearest_neighbours,
)
from poise.report import Page
from poise.tasks.base import Measures, Task
from poise.tasks.process import rank
from poise.tasks.run_folder import RunFolder
from poise.tasks.solving import build_adjoint, build_solver
from poise.tasks.vicreg_analysis import analyse
from poise.tasks.vicreg_report import build_page
from poise.tasks.weights import load_weights


class CollapseWarning(UserWarning):
    """The embeddings have collapsed; the message says how, and which term to look at."""


@dataclass(frozen=True)
class Probes:
    """What was fitted to the features of the training samples: all of them, and a few a class."""

    known: Tensor
    labels: Tensor
    linear: LinearProbe
    few: LinearProbe


class VICRegTask(Task):
    """Minimises the loss over two views of each sample; validates by probes on the encoder's features."""

    task_name = "vicreg"
    config_type = VICRegConfig
    quality_names: ClassVar[Mapping[str, str]] = {
        "val_probe_accuracy": "linear probe accuracy",
        "val_knn_accuracy": "nearest-neighbour accuracy",
        "val_few_accuracy": "few-label probe accuracy",
    }

    config: VICRegConfig
    model: VICReg

    def __init__(self, config: VICRegConfig) -> None:
        super().__init__(config)
        self.model = build_model(config)
        loss = config.loss
        self.loss = (
            BarlowTwinsLoss(loss.barlow_weight)
            if loss.name == "barlow"
            else VICRegLoss(loss.convention, loss.invariance, loss.variance, loss.covariance)
        )
        self._probes: Probes | None = None
        self._looks = 0

    @classmethod
    def create(cls, config: VICRegConfig, folder: RunFolder | None = None) -> Self:
        """Read the digits and draw the weights."""
        torch.manual_seed(config.seed)
        task = cls(config)
        task.training_batch(0)
        return task

    @classmethod
    def open(cls, config: VICRegConfig, folder: RunFolder) -> Self:
        """Load the weights."""
        task = cls(config)
        load_weights(task.model, folder)
        return task

    @cached_property
    def pictures(self) -> Samples:
        """The training digits (N, 1, 8, 8)."""
        return digits().train

    @cached_property
    def probed(self) -> SampleSplits:
        """Clean digits at random places, what the probes are fitted to and tested on."""
        return moved_digits(side=self.config.data.side)

    @property
    def view(self) -> Placed:
        """What makes a view of a digit."""
        data = self.config.data
        return Placed(data.side, data.gain, data.noise)

    def training_batch(self, index: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, Tensor]:
        """Return two views (B, 1, side, side); an epoch is a permutation without its last, short batch."""
        size, seed = self.config.data.batch_size, self.config.seed
        batches = ShuffledBatches(self.pictures, size, seed, rank=rank, world_size=world_size)
        x = self.pictures.select(batches.places(index)).inputs
        assert isinstance(x, Tensor)
        generator = torch.Generator().manual_seed(batch_seed(seed, index, rank))
        return self.view(x, generator), self.view(x, generator)

    def training_loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Measures]:
        """Return the loss, its terms and the standard deviation of the embeddings; look for a collapse now and then."""
        first, second = self.model(*batch)
        terms = self.loss(first, second)
        measures: Measures = {"embedding_std": first.detach().float().std(dim=0).mean()}
        if isinstance(terms, VICRegTerms):
            measures |= {
                "invariance": terms.invariance, "variance": terms.variance, "covariance": terms.covariance,
            }  # fmt: skip
        else:
            measures |= {"on_diagonal": terms.on_diagonal, "off_diagonal": terms.off_diagonal}
        self._looks += 1
        if self._looks % self.config.look_every_n_steps == 0 and rank() == 0:
            finding = find_collapse(first.detach(), floor=self.floor)
            if finding is not None:
                warnings.warn(f"after {self._looks} steps, {finding}", CollapseWarning, stacklevel=2)
        return terms.total, measures

    @property
    def floor(self) -> float | None:
        """The standard deviation that the loss asks of embeddings, where it asks for one."""
        return self.loss.floor if isinstance(self.loss, VICRegLoss) else None

    def trunk(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the features of the first view."""
        return self.model.features(batch[0])

    def features(self, x: Tensor) -> Tensor:
        """Return the encoder's features (N, F) of pictures, in evaluation mode, in batches."""
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad():
            parts = x.split(self.config.data.eval_batch_size)
            found = torch.cat([self.model.features(part.to(self.device)) for part in parts])
        self.model.train(was_training)
        return found

    def fit_probes(self) -> Probes:
        """Fit the probes to the training samples' features."""
        train = self.probed.train
        classes = len(train.class_names)
        assert isinstance(train.inputs, Tensor)
        known, labels = self.features(train.inputs), train.labels.to(self.device)
        few = train.few(self.config.data.few, torch.Generator().manual_seed(self.config.seed)).to(self.device)
        return Probes(
            known,
            labels,
            fit_linear_probe(known, labels, classes),
            fit_linear_probe(known[few], labels[few], classes),
        )

    def on_validation_epoch_start(self) -> None:
        """Fit the probes anew."""
        super().on_validation_epoch_start()
        self._probes = self.fit_probes()

    def evaluation_batches(self, split: str) -> Sequence[tuple[Tensor, Tensor]] | None:
        """Return the test samples in batches; they are called `valid`, since nothing is chosen by them."""
        if split != "valid":
            return None
        test, size = self.probed.test, self.config.data.eval_batch_size
        assert isinstance(test.inputs, Tensor)
        return list(zip(test.inputs.split(size), test.labels.split(size), strict=True))

    def evaluation_sums(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Return how many samples each probe names rightly."""
        probes = self._probes if self._probes is not None else self.fit_probes()
        x, labels = batch
        features = self.features(x)
        neighbours = nearest_neighbours(probes.known, probes.labels, features, len(self.probed.test.class_names))
        return {
            "probe": (probes.linear(features).argmax(dim=1) == labels).sum(),
            "few": (probes.few(features).argmax(dim=1) == labels).sum(),
            "knn": (neighbours == labels).sum(),
            "samples": torch.tensor(len(labels)),
        }

    def quality(self, sums: Mapping[str, float], split: str) -> dict[str, float]:
        """Return the accuracies."""
        return {f"val_{name}_accuracy": sums[name] / sums["samples"] for name in ("probe", "knn", "few")}

    def save_inference(self, folder: RunFolder) -> None:
        """Write nothing: weights and settings are enough."""

    @cached_property
    def data_fingerprint(self) -> str:
        """A digest of the training pictures."""
        inputs = self.pictures.inputs
        assert isinstance(inputs, Tensor)
        return hashlib.blake2b(inputs.numpy().tobytes(), digest_size=16).hexdigest()

    def identity(self) -> dict[str, Any]:
        """Return which network was trained on what, by which loss."""
        return {"model": self.config.model.kind, "data": "moved digits", "loss": self.config.loss.name}

    def analyse(self) -> dict[str, Any]:
        """Return what the report shows beside the measures of training."""
        return analyse(self)

    def show(self, analysis: Mapping[str, Any]) -> str:
        """Return whether the embeddings have collapsed, and what a random encoder is worth."""
        return (
            f"{analysis['finding'] or 'No sign of a collapse.'} The same encoder with random weights: linear probe "
            f"{analysis['random_probe_accuracy']:.3f}."
        )

    def build_page(self, folder: RunFolder) -> Page:
        """Return the report."""
        return build_page(folder)


def build_model(config: VICRegConfig) -> VICReg:
    """Return the network that the settings describe, with fresh weights."""
    model = config.model
    encoder = build_encoder(config)
    return VICReg(encoder, Expander((model.features, *model.expander), normalised=model.batch_norm))


def build_encoder(config: VICRegConfig) -> nn.Module:
    """Return the encoder."""
    model: EncoderConfig = config.model
    pixels = config.data.side**2
    if model.kind == "dense":
        return DenseEncoder((pixels, model.width, model.width, model.features), batch_norm=model.batch_norm)
    return DEQDenseEncoder(
        pixels,
        model.width,
        model.features,
        bound=model.bound,
        batch_norm=model.batch_norm,
        solver=build_solver(config.solver),
        adjoint=build_adjoint(config.adjoint),
        eval_solver=build_solver(config.eval_solver),
    )
