"""`vicreg`: self-supervised features by VICReg or Barlow Twins, measured by probes that do not train them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from poise.configs.errors import ConfigError
from poise.configs.vicreg import VICRegConfig
from poise.data import Samples, SampleSplits, ShuffledBatches, View, batch_seed
from poise.models import VICReg
from poise.objectives import (
    BarlowTwinsLoss,
    OnlineProbe,
    VICRegLoss,
    VICRegTerms,
    find_collapse,
    nearest_neighbours,
)
from poise.report import Page
from poise.tasks.base import Measures, Task
from poise.tasks.fine_tuning import accuracy, fine_tune
from poise.tasks.labelled import fingerprint, read_labelled, saved_samples
from poise.tasks.plain_batches import PlainBatches
from poise.tasks.probing import Probes, features_of, fit_probes
from poise.tasks.process import rank
from poise.tasks.run_folder import RunFolder
from poise.tasks.vicreg_analysis import analyse
from poise.tasks.vicreg_networks import Shapes, build_model
from poise.tasks.vicreg_report import build_page
from poise.tasks.vicreg_views import (
    Kinds,
    kinds,
    labelled_view,
    plain_batches,
    seen_shapes,
    training_views,
    two_views,
)
from poise.tasks.weights import load_weights


class CollapseWarning(UserWarning):
    """The embeddings have collapsed; the message says how, and which term to look at."""


class VICRegTask(Task):
    """Minimises the loss over two views of each sample; validates by probes on the encoder's features."""

    task_name = "vicreg"
    config_type = VICRegConfig
    quality_names: ClassVar[Mapping[str, str]] = {
        f"val_{name}_accuracy{branch}": f"{label} accuracy{of}"
        for branch, of in (("", ""), ("_2", ", second branch"))
        for name, label in (("probe", "linear probe"), ("knn", "nearest-neighbour"), ("few", "few-label probe"))
    }

    config: VICRegConfig
    model: VICReg

    def __init__(self, config: VICRegConfig, shapes: Shapes, class_names: tuple[str, ...]) -> None:
        super().__init__(config)
        self.shapes = shapes
        self.class_names = class_names
        self.model = build_model(config, shapes)
        # Not a part of the model: what it learns is measured and thrown away.
        self.online = OnlineProbe(self.n_features, len(class_names))
        loss = config.loss
        self.loss = (
            BarlowTwinsLoss(loss.barlow_weight)
            if loss.name == "barlow"
            else VICRegLoss(loss.convention, loss.invariance, loss.variance, loss.covariance)
        )
        self._probes: dict[int, Probes] = {}

    @classmethod
    def create(cls, config: VICRegConfig, folder: RunFolder | None = None) -> Self:
        """Read the samples and draw the weights."""
        samples = _read(config)
        torch.manual_seed(config.seed)
        task = cls(config, seen_shapes(samples.train, config.views), samples.train.class_names)
        task.__dict__["samples"] = samples
        task.training_batch(0)
        return task

    @classmethod
    def open(cls, config: VICRegConfig, folder: RunFolder) -> Self:
        """Load the weights."""
        shapes, class_names = saved_samples(folder, "shapes", "class_names")
        task = cls(config, tuple(map(tuple, shapes)), tuple(class_names))
        load_weights(task.model, folder)
        return task

    @cached_property
    def samples(self) -> SampleSplits[Any]:
        """The samples, read when they are first asked for."""
        return _read(self.config)

    @property
    def n_features(self) -> int:
        """How many features the first encoder returns."""
        return int(self.model.encoder.features)  # type: ignore[arg-type]

    @property
    def branches(self) -> range:
        """The branches that have an encoder of their own."""
        return range(1 if self.model.other_encoder is None else 2)

    @property
    def view(self) -> tuple[View, View]:
        """What makes the two views of a sample."""
        return training_views(self.config.views)

    def training_batch(self, index: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Return two views and the labels, which the loss does not see; an epoch leaves its last, short batch out."""
        size, seed, train = self.config.data.batch_size, self.config.seed, self.samples.train
        batches = ShuffledBatches(train, size, seed, rank=rank, world_size=world_size)
        picked = train.select(batches.places(index))
        generator = torch.Generator().manual_seed(batch_seed(seed, index, rank))
        return *two_views(kinds(picked), self.view, generator), picked.labels

    def training_loss(self, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Measures]:
        """Return the loss, its terms and the standard deviation of the embeddings; look for a collapse now and then."""
        x1, x2, labels = batch
        features = self.model.encode(x1, x2)
        first, second = self.model.expand(*features)
        terms = self.loss(first, second)
        measures: Measures = {
            "embedding_std": first.detach().float().std(dim=0).mean(),
            "online_probe_accuracy": self._online(features[0].detach(), labels),
        }
        if isinstance(terms, VICRegTerms):
            measures |= {
                "invariance": terms.invariance, "variance": terms.variance, "covariance": terms.covariance,
            }  # fmt: skip
        else:
            measures |= {"on_diagonal": terms.on_diagonal, "off_diagonal": terms.off_diagonal}
        step = self.global_step + 1
        if step % self.config.look_every_n_steps == 0 and rank() == 0:
            finding = find_collapse(first.detach(), floor=self.floor)
            if finding is not None:
                warnings.warn(f"after {step} steps, {finding}", CollapseWarning, stacklevel=2)
        return terms.total, measures

    def _online(self, features: Tensor, labels: Tensor) -> Callable[[], float]:
        """Return the accuracy on this batch of a probe of the batches before; then let it see this one as well."""
        before = copy.copy(self.online)
        before._buffers = dict(self.online._buffers)  # an update replaces buffers and leaves these
        self.online.update(features, labels)
        return lambda: before.fitted().accuracy(features, labels)

    @property
    def floor(self) -> float | None:
        """The standard deviation that the loss asks of embeddings, where it asks for one."""
        return self.loss.floor if isinstance(self.loss, VICRegLoss) else None

    def trunk(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return the features of the first view."""
        return self.model.features(batch[0])

    def plain(self, part: str) -> PlainBatches[tuple[Kinds, Tensor]]:
        """Return `train` or `test` in batches as the probes see them."""
        config = self.config
        times = config.probe.placements[0 if part == "train" else 1]
        return plain_batches(getattr(self.samples, part), config.views, config.data.eval_batch_size, times)

    def features(self, part: str, branch: int = 0, model: VICReg | None = None) -> Samples[Tensor]:
        """Return the encoder's features of `train` or `test`, in evaluation mode; `model`: instead of the task's."""
        model = self.model if model is None else model
        was_training = model.training
        model.eval()
        kind = branch if len(self.shapes) > 1 else 0
        encoder = model.branch(branch)[0]
        found = features_of(encoder, self.plain(part), kind, self.class_names, self.device)
        model.train(was_training)
        return found

    def fit_probes(self, branch: int) -> Probes:
        """Fit the probes to the training samples' features."""
        probe = self.config.probe
        return fit_probes(self.features("train", branch), probe.few, probe.draws, self.config.seed)

    def on_validation_epoch_start(self) -> None:
        """Fit the probes anew."""
        super().on_validation_epoch_start()
        self._probes = {branch: self.fit_probes(branch) for branch in self.branches}

    def evaluation_batches(self, split: str) -> Sequence[tuple[Kinds, Tensor]] | None:
        """Return the test samples in batches; they are called `valid`, since nothing is chosen by them."""
        return self.plain("test") if split == "valid" else None

    def evaluation_sums(self, batch: tuple[Kinds, Tensor]) -> dict[str, Tensor]:
        """Return how many samples each probe names rightly."""
        inputs, labels = batch
        sums = {"samples": torch.tensor(float(len(labels)))}
        self.model.eval()
        for branch, probes in self._probes.items():
            with torch.no_grad():
                features = self.model.features(inputs[branch if len(inputs) > 1 else 0], branch).float()
            known = probes.known
            neighbours = nearest_neighbours(known.inputs, known.labels, features, len(self.class_names))
            accuracies = {
                "probe": probes.linear.accuracy(features, labels),
                "few": probes.few_accuracy(self.config.probe.few[0], features, labels),
                "knn": (neighbours == labels).double().mean().item(),
            }
            sums |= {f"{name}{branch}": torch.tensor(value * len(labels)) for name, value in accuracies.items()}
        return sums

    def quality(self, sums: Mapping[str, Tensor], split: str) -> dict[str, float]:
        """Return the accuracies."""
        return {
            f"val_{name}_accuracy{'_2' if branch else ''}": float(sums[f"{name}{branch}"] / sums["samples"])
            for branch in self.branches
            for name in ("probe", "knn", "few")
        }

    def assess(self) -> dict[str, float]:
        """Return what `poise evaluate` measures beside: all few-label probes, and training whole on few labels.

        `fine_tuned_N` begins at this encoder's weights and `from_scratch_N` at random ones, with N labels a class.
        """
        found: dict[str, float] = {}
        probe, config = self.config.probe, self.config
        test = self.features("test")
        probes = self._probes.get(0) or self.fit_probes(0)  # those of the validation just before, where there was one
        for per_class in probe.few:
            found[f"probe_{per_class}_labels"] = probes.few_accuracy(per_class, test.inputs, test.labels)
        torch.manual_seed(config.seed)
        fresh = build_model(config, self.shapes).encoder
        train = self.samples.train
        for per_class in probe.fine_tune:
            few = train.select(train.few(per_class, torch.Generator().manual_seed(config.seed)))
            labelled = Samples(kinds(few)[0], few.labels, few.class_names)
            for name, start in (("fine_tuned", self.model.encoder), ("from_scratch", fresh)):
                classifier = fine_tune(
                    copy.deepcopy(start),
                    self.n_features,
                    labelled,
                    labelled_view(config.views),
                    steps=probe.fine_tune_steps,
                    lr=probe.fine_tune_lr,
                    seed=config.seed,
                    device=self.device,
                )
                found[f"{name}_{per_class}_labels"] = accuracy(classifier, self.plain("test"), 0, self.device)
        return found

    def save_inference(self, folder: RunFolder) -> None:
        """Write the shapes that the network was built for, and the classes that the probes name."""
        folder.write_json(folder.samples, {"shapes": self.shapes, "class_names": self.class_names})

    @cached_property
    def data_fingerprint(self) -> str:
        """A digest of the first training samples, and of all labels."""
        return fingerprint(self.samples.train)

    def identity(self) -> dict[str, Any]:
        """Return which network was trained on what, by which loss."""
        config = self.config
        return {
            "model": config.model.kind,
            "other": config.other.kind,
            "data": self.samples.source or config.data.path,
            "training_samples": len(self.samples.train),
            "loss": config.loss.name,
        }

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


def _read(config: VICRegConfig) -> SampleSplits[Any]:
    data = config.data
    found = read_labelled(data)
    if found.train.per_pixel:
        if found.train.scene_labels is None:
            raise ConfigError(f"{data.path!r} has a class at each pixel, and probes name one a sample; pass others.")
        found = found.by_scene()
    # Known before a step is trained rather than at the first validation, or after hours by `poise evaluate`.
    smallest = int(found.train.labels.bincount(minlength=len(found.train.class_names)).min())
    for name, numbers in (("few", config.probe.few), ("fine_tune", config.probe.fine_tune)):
        if max(numbers, default=0) > smallest:
            raise ConfigError(
                f"probe.{name} asks for {max(numbers)} labels a class, and the smallest class of {data.path!r} has "
                f"{smallest} training samples; ask for fewer."
            )
    return found
