"""What `classify`, `segment` and `multitask` are: pictures in, the class of each, of its pixels, or both."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from poise.configs.classify import ClassifyViewsConfig
from poise.configs.errors import ConfigError
from poise.data import VOID, DataError, Samples, SampleSplits, SceneView, ShuffledBatches, View
from poise.data.encoded_pictures import Encoded
from poise.models import Predictions, ResNet, multiscale_probabilities, sliding_logits
from poise.models.full_resolution import scaled_size
from poise.objectives import confusion_matrix, mean_iou, pixel_accuracy
from poise.report import Page
from poise.tasks.base import Measures, Task
from poise.tasks.labelled import fingerprint
from poise.tasks.plain_batches import PlainBatches
from poise.tasks.recognition_analysis import analyse
from poise.tasks.recognition_measures import quality, summed, weighted_loss
from poise.tasks.recognition_networks import Network, build_network, refuse_small, start_from
from poise.tasks.recognition_report import build_page
from poise.tasks.recognition_samples import Heads, Seen, read_pictures
from poise.tasks.recognition_views import (
    Batch,
    batch_of,
    classification_view,
    normalisation,
    plain_batches,
    scene_view,
)
from poise.tasks.run_folder import RunFolder
from poise.tasks.weights import load_weights

DECODING_WORKERS = 2


class RecognitionTask(Task):
    """Minimises the cross-entropy of one head or both; validates on the validation pictures, else on those of the test.

    A subclass says which heads it has and what their losses weigh.
    """

    quality_names: ClassVar[Mapping[str, str]] = {
        f"{split}_{name}": f"{words} {label}"
        for split, words in (("val", "validation"), ("test", "test"))
        for name, label in (
            ("accuracy", "accuracy"),
            ("top5_accuracy", "top-5 accuracy"),
            ("mean_iou", "mean IoU"),
            ("pixel_accuracy", "pixel accuracy"),
            ("loss", "loss"),
            ("spectral_radius", "spectral radius, largest"),
        )
    }
    reads: ClassVar[Heads]
    """What it predicts."""

    model: Network

    def __init__(self, config: Any, seen: Seen) -> None:
        super().__init__(config)
        self.seen = seen
        self.model = build_network(
            config.model,
            config.solver,
            config.eval_solver,
            config.adjoint,
            seen.channels,
            None if seen.class_names is None else len(seen.class_names),
            None if seen.pixel_names is None else len(seen.pixel_names),
        )
        self.confusion: dict[str, Tensor] = {}

    @abstractmethod
    def loss_weights(self) -> tuple[float, float]:
        """Return what the cross-entropies of the picture's class and of its pixels' are multiplied by."""

    @classmethod
    def create(cls, config: Any, folder: RunFolder | None = None) -> Self:
        """Read the samples and draw the weights, or take stem and trunk from another run."""
        samples = read_pictures(config.data, cls.reads)
        torch.manual_seed(config.seed)
        task = cls(config, Seen.of(samples.train, cls.reads, normalisation(config.views.normalise, samples.train)))
        task.__dict__["samples"] = samples
        if config.init_from is not None and folder is None:  # a resumed run has weights of its own
            start_from(task.model, config.init_from)
        task._try_a_batch()
        task._refuse_scales(samples.test)
        return task

    @classmethod
    def open(cls, config: Any, folder: RunFolder) -> Self:
        """Load the weights."""
        task = cls(config, Seen.read(folder))
        load_weights(task.model, folder)
        return task

    def save_inference(self, folder: RunFolder) -> None:
        """Write what the network was built for."""
        self.seen.write(folder)

    # Samples ----------------------------------------------------------------------------------------------------------

    @cached_property
    def samples(self) -> SampleSplits[Any]:
        """The samples, read when they are first asked for; a ConfigError where the network was made for others."""
        data = self.config.data
        found = read_pictures(data, self.reads)
        self.seen.refuse_others(found.train, self.reads, data.path)
        self._refuse_scales(found.test)
        return found

    def _try_a_batch(self) -> None:
        """Refuse views and pictures that do not fit the network before a run begins."""
        try:
            size = self.training_batch(0)[0].shape[-2:]
        except DataError:  # of a picture, which says so itself
            raise
        except ValueError as error:
            raise ConfigError(f"the views do not fit the pictures of {self.config.data.path!r}: {error}") from error
        if not isinstance(self.model, ResNet):
            refuse_small(size, self.config.model, f"pictures of {size[0]}x{size[1]}", "larger pictures")

    def _refuse_scales(self, whole: Samples[Any]) -> None:
        """Refuse scales that leave too little of the pictures that they are measured on, long before they are."""
        if not self.reads.pixels:
            return
        height, width = whole.inputs.shape[2:]
        for scale in self.config.full_resolution.scales:
            size = scaled_size((height, width), scale)
            pictures = f"pictures of {height}x{width}, made {size[0]}x{size[1]} by {scale:g} of full_resolution.scales,"
            refuse_small(size, self.config.model, pictures, "larger pictures or scales")

    @cached_property
    def training_view(self) -> Any:
        """What changes training pictures, and their label maps where the task reads them."""
        views, normalise = self.config.views, self.seen.normalise
        if not isinstance(views, ClassifyViewsConfig):
            found: View | SceneView = scene_view(views, normalise)
        else:
            height, width = self.samples.train.inputs.shape[2:]
            found = classification_view(views, (height, width), normalise)
        return found

    @property
    def decoding_workers(self) -> int:  # type: ignore[override]
        """Some threads where pictures are decoded as they are asked for."""
        return DECODING_WORKERS if isinstance(self.samples.train.inputs, Encoded) else 0

    def training_batch(self, index: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return pictures and labels; an epoch leaves its last, short batch out."""
        size, seed = self.config.data.batch_size, self.config.seed
        batches = ShuffledBatches(self.samples.train, size, seed, self.training_view, rank, world_size)
        inputs, labels, *scenes = batches(index)
        return batch_of(inputs, labels, scenes[0] if scenes else None, self.reads)

    @property
    def validated(self) -> Samples[Any]:
        """What is validated on: the test where there is nothing else."""
        return self.samples.test if self.samples.valid is None else self.samples.valid

    def plain(self, samples: Samples[Any]) -> PlainBatches[Batch]:
        """Return samples in batches, as they are measured."""
        return plain_batches(samples, self.seen.normalise, self.config.data.eval_batch_size, self.reads)

    def evaluation_batches(self, split: str) -> PlainBatches[Batch] | None:
        """Return the pictures of a split; where the set has none to validate on, its test is what `valid` means."""
        if split == "valid":
            return self.plain(self.validated)
        return None if self.samples.valid is None else self.plain(self.samples.test)

    # Predictions and measures -----------------------------------------------------------------------------------------

    def predict(self, x: Tensor) -> Predictions:
        """Return what the heads say of normalised pictures."""
        return Predictions(self.model(x), None) if isinstance(self.model, ResNet) else self.model(x)

    def predict_whole(self, x: Tensor) -> Predictions:
        """Return the same by windows, where the settings ask for them."""
        window = self.config.full_resolution.window if self.reads.pixels else None
        if window is None or isinstance(self.model, ResNet):
            return self.predict(x)
        pixels = sliding_logits(self.model.segment, x, window, self.config.full_resolution.overlap)
        return Predictions(self.model.classify(x) if self.reads.classes else None, pixels)

    def trunk(self, batch: Batch) -> Tensor:
        """Return the features before the heads, flat."""
        if isinstance(self.model, ResNet):
            return self.model(batch[0])
        return torch.cat([part.flatten(1) for part in self.model.scales(batch[0])], dim=1)

    def training_loss(self, batch: Batch) -> tuple[Tensor, Measures]:
        """Return the weighted cross-entropies, each of them, and the accuracy on the batch."""
        smoothing = getattr(self.config, "label_smoothing", 0.0)
        return weighted_loss(self.predict(batch[0]), batch, self.loss_weights(), smoothing)

    def evaluation_sums(self, batch: Batch) -> dict[str, Tensor]:
        """Return confusion matrices and summed losses."""
        return summed(self.predict_whole(batch[0]), batch)

    def quality(self, sums: Mapping[str, Tensor], split: str) -> dict[str, float]:
        """Return accuracies, mean IoU, and the loss that training minimises."""
        self.confusion = {kind: sums[kind] for kind in ("classes", "pixels") if kind in sums}
        return quality(sums, self.loss_weights(), "val" if split == "valid" else split)

    def assess(self) -> dict[str, float]:
        """Return mean IoU over pictures at several scales, where the settings name some."""
        if not self.reads.pixels or isinstance(self.model, ResNet) or not self.config.full_resolution.scales:
            return {}
        full = self.config.full_resolution
        batches = self.evaluation_batches("test") or self.evaluation_batches("valid")
        assert batches is not None and self.seen.pixel_names is not None
        total = torch.zeros(len(self.seen.pixel_names), len(self.seen.pixel_names), dtype=torch.int64)
        self.model.eval()
        for place in range(len(batches)):
            x, _, pixels = batches[place]
            assert pixels is not None
            found = multiscale_probabilities(
                self.model.segment, x.to(self.device), full.scales, self.config.views.flip, full.window, full.overlap
            )
            total += confusion_matrix(found.argmax(dim=1).cpu(), pixels, len(total), VOID)
        return {"multi_scale_mean_iou": mean_iou(total), "multi_scale_pixel_accuracy": pixel_accuracy(total)}

    # What is kept and shown -------------------------------------------------------------------------------------------

    @cached_property
    def data_fingerprint(self) -> str:
        """A digest of the first training samples, and of all labels where there is one a sample."""
        return fingerprint(self.samples.train)

    def identity(self) -> dict[str, Any]:
        """Return which network was trained on what, and on what it is validated."""
        samples = self.samples
        return {
            "model": self.config.model.kind,
            "data": samples.source or self.config.data.path,
            "training_samples": len(samples.train),
            "validation_samples": len(self.validated),
            "validated_on": "test" if samples.valid is None else "valid",
            "init_from": self.config.init_from,
        }

    def analyse(self) -> dict[str, Any]:
        """Return what the report shows beside the measures of training."""
        return analyse(self)

    def build_page(self, folder: RunFolder) -> Page:
        """Return the report."""
        return build_page(folder)
